"""Inputs that are read when they are asked for: files inside a shard, and parts of what reads on demand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.data.example import ExampleError
from topgraft.data.parts import is_streamed, part, without_prefix

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a shard, which is read where it lies and never taken out of it.

    Parameters
    ----------
    shard
        Path of the shard, a tar file; or ``stream+`` and its address.
    name
        Of the member, for people; no path is ever made of it.
    start
        Byte of the shard where its content begins.
    size
        Bytes of its content.
    said
        How the user gave the shard, where that is not its path.
    content
        What it holds, where that is known already.

    Examples
    --------
    >>> import tempfile
    >>> file = tempfile.NamedTemporaryFile(suffix=".tar")
    >>> _ = file.write(b"before, a picture, after")
    >>> file.flush()
    >>> Member(file.name, "a.jpg", 8, 9).read()
    b'a picture'
    >>> str(Member("shard.tar", "a.jpg", 8, 9))
    'shard.tar:a.jpg'
    """

    shard: str
    name: str
    start: int
    size: int
    said: str = ""
    content: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The shard and the member."""
        return f"{self.said or self.shard}:{self.name}"

    def read(self, limit: int = 1 << 30) -> bytes:
        """Its content.

        Raises
        ------
        ExampleError
            If it is over ``limit`` bytes, or the shard is gone or can't be read any more.
        TopgraftError, RunningError
            If a shard at an address can't be read any more, which is no fault of the example.
        """
        if self.content is not None:
            return self.content
        if self.size > limit:
            raise ExampleError(str(self), f"{self.size:,} bytes, over the limit of {limit:,}")
        if is_streamed(self.shard):
            return part(without_prefix(self.shard), self.start, self.size)
        try:
            with open(self.shard, "rb", buffering=0) as file:  # noqa: PTH123 (a path as text is several times quicker)
                file.seek(self.start)
                content = file.read(self.size)
                while 0 < len(content) < self.size and (more := file.read(self.size - len(content))):
                    content += more
        except OSError as error:
            raise ExampleError(
                str(self), f"its shard can't be read any more ({error.strerror or error})"
            ) from None
        return content


def is_file(value: object) -> bool:
    """Whether an input is a file, by its path or inside a shard, which is read when it is needed."""
    return isinstance(value, (str, os.PathLike, Member))


class Picked(Sequence[Any]):
    """Some of a sequence that reads on demand, in an order of their own.

    Examples
    --------
    >>> picked = Picked(Picked("abcdef", [5, 3, 1]), [2, 0])
    >>> list(picked), picked.whole
    (['b', 'f'], 'abcdef')
    """

    def __init__(self, whole: Any, indices: Sequence[int] | NDArray[np.int64]) -> None:
        places = np.asarray(indices, dtype=np.int64)
        is_part = isinstance(whole, Picked)
        self.whole: Any = whole.whole if is_part else whole
        self.indices: NDArray[np.int64] = whole.indices[places] if is_part else places

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Picked(self.whole, self.indices[index])
        return self.whole[int(self.indices[index])]


class Joined(Sequence[Any]):
    """One sequence after another, read on demand.

    Examples
    --------
    >>> joined = Joined("ab", "cde")
    >>> len(joined), list(joined), joined[-1]
    (5, ['a', 'b', 'c', 'd', 'e'], 'e')
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: Any) -> Any:
        at = range(len(self))[index]
        if isinstance(at, range):
            return Picked(self, at)
        return self.first[at] if at < len(self.first) else self.second[at - len(self.first)]
