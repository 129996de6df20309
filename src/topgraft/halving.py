"""Batches that memory is too little for are run in halves, and that is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from topgraft.errors import RunningError, TopgraftWarning, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def part_of(inputs: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """A part of a batch: neighbouring rows of every tensor."""
    return {name: tensor[rows[0] : rows[-1] + 1] for name, tensor in inputs.items()}


class MemoryWarning(TopgraftWarning):
    """Batches are smaller than they were meant to be."""


class Halving:
    """Runs batches whole; once one of them was too large for memory, all in parts of half its size.

    Other parts of a batch may give other last digits: how a kernel adds up depends on the number of examples.
    May be called by several threads.

    Examples
    --------
    >>> Halving().run([1, 2, 3], lambda some: [n * n for n in some], lambda parts: sum(parts, []))
    [1, 4, 9]
    """

    def __init__(self) -> None:
        self.most: int | None = None
        """Examples at once, after memory was too little for more."""

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], Result],
        joined: Callable[[list[Result]], Result],
    ) -> Result:
        """What ``work`` gives for the items, of one part or of several, joined.

        Raises
        ------
        RunningError
            If memory is too little for one item.
        """
        while True:
            size = min(self.most or len(items), len(items))
            parts = [items[start : start + size] for start in range(0, len(items), max(1, size))]
            try:
                results = [work(part) for part in parts]
                return results[0] if len(results) == 1 else joined(results)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size <= 1:
                    raise RunningError(f"There is not enough memory for one example: {error}") from error
            self._halve(size)  # after the error is gone, and with it what its frames held

    def _halve(self, size: int) -> None:
        smaller = size // 2
        if self.most is None or self.most > smaller:
            self.most = smaller
            warnings.warn(
                f"There was not enough memory for {size} examples at once: from now on {smaller}.",
                MemoryWarning,
                stacklevel=4,
            )
