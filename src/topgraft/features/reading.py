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


def decoded(preprocess: Preprocess, data: Data, rows: Sequence[int]) -> list[Any]:
    """Examples as the preprocessing wants them: large JPEGs at a part of their size."""
    return [data.decode(int(i), at_least=at_least(preprocess)) for i in rows]


def batch_of(preprocess: Preprocess, data: Data, rows: Sequence[int]) -> dict[str, Tensor]:
    """The network's inputs for some examples."""
    return preprocess.batch(decoded(preprocess, data, rows))
