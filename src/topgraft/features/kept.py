"""One thing in the store that is no example: a converted network, evidence; kept for the next command."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from topgraft.errors import TopgraftError
from topgraft.features.shelf import NotStored, Shelf, StoreWarning
from topgraft.features.store import Store

Arrays = Mapping[str, Tensor | Sequence[Tensor]]


class Kept:
    """Where one thing is kept, found by everything that it was made from.

    A store that can't be used costs time and nothing else: it is told.

    Parameters
    ----------
    store
        In which store.
    description
        Everything that it was made from, as JSON.
    only
        Name of the shelf's one entry.
    said
        What it is, in words, as the beginning of a sentence.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> kept = Kept(Store(Path(tempfile.mkdtemp())), {"of": 3}, only="sum", said="The sum")
    >>> kept.read() is None
    True
    >>> kept.keep({"sum": torch.tensor([6.0])})
    >>> kept.read()["sum"].item()
    6.0
    """

    def __init__(self, store: Store, description: Mapping[str, Any], *, only: str, said: str) -> None:
        self._only, self._said = only, said
        self._shelf: Shelf | None = None
        with self._looking():
            self._shelf = store.shelf(description, passing=True)

    def read(self) -> dict[str, Tensor | list[Tensor]] | None:
        """What is kept; ``None`` where nothing is, or where it was damaged and is deleted, which is said."""
        if self._shelf is not None:
            with self._looking(), contextlib.suppress(NotStored):
                return self._shelf.read([self._only])
        return None

    def keep(self, arrays: Arrays) -> None:
        """Keep it, one row each; where that can't be done (a full disk, no permission), this is said."""
        if self._shelf is not None:
            with GoesOn(f"{self._said} is not kept, and will be made again next time"):
                self._shelf.append([self._only], arrays)

    def _looking(self) -> GoesOn:
        return GoesOn(f"{self._said} can't be looked for, and is made")


class GoesOn:
    """Turns an error of the store into a warning that begins with ``what``."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if not isinstance(error, TopgraftError) or isinstance(error, NotStored):
            return False
        warnings.warn(f"{self._what}: {error}", StoreWarning, stacklevel=3)
        return True
