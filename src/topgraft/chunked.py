"""Features read again and again, a few MB of them in memory as float64 at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from topgraft.errors import TopgraftError

CHUNK = 4096
"""Rows that are turned into float64 at a time, at most."""

CHUNKED = 2**20
"""Numbers (rows x width) that are, about: 8 MiB."""


@dataclass(frozen=True)
class Rows:
    """Examples by features, read again and again in float64 chunks.

    Parameters
    ----------
    count
        Number of examples ``n``.
    width
        Number of features.
    chunks
        Gives the examples from the first to the last, ``(rows, width)`` float64 at a time. Each may be
        changed in place, and holds its numbers only until the next is asked for: so many blocks of
        some MB, taken and given back by several threads, would leave memory in pieces.
    """

    count: int
    width: int
    chunks: Callable[[], Iterator[Tensor]]

    @classmethod
    def of(cls, x: Tensor | Callable[[], Iterable[Tensor]], count: int, index: Tensor | None = None) -> Rows:
        """Rows of a ``(n, width)`` tensor (or of its rows ``index``), or of a function that gives chunks."""
        if not isinstance(x, Tensor):
            source = x
            first = next(iter(source()), None)
            if first is None or first.dim() != 2:
                raise TopgraftError("The function that gives features gave no (rows, width) chunk.")
            return cls(count, int(first.shape[1]), lambda: (c.to(torch.float64, copy=True) for c in source()))
        tensor, length, width = x, len(x) if index is None else len(index), int(x.shape[1])
        most = min(rows_at_once(width), max(1, length))

        def chunks() -> Iterator[Tensor]:
            room = torch.empty(most, width, dtype=torch.float64)
            chosen = None if index is None else torch.empty(most, width, dtype=tensor.dtype)
            for start in range(0, length, most):
                stop = min(start + most, length)
                if index is None or chosen is None:
                    some = tensor[start:stop]
                else:
                    some = torch.index_select(tensor, 0, index[start:stop], out=chosen[: stop - start])
                yield room[: stop - start].copy_(some)

        return cls(length, width, chunks)

    def whole(self) -> Tensor:
        """All of them, ``(count, width)`` float64."""
        found, start = torch.empty(self.count, self.width, dtype=torch.float64), 0
        for chunk in self.chunks():
            found[start : start + len(chunk)] = chunk
            start += len(chunk)
        return found

    def some(self, index: Tensor | None = None) -> Iterator[Tensor]:
        """The rows ``index`` (ascending) of each chunk, or all of them."""
        start = 0
        for chunk in self.chunks():
            if index is None:
                yield chunk
            else:
                yield chunk[index[(index >= start) & (index < start + len(chunk))] - start]
            start += len(chunk)


def rows_at_once(width: int) -> int:
    """How many rows of so many numbers are in memory as float64 at a time.

    Examples
    --------
    >>> rows_at_once(100), rows_at_once(2048)
    (4096, 512)
    """
    return max(1, min(CHUNK, CHUNKED // max(1, width)))
