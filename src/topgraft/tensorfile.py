"""The safetensors format, written with the same bytes each time and read without trusting the header.

The ``safetensors`` package orders its metadata by chance and maps files into memory, so that the
same tensors give files of different content, and a file cut short under a running process kills it
(SIGBUS). Here the bytes depend on the content alone, and a short read is an error like any other.
Files are interchangeable with the package in both directions.

References
----------
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from topgraft.canonical import unique_names
from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from typing_extensions import Self

HEADER_LIMIT = 100_000_000
"""Bytes of the longest header, as in the ``safetensors`` package."""
SUMS = "topgraft.sha256"
"""The metadata entry that holds the checksums."""
_CHUNK = 1 << 20
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
}
ITEM_BYTES = {"BOOL": 1} | {
    name: int(bits) // 8 for name in _DTYPES for bits in re.findall(r"^B?[A-Z](\d+)", name)
}
"""Bytes of one number, by type; here, so that a header is read without torch."""


class DamagedFile(TopgraftError):
    """A file that is not what its writer wrote: truncated, changed, or something else altogether."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies in the file: bytes ``start`` to ``end`` from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def open_regular(path: Path, *, follow: bool = True) -> int:
    """A descriptor for reading ``path``; a pipe or device there neither blocks nor counts as a file.

    Parameters
    ----------
    path
        The file.
    follow
        Whether a symbolic link at the end of ``path`` is followed.

    Raises
    ------
    DamagedFile
        If there is something other than a regular file.
    OSError
        If it can't be opened.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    if not follow:
        if path.is_symlink():
            raise DamagedFile(path, "it is a symbolic link where a file was expected")
        flags |= getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFile(path, "it is not a regular file")
    return descriptor


def dtype_of(name: str) -> torch.dtype:
    """The torch type of a safetensors type name."""
    import torch

    dtype = getattr(torch, _DTYPES[name])
    assert isinstance(dtype, torch.dtype)
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """The safetensors name of a torch type.

    Raises
    ------
    TypeError
        For a type that the format doesn't have, such as complex numbers.
    """
    wanted = str(dtype).removeprefix("torch.")
    for name, torch_name in _DTYPES.items():
        if torch_name == wanted:
            return name
    raise TypeError(f"tensors of type {wanted} can't be stored; possible are {', '.join(_DTYPES.values())}")


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it, so that writing to them fills the tensor."""
    import torch

    flat = tensor.detach().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def pack(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, checksums: bool = True
) -> list[bytes | memoryview]:
    """The parts of a safetensors file: its header, then the bytes of each tensor.

    The same names, bits and metadata give the same bytes, whatever their order.

    Parameters
    ----------
    tensors
        Any strided tensors, on any device.
    metadata
        Texts by name; the name ``topgraft.sha256`` is taken.
    checksums
        Whether the metadata gets the sha256 of every tensor and of the metadata itself.

    Raises
    ------
    TypeError
        For a tensor type that the format doesn't have.
    ValueError
        If a name is taken or the header would be too long to be read again.
    """
    if SUMS in metadata or "__metadata__" in tensors:
        raise ValueError(f"the names {SUMS!r} of metadata and '__metadata__' of a tensor are taken")
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    dtypes = {name: dtype_name(tensor.dtype) for name, tensor in ready.items()}
    # widest type first, as the safetensors package does, so that mapped tensors are aligned
    order = sorted(ready, key=lambda name: (-ready[name].element_size(), name))
    entries: dict[str, Any] = {}
    sums: dict[str, str] = {}
    parts: list[bytes | memoryview] = []
    end = 0
    for name in order:
        start, part = end, bytes_of(ready[name])
        end += len(part)
        shape = tuple(ready[name].shape)
        entries[name] = {"dtype": dtypes[name], "shape": list(shape), "data_offsets": [start, end]}
        if checksums:
            sums[name] = _sum(name, dtypes[name], shape, [part])
        parts.append(part)
    texts = dict(metadata)
    if checksums:
        texts[SUMS] = json.dumps({"metadata": _metadata_sum(metadata), "tensors": sums}, sort_keys=True)
    if texts:
        entries["__metadata__"] = texts
    header = json.dumps(entries, sort_keys=True, separators=(",", ":")).encode("ascii")
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"the header would take {len(header):,} bytes, over the limit of {HEADER_LIMIT:,}")
    return [len(header).to_bytes(8, "little") + header, *parts]


