"""One shard of the store: a safetensors file that proves what it holds.

The file's name is the sha256 of its header, and the header carries the digests of the examples, the
key of the shelf and the sha256 of every tensor. A shard from elsewhere, cut short or changed in any
bit is therefore noticed: the header when the shard is found, a tensor when it is first read.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from topgraft.tensorfile import DamagedFile, TensorFile, bytes_of, dtype_of, pack

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "1"
SUFFIX = ".safetensors"
_SETTLED = 2_000_000_000
"""Nanoseconds after which a disk gives a changed file another time stamp, whatever its clock's steps."""


@dataclass(frozen=True)
class Form:
    """What one array is for every example of a shelf.

    ``shape`` is without the first dimension, which is the example, or, of a ragged array, what differs
    from example to example.
    """

    dtype: str
    shape: tuple[int, ...]
    ragged: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * dtype_of(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{'ragged ' if self.ragged else ''}{self.dtype} {self.shape}"


def pack_shard(
    key: str, digests: Sequence[str], arrays: Mapping[str, Tensor | Sequence[Tensor]]
) -> list[bytes | memoryview]:
    """The parts of a shard's file; see :meth:`topgraft.features.store.Shelf.append`."""
    import torch

    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if isinstance(array, torch.Tensor):
            tensors[f"rows/{name}"] = array
        else:
            tensors[f"rows/{name}"] = torch.cat([part.detach().cpu() for part in array])
            tensors[f"lengths/{name}"] = torch.tensor([len(part) for part in array], dtype=torch.int64)
    return pack(tensors, {"version": VERSION, "shelf": key, "digests": json.dumps(list(digests))})


@dataclass
class Shard:
    """A shard whose header has been checked.

    Parameters
    ----------
    path
        The file.
    key
        The shelf that it must belong to.

    Raises
    ------
    DamagedFile
        If it is not what was written under this name, or belongs to another shelf.
    OSError
        If it can't be opened.
    """

    path: Path
    key: str
    digests: tuple[str, ...] = ()
    forms: dict[str, Form] = field(default_factory=dict)
    _identity: tuple[int, ...] = ()
    _verified: set[str] = field(default_factory=set)
    _starts: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with TensorFile(self.path, follow=False) as file:
            self._check_header(file)

    def read(self, name: str, rows: Sequence[int], places: Sequence[int], out: Tensor | list[Tensor]) -> None:
        """Copy the examples ``rows`` of array ``name`` to ``out[places]``.

        Parameters
        ----------
        name
            One of ``forms``.
        rows, places
            Numbers of examples in this shard, and where each goes.
        out
            A contiguous CPU tensor of the form's dtype and shape, or a list for a ragged array.

        Raises
        ------
        DamagedFile
            If the file is not what was written; ``out`` is then worthless.
        OSError
            If it can't be opened or read.
        """
        with TensorFile(self.path, follow=False) as file:
            identity = file.identity()
            if identity != self._identity:
                self._check_header(file)
            tensor_names = [f"rows/{name}"] + [f"lengths/{name}"] * self.forms[name].ragged
            for tensor_name in tensor_names:
                if tensor_name not in self._verified:
                    file.verify(tensor_name)
            if isinstance(out, list):
                self._read_ragged(file, name, rows, places, out)
            else:
                self._read_fixed(file, name, rows, places, out)
            if file.identity() != identity:
                raise DamagedFile(self.path, "it was written to while it was read")
        # a file that has just been written to could change again within one step of the disk's clock
        if abs(time.time_ns() - identity[-1]) > _SETTLED:
            self._verified.update(tensor_names)

    def _read_fixed(
        self, file: TensorFile, name: str, rows: Sequence[int], places: Sequence[int], out: Tensor
    ) -> None:
        size, into = self.forms[name].row_bytes, bytes_of(out)
        if not size:
            return
        # rows that follow each other in the file and in memory are read at one go
        together = itertools.groupby(
            enumerate(zip(rows, places, strict=True)), lambda x: (x[1][0] - x[0], x[1][1] - x[0])
        )
        for _, run in together:
            pairs = [pair for _, pair in run]
            (row, place), count = pairs[0], len(pairs)
            file.read_into(f"rows/{name}", row * size, into[place * size : (place + count) * size])

    def _read_ragged(
        self, file: TensorFile, name: str, rows: Sequence[int], places: Sequence[int], out: list[Tensor]
    ) -> None:
        import torch

        form = self.forms[name]
        starts = self._starts.get(name)
        if starts is None:
            lengths = file.read(f"lengths/{name}").tolist()
            starts = [0, *itertools.accumulate(lengths)]
            if min(lengths) < 0 or starts[-1] != file.entries[f"rows/{name}"].shape[0]:
                raise DamagedFile(self.path, f"the lengths of {name!r} do not add up to its rows")
            self._starts[name] = starts
        for row, place in zip(rows, places, strict=True):
            part = torch.empty((starts[row + 1] - starts[row], *form.shape), dtype=dtype_of(form.dtype))
            file.read_into(f"rows/{name}", starts[row] * form.row_bytes, bytes_of(part))
            out[place] = part

    def _check_header(self, file: TensorFile) -> None:
        self._verified.clear()
        self._starts.clear()
        if file.header_digest + SUFFIX != self.path.name:
            raise DamagedFile(self.path, "its header is not the one that it is named after")
        if file.metadata.get("version") != VERSION or file.metadata.get("shelf") != self.key:
            raise DamagedFile(self.path, "it belongs to another shelf")
        digests = None
        with contextlib.suppress(ValueError, RecursionError, KeyError):
            digests = json.loads(file.metadata["digests"])
        if (
            not isinstance(digests, list)
            or not digests
            or not all(isinstance(digest, str) for digest in digests)
        ):
            raise DamagedFile(self.path, "it does not say which examples it holds")
        forms: dict[str, Form] = {}
        for tensor_name, entry in file.entries.items():
            kind, _, name = tensor_name.partition("/")
            if kind == "lengths" and (entry.dtype != "I64" or entry.shape != (len(digests),)):
                raise DamagedFile(self.path, f"the lengths of {name!r} are not one an example")
            if kind == "rows":
                ragged = f"lengths/{name}" in file.entries
                if not entry.shape or not (ragged or entry.shape[0] == len(digests)):
                    raise DamagedFile(self.path, f"{name!r} has not one row an example")
                forms[name] = Form(entry.dtype, entry.shape[1:], ragged)
        if file.sums.keys() != file.entries.keys():
            raise DamagedFile(self.path, "it has no checksums")
        self.digests, self.forms, self._identity = (
            tuple(digests),
            dict(sorted(forms.items())),
            file.identity(),
        )
