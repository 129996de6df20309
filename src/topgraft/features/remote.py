"""The store's shards at an address that several machines share, beside the store on this machine's disk.

A shard is sent when it is whole on the disk here, and fetched when its examples are asked for and are not
here. There is no index there either: an object is named after the header of its shard, which says the shelf,
the examples and the sha256 of every tensor. So what was damaged, cut short, half sent or put there by
somebody else is noticed before it counts, whatever order the file system there shows things in.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from topgraft.errors import TopgraftError
from topgraft.features.shards import Shard
from topgraft.features.stored import FOLDER, SHARD
from topgraft.tensorfile import DamagedFile, TensorFile

VARIABLE = "TOPGRAFT_CACHE_REMOTE"
HEAD = 1 << 16
"""Bytes that are read of a shard at first: the header of most."""
LONGEST = 1 << 24
"""Bytes of the longest header that is read: it names a quarter of a million examples."""
PIECE = 1 << 23
"""Bytes that are held of a shard while it comes."""
AT_ONCE = 8
"""Headers that are asked for at the same time."""
_HERE = ("file", "local", "http", "https", "data")


class Remote:
    """A store at an address, for whatever fsspec can write to.

    Parameters
    ----------
    address
        Such as ``s3://bucket/topgraft``. Credentials are found by fsspec where it always looks for them.

    Raises
    ------
    TopgraftError
        If it is no such address, or the package that reads it is missing.

    Examples
    --------
    >>> Remote("photos/store")
    Traceback (most recent call last):
    ...
    topgraft.errors.TopgraftError: TOPGRAFT_CACHE_REMOTE: 'photos/store' is no address that can be written to.
    Give one such as s3://bucket/topgraft. For a folder of this machine set TOPGRAFT_CACHE.
    """

    def __init__(self, address: str) -> None:
        from topgraft.data.addresses import is_address, opened, shown

        said = shown(address) if is_address(address) else address
        if not is_address(address) or "::" in address or address.partition("://")[0].lower() in _HERE:
            raise TopgraftError(
                f"{VARIABLE}: {said!r} is no address that can be written to.\nGive one such as "
                "s3://bucket/topgraft. For a folder of this machine set TOPGRAFT_CACHE."
            )
        self.address = address.rstrip("/")
        self.said = said
        self.files = opened(address)
        self.root = str(self.files._strip_protocol(self.address)).rstrip("/")
        self.is_closed = False
        """Whether nothing more is sent by this process, since sending failed."""
        self._moved = [0, 0, 0, 0]
        self._shelves: dict[str, RemoteShelf] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return type(self), (self.address,)

    @classmethod
    def of_environment(cls) -> Remote | None:
        """The one in ``$TOPGRAFT_CACHE_REMOTE``; ``None`` where it is not set or empty."""
        text = os.environ.get(VARIABLE, "").strip()
        return cls(text) if text else None

    def shelf(self, key: str) -> RemoteShelf:
        """The shards of the shelf with this key; the same object each time, so that headers are read once."""
        with self._lock:
            return self._shelves.setdefault(key, RemoteShelf(self, key))

    def count(self, *, fetched: int = 0, sent: int = 0) -> None:
        """Note that a shard of so many bytes came or went."""
        with self._lock:
            for at, size in ((0, fetched), (2, sent)):
                self._moved[at] += bool(size)
                self._moved[at + 1] += size

    def told(self) -> list[str]:
        """What came from there and what went there since this was last asked, in a sentence, if anything."""
        from topgraft.console import counted, size

        with self._lock:
            came, came_bytes, went, went_bytes = self._moved
            self._moved = [0, 0, 0, 0]
        parts = [f"{counted(came, 'shard')} ({size(came_bytes)}) fetched"] * bool(came)
        parts += [f"{counted(went, 'shard')} ({size(went_bytes)}) sent"] * bool(went)
        return [f"{self.said}: {', '.join(parts)}"] if parts else []


class RemoteShelf:
    """One shelf of a store at an address.

    Parameters
    ----------
    remote
        The store.
    key
        The shelf's.
    """

    def __init__(self, remote: Remote, key: str) -> None:
        self.remote, self.key = remote, key
        self.said = f"{remote.said}/{FOLDER}/{key}"
        self._root = f"{remote.root}/{FOLDER}/{key}"
        self._sizes: dict[str, int] | None = None
        self._digests: dict[str, tuple[str, ...]] = {}
        self._useless: set[str] = set()
        self._tried: set[str] = set()
        self.notes: list[str] = []
        """What was found wrong since they were last taken, in sentences."""

    def __reduce__(self) -> tuple[type[RemoteShelf], tuple[Remote, str]]:
        return type(self), (self.remote, self.key)

    def look(self) -> None:
        """See which shards are there, and read the headers of those that are new.

        Raises
        ------
        TopgraftError
            If they may not be read, or there is no such bucket.
        RunningError
            If the connection fails.
        """
        from topgraft.data.addresses import failing

        files, found = self.remote.files, {}
        with failing(self.remote.address), contextlib.suppress(_NothingYet):
            files.invalidate_cache()
            listed = _listed(files, self._root, self.remote.said)
            found = {name: size for name, size in listed if name not in self._useless}
        self._sizes = found
        self._tried.clear()
        self._digests = {name: known for name, known in self._digests.items() if name in found}
        new = sorted(found.keys() - self._digests.keys())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name, digests in zip(new, pool.map(self._header, new), strict=True):
                if isinstance(digests, str):
                    self._leave_out(name, digests)
                else:
                    self._digests[name] = digests

    def known(self) -> frozenset[str]:
        """Digests of the examples that are there just now, by the headers of the shards.

        Raises
        ------
        TopgraftError, RunningError
            As :meth:`look`.
        """
        self.look()
        return frozenset(digest for digests in self._digests.values() for digest in digests)

    def holding(self, digests: Sequence[str]) -> dict[str, int]:
        """Shards that hold some of these examples, with their bytes; none that came since the last look."""
        if self._sizes is None:
            self.look()
        assert self._sizes is not None
        open_digests, chosen = set(digests), {}
        for name, held in self._digests.items():
            if name not in self._tried and not open_digests.isdisjoint(held):
                open_digests.difference_update(held)
                chosen[name] = self._sizes[name]
        return chosen

    def fetch(self, name: str, path: Path, write: Callable[[str, Iterable[bytes]], None]) -> None:
        """Bring one shard to this disk; what is wrong with it is noted instead.

        Parameters
        ----------
        name
            Of the shard.
        path
            Where it will be.
        write
            Has it appear there whole, its name and its bytes given.

        Raises
        ------
        RunningError
            If the connection fails, or the disk here is full.
        TopgraftError
            If it may not be read there or written here.
        """
        assert self._sizes is not None
        size = self._sizes[name]
        self._tried.add(name)
        try:
            write(name, _Coming(self, name, size))
            must_be_whole(path)
        except _Broken as broken:
            if not isinstance(broken.error, _Gone):
                raise broken.error from broken
            del self._sizes[name], self._digests[name]
            self.notes.append(f"{self.said}/{name} was deleted; its examples will be made again.")
        except DamagedFile as error:
            path.unlink(missing_ok=True)
            self._leave_out(name, error.reason)
        else:
            self.remote.count(fetched=size)

    def send(self, folder: Path, names: Iterable[str]) -> None:
        """Send those shards of a folder that are not there, or not whole.

        Where one can't be sent, this is noted, and no other is sent by this process: all of them are here,
        and the next process that uses the shelf sends them.

        Raises
        ------
        TopgraftError, RunningError
            As :meth:`look`, where nobody has looked yet.
        """
        from topgraft.data.addresses import failing

        if self.remote.is_closed:
            return
        if self._sizes is None:
            self.look()
        assert self._sizes is not None
        for name in sorted(set(names) - self._sizes.keys()):
            path = folder / name
            try:
                size = must_be_whole(path)
            except (DamagedFile, OSError):
                continue  # whoever reads it here will notice, and say so
            try:
                with failing(self.remote.address, "be written", "write"):
                    self.remote.files.put_file(str(path), f"{self._root}/{name}")
            except TopgraftError as error:
                self.remote.is_closed = True
                self.notes.append(
                    f"{error}\nWhat was made is stored here, and the next command that uses it sends it."
                )
                return
            self._sizes[name] = size
            self._useless.discard(name)
            self.remote.count(sent=size)

    def taken_notes(self) -> list[str]:
        """The notes, each given once."""
        notes, self.notes = self.notes, []
        return notes

    def _leave_out(self, name: str, reason: str) -> None:
        """A shard of no use is neither fetched again nor deleted; a good one replaces it."""
        assert self._sizes is not None
        self._sizes.pop(name, None)
        self._digests.pop(name, None)
        self._useless.add(name)
        self.notes.append(
            f"{self.said}/{name} is damaged ({reason}); it was left out, and its examples are made again "
            "where they are not stored elsewhere. It may be deleted there."
        )

    def _header(self, name: str) -> tuple[str, ...] | str:
        """Which examples a shard holds, by its header; what is wrong with it as a text."""
        assert self._sizes is not None
        size = self._sizes[name]
        with self.reading(name) as place:
            try:
                start = self.remote.files.cat_file(place, start=0, end=min(HEAD, size)) if size >= 8 else b""
                length = 8 + int.from_bytes(start[:8], "little")
                if not start or length > min(size, LONGEST):
                    return "it ends early, or is no shard"
                if length > len(start):
                    start += self.remote.files.cat_file(place, start=len(start), end=length)
            except FileNotFoundError:  # deleted just now
                return ()
        with TemporaryDirectory() as folder:
            path = Path(folder, name)
            try:
                path.write_bytes(start[:length])
                os.truncate(path, size)  # no bytes after the header are needed, only how many there are
                return Shard(path, self.key).digests
            except DamagedFile as error:
                return error.reason
            except OSError as error:
                return error.strerror or str(error)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[str]:
        """The place of a shard; in the block failures are told by its address."""
        from topgraft.data.addresses import failing

        with failing(f"{self.remote.address}/{FOLDER}/{self.key}/{name}"):
            yield f"{self._root}/{name}"


class _Coming:
    """The bytes of a shard at an address, as many as it had when it was listed, from the start each time."""

    def __init__(self, shelf: RemoteShelf, name: str, size: int) -> None:
        self.shelf, self.name, self.size = shelf, name, size

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self.shelf.reading(self.name) as place:
                yield from self._pieces(place)
        except TopgraftError as error:
            raise _Broken(error) from error

    def _pieces(self, place: str) -> Iterator[bytes]:
        left = self.size
        try:
            with self.shelf.remote.files.open(place, "rb", cache_type="none") as file:
                while left and (piece := file.read(min(PIECE, left))):
                    left -= len(piece)
                    yield piece
        except FileNotFoundError as error:
            raise _Gone from error


class _Gone(TopgraftError):
    """A shard was deleted at its address after it was listed."""


class _Broken(Exception):
    """What failed at the other end, so that it is not taken for a failure of this disk."""

    def __init__(self, error: TopgraftError) -> None:
        super().__init__(str(error))
        self.error = error


class _NothingYet(TopgraftError):
    """Nothing of a shelf was sent yet."""


def _listed(files: Any, root: str, said: str) -> Iterator[tuple[str, int]]:
    """Name and bytes of each shard in a folder there; names that are none of ours are left out."""
    try:
        entries = files.ls(root, detail=True)
    except FileNotFoundError as error:
        bucket = root.partition("/")[0]  # none where paths begin at a root
        if bucket and not files.exists(bucket):
            raise TopgraftError(
                f"{said} can't be used: {error}. Make it first, or mend {VARIABLE}."
            ) from error
        raise _NothingYet from None
    for entry in entries:
        folder, _, name = str(entry.get("name", "")).rpartition("/")
        size = entry.get("size")
        if entry.get("type") == "file" and folder == root and SHARD.fullmatch(name) and isinstance(size, int):
            yield name, size


def must_be_whole(path: Path) -> int:
    """Compare all of a shard with its checksums; gives its bytes.

    Raises
    ------
    DamagedFile
        If one does not hold.
    OSError
        If it can't be read.
    """
    with TensorFile(path, follow=False) as file:
        for name in file.entries:
            file.verify(name)
        return file.size
