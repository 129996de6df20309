"""A training, as it is sent to other processes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from topgraft.features.sending import lacking_files, sendable, with_files
from topgraft.features.sources import Source
from topgraft.graft import Graft
from topgraft.history import Recipe
from topgraft.workers import Item


@dataclass(frozen=True, eq=False)
class Training(Item):
    """One training, as it is sent to another process.

    Parameters
    ----------
    graft
        At its start; without the frozen part, which no training touches.
    source, targets, rows, validation, recipe
        As for :func:`topgraft.train.train`.
    """

    graft: Graft
    source: Source
    targets: Tensor
    rows: list[int]
    validation: list[int]
    recipe: Recipe

    @classmethod
    def of(
        cls,
        graft: Graft,
        source: Source,
        targets: Tensor,
        rows: Sequence[int],
        validation: Sequence[int],
        recipe: Recipe,
    ) -> Training:
        """With all that another process needs.

        Raises
        ------
        NotSendable
            As :func:`topgraft.features.sending.sendable`.
        """
        return cls(trained_part(graft), sendable(source), targets, list(rows), list(validation), recipe)

    def lacks(self) -> tuple[str, ...]:
        """Files of examples that this process can't find."""
        return lacking_files(self.source)

    def filled(self) -> Training:
        """With the content of these files."""
        return replace(self, source=with_files(self.source))


def trained_part(graft: Graft) -> Graft:
    """A copy of a graft without the frozen part, which training from its border never runs."""
    frozen, graft.frozen = graft.frozen, None
    try:
        return copy.deepcopy(graft)
    finally:
        graft.frozen = frozen
