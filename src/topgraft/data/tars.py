"""What lies where in a tar file, by its headers alone: nothing is taken out, and no header is believed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, NamedTuple, Protocol

from topgraft.data.notes import printable
from topgraft.errors import TopgraftError

MAX_HEADER = 1 << 20
"""Bytes of the longest name or other note in a header (1 MiB); a longer one is no name."""


class Opens(Protocol):
    """A path, or what stands for one elsewhere."""

    def open(self, mode: str, /) -> AbstractContextManager[IO[bytes]]:
        """The file, to read and seek in."""
        ...


class Entry(NamedTuple):
    """A member of a tar file.

    Parameters
    ----------
    name
        As it stands in the header, printable.
    start, size
        Where its content lies, in bytes.
    problem
        Why it can't be read as a file, in few words; empty where it can.
    """

    name: str
    start: int
    size: int
    problem: str


def is_tar_name(name: str) -> bool:
    """Whether the ending of a file name is that of a shard.

    Examples
    --------
    >>> is_tar_name("a-000.tar"), is_tar_name("a.TAR"), is_tar_name("a.tar.gz")
    (True, True, False)
    """
    return name.lower().endswith(".tar")


def entries_of(path: Opens, origin: str, notes: list[str]) -> Iterator[Entry]:
    """Files, links and devices in a tar file, in its order; folders are passed by.

    Parameters
    ----------
    path
        Of the tar file.
    origin
        How the user gave it, for messages.
    notes
        Is told when the file does not say where it ends.

    Raises
    ------
    TopgraftError
        If it is no tar file, compressed, cut short, damaged or may not be read.
    """
    try:
        with path.open("rb") as file:
            _refuse_compressed(file.read(6), origin)
            yield from _entries(_Bounded(file), file.seek(0, io.SEEK_END), origin, notes)
    except PermissionError:
        raise TopgraftError(f"{origin}: no permission to read this file.") from None
    except OSError as error:
        raise TopgraftError(f"{origin}: can't be read ({error.strerror or error}).") from None


def _entries(file: _Bounded, size: int, origin: str, notes: list[str]) -> Iterator[Entry]:
    if size == 0:
        raise TopgraftError(f"{origin} is an empty file. Expected a tar file.")
    if size < tarfile.BLOCKSIZE:
        raise TopgraftError(f"{origin} is no tar file that can be read: it has {size} bytes.")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
            before = -1
            while (one := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep the header of each
                if one.size < 0 or one.offset_data < 0 or archive.offset <= before:
                    raise tarfile.ReadError("a member of negative size")
                before = archive.offset
                if not one.isdir():
                    yield Entry(printable(one.name), one.offset_data, one.size, _problem(one))
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        said = " ".join(str(error).split())[:120]
        if "unexpected end" in said or "truncated" in said:
            raise TopgraftError(
                f"{origin} is cut short: it has {size:,} bytes, and its headers speak of more. Get it again."
            ) from None
        raise TopgraftError(f"{origin} is no tar file that can be read: {said}.") from None
    file.seek(end)
    mark = file.read(tarfile.BLOCKSIZE)
    if any(mark):  # the library stops at a header that is none, as if the file ended there
        raise TopgraftError(f"{origin} is damaged from byte {end:,} on: there is no header of a member.")
    if len(mark) < tarfile.BLOCKSIZE:
        notes.append(f"{origin} ends without the mark of an end; it may be cut short after a member.")


def _problem(one: tarfile.TarInfo) -> str:
    if one.issym() or one.islnk():
        return "a link, not a file"
    if not one.isreg():
        return "a device, pipe or socket, not a file"
    return "a file with holes (sparse), which is not read" if one.issparse() else ""


def _refuse_compressed(head: bytes, origin: str) -> None:
    known = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    for mark, how in known.items():
        if head.startswith(mark):
            raise TopgraftError(
                f"{origin} is compressed by {how}. Unpack it to a .tar: examples are read in place."
            )


class _Bounded(io.BufferedIOBase):
    """A file of which no header reads more than :data:`MAX_HEADER` bytes at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if not 0 <= offset < 1 << 62:
            raise tarfile.ReadError(f"a member at byte {offset:,}")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
