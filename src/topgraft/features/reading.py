"""Examples decoded and preprocessed, the same way wherever a network reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from topgraft.backbones.described import Preprocess
from topgraft.data.types import Data


def at_least(preprocess: Preprocess) -> int | None:
    """Pixels that both sides of a decoded picture must keep, for preprocessing that says so."""
    found: int | None = getattr(preprocess, "at_least", None)
    return found


def decoded(preprocess: Preprocess, data: Data, rows: Sequence[int], *, view: int = 0) -> list[Any]:
    """Examples as the preprocessing wants them: large JPEGs at a part of their size.

    ``view`` is the number of a changed view of each picture, see :func:`topgraft.features.views.view_of`.
    """
    found: list[Any] = [data.decode(int(i), at_least=at_least(preprocess)) for i in rows]
    if view == 0:
        return found
    from topgraft.features.views import view_of

    return [view_of(picture, data.digests[int(i)], view) for picture, i in zip(found, rows, strict=True)]


def batch_of(preprocess: Preprocess, data: Data, rows: Sequence[int], *, view: int = 0) -> dict[str, Tensor]:
    """The network's inputs for some examples, or for a view of each."""
    return preprocess.batch(decoded(preprocess, data, rows, view=view))