class TensorFile:
    """A safetensors file opened for reading; nothing but its header is in memory.

    Opening checks the header against the file's size, before memory is taken for any tensor.

    Parameters
    ----------
    path
        The file.
    follow
        Whether a symbolic link at the end of ``path`` is followed.

    Raises
    ------
    DamagedFile
        If the header doesn't describe this file.
    OSError
        If it can't be opened.
    """

    def __init__(self, path: Path, *, follow: bool = True) -> None:
        self.path = path
        self._file = os.fdopen(open_regular(path, follow=follow), "rb", buffering=0)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def identity(self) -> tuple[int, ...]:
        """Numbers that change when the file is written to or replaced."""
        seen = os.fstat(self._file.fileno())
        return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)

    def verify(self, name: str) -> None:
        """Compare a tensor's bytes with its checksum, where the file has one.

        Raises
        ------
        DamagedFile
            If they differ.
        """
        if name in self.sums:
            entry = self.entries[name]
            self._compare(name, _sum(name, entry.dtype, entry.shape, self._chunks(entry)))

    def read(self, name: str) -> Tensor:
        """One tensor, bit for bit, compared with its checksum where the file has one."""
        import torch

        entry = self.entries[name]
        try:
            tensor = torch.empty(entry.shape, dtype=dtype_of(entry.dtype))
        except RuntimeError as error:
            if entry.end > entry.start:  # the file does hold so much: memory is what lacks
                raise
            raise DamagedFile(self.path, f"tensor {name!r} has the impossible shape {entry.shape}") from error
        part = bytes_of(tensor)
        self.read_into(name, 0, part)
        if name in self.sums:
            self._compare(name, _sum(name, entry.dtype, entry.shape, [part]))
        if entry.dtype == "BOOL" and len(part) and int(tensor.view(torch.uint8).max()) > 1:
            raise DamagedFile(self.path, f"tensor {name!r} holds truth values that are neither 0 nor 1")
        return tensor

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill ``out`` with the tensor's bytes from ``offset`` on (not compared with the checksum)."""
        entry = self.entries[name]
        if offset < 0 or entry.start + offset + len(out) > entry.end:
            raise IndexError(f"bytes {offset} to {offset + len(out)} of tensor {name!r}")
        self._fill(entry.start + offset, out)

    def _compare(self, name: str, found: str) -> None:
        if found != self.sums[name]:
            raise DamagedFile(self.path, f"the bytes of {name!r} do not match their checksum")

    def _fill(self, position: int, out: memoryview) -> None:
        self._file.seek(position)
        while len(out):
            count = self._file.readinto(out)
            if not count:
                raise DamagedFile(self.path, "it ends early")
            out = out[count:]

    def _chunks(self, entry: Entry) -> Iterable[memoryview]:
        buffer = memoryview(bytearray(min(_CHUNK, entry.end - entry.start)))
        for position in range(entry.start, entry.end, _CHUNK):
            part = buffer[: min(_CHUNK, entry.end - position)]
            self._fill(position, part)
            yield part

    def _read_header(self) -> None:
        start = bytearray(8)
        if self.size < 8:
            raise DamagedFile(self.path, f"it has {self.size} bytes, too few for a safetensors file")
        self._fill(0, memoryview(start))
        length = int.from_bytes(start, "little")
        if length > min(self.size - 8, HEADER_LIMIT):
            raise DamagedFile(
                self.path, f"its header would take {length:,} bytes, and the file has {self.size:,}"
            )
        text = bytearray(length)
        self._fill(8, memoryview(text))
        self.header_digest = hashlib.sha256(start + text).hexdigest()
        try:
            header = json.loads(text, object_pairs_hook=unique_names)
        except (ValueError, RecursionError) as error:
            raise DamagedFile(self.path, "its header is not JSON") from error
        if not isinstance(header, dict):
            raise DamagedFile(self.path, "its header is not a JSON object")
        self.metadata = self._texts(header.pop("__metadata__", {}))
        entries = [self._entry(name, value, 8 + length) for name, value in header.items()]
        entries.sort(key=lambda entry: (entry.start, entry.end))
        position = 8 + length
        for entry in entries:
            if entry.start != position:
                raise DamagedFile(
                    self.path, f"tensor {entry.name!r} does not begin where the one before it ends"
                )
            position = entry.end
        if position != self.size:
            raise DamagedFile(
                self.path, f"its header tells of {position:,} bytes, and the file has {self.size:,}"
            )
        self.entries = {entry.name: entry for entry in entries}
        self.sums = self._checksums()

    def _texts(self, value: object) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise DamagedFile(self.path, "its metadata is not texts by name")
        return dict(value)

    def _entry(self, name: str, value: object, base: int) -> Entry:
        match value:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end], **others} if (
                not others
            ):
                sizes = [*shape, start, end]
            case _:
                raise DamagedFile(self.path, f"its header describes tensor {name!r} in an unknown way")
        if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
            raise DamagedFile(self.path, f"tensor {name!r} has sizes that are no sizes")
        if dtype not in _DTYPES:
            raise DamagedFile(self.path, f"tensor {name!r} has the unknown type {dtype!r}")
        if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
            raise DamagedFile(
                self.path, f"tensor {name!r} has shape {tuple(shape)} but {end - start:,} bytes"
            )
        return Entry(name, dtype, tuple(shape), base + start, base + end)

    def _checksums(self) -> dict[str, str]:
        text = self.metadata.pop(SUMS, None)
        if text is None:
            return {}
        try:
            match json.loads(text):
                case {"metadata": str(of_metadata), "tensors": dict(sums)}:
                    pass
                case _:
                    raise ValueError("not checksums")
        except (ValueError, RecursionError) as error:
            raise DamagedFile(self.path, "its checksums can't be read") from error
        if sums.keys() != self.entries.keys() or of_metadata != _metadata_sum(self.metadata):
            raise DamagedFile(self.path, "its header does not match its checksums")
        return sums


def _sum(name: str, dtype: str, shape: tuple[int, ...], parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256(json.dumps([name, dtype, list(shape)]).encode("ascii") + b"\n")
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _metadata_sum(metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode("ascii")).hexdigest()
