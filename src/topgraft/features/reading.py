"""Examples decoded and preprocessed, the same way wherever a network reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from topgraft.backbones.described import Preprocess
from topgraft.data.lazily import Member
from topgraft.data.parts import is_streamed
from topgraft.data.types import Data
from topgraft.workers import Item


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


@dataclass(frozen=True)
class Batch(Item):
    """The examples of a batch by themselves, as they are sent to another process.

    Parameters
    ----------
    data
        Just what decoding reads: no targets, no groups. Files are named by absolute paths.

    Examples
    --------
    >>> from topgraft.data import read
    >>> batch = Batch.of(read((["one text", "another", "a third"], ["a", "b", "a"])), [2, 0])
    >>> [batch.data.decode(i) for i in range(2)]
    ['a third', 'one text']
    """

    data: Data

    @classmethod
    def of(cls, data: Data, rows: Sequence[int]) -> Batch:
        """Those at ``rows``, in this order."""
        inputs = [data.inputs[int(i)] for i in rows]
        return cls(
            Data(
                modality=data.modality,
                origin=data.origin,
                names=tuple(data.names[i] for i in rows),
                inputs=[_absolute(value) for value in inputs]
                if data.modality in ("picture", "sound")
                else inputs,
                classes=(),
                targets=None,
                groups=np.zeros(0, dtype=np.int64),
                digests=tuple(data.digests[i] for i in rows),
                max_pixels=data.max_pixels,
            )
        )

    def __str__(self) -> str:
        """Which examples, in few words."""
        names, more = self.data.names[:3], len(self.data) - 3
        return f"{', '.join(names)}{f' and {more} more' if more > 0 else ''}"

    def lacks(self) -> tuple[str, ...]:
        """Files of pictures and sounds that this process can't find."""
        return tuple(path for path in (*self.paths(), *self.shards()) if not os.path.exists(path))

    def filled(self) -> Batch:
        """With the content of the files, which must be what it was when they were read.

        Raises
        ------
        ExampleError
            As :meth:`topgraft.data.types.Data.decode`.
        """
        from topgraft.data.pictures import unchanged

        paths = set(self.paths())
        inputs = [
            unchanged(value, digest)
            if isinstance(value, Member) or (isinstance(value, str) and value in paths)
            else value
            for value, digest in zip(self.data.inputs, self.data.digests, strict=True)
        ]
        return Batch(replace(self.data, inputs=inputs))

    def paths(self) -> list[str]:
        """Files of pictures and sounds, as they are named."""
        if self.data.modality not in ("picture", "sound"):
            return []
        return [value for value in self.data.inputs if isinstance(value, str)]

    def shards(self) -> list[str]:
        """Shards of pictures and sounds on disks, each once."""
        found = {value.shard for value in self.data.inputs if isinstance(value, Member)}
        return sorted(shard for shard in found if not is_streamed(shard))


def _absolute(value: Any) -> Any:
    """A file by its absolute path, also inside a shard; anything else as it is."""
    if isinstance(value, Member):
        if is_streamed(value.shard):
            return value
        return replace(value, shard=str(Path(value.shard).absolute()), said=value.said or value.shard)
    return str(Path(value).absolute()) if isinstance(value, (str, os.PathLike)) else value
