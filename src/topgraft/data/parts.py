"""Parts of large files at an address, read where they lie: a few blocks are held, and nothing on disk."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from topgraft.data.addresses import failing, is_address, opened, shown
from topgraft.data.notes import printable
from topgraft.errors import RunningError, TopgraftError

PREFIX = "stream+"
"""Before an address: read it by parts, do not fetch it."""
BLOCK = 2 << 20
"""Bytes that are asked for at once where one part is read after another (2 MiB)."""
HELD = 32
"""Blocks that a process holds (64 MiB)."""
AHEAD = 2
"""Blocks that are asked for before they are needed."""
WAITS = (0.5, 2.0, 8.0)
"""Seconds before a part that did not come is asked for again."""

_NO_PARTS = f"{{}}: its server gives no parts of files. Leave out {PREFIX}, and it is fetched whole."


def is_streamed(given: str) -> bool:
    """Whether a path or an address asks to be read by parts.

    Examples
    --------
    >>> is_streamed("stream+s3://bucket/a.tar"), is_streamed("s3://bucket/a.tar"), is_streamed("stream.tar")
    (True, False, False)
    """
    return given.startswith(PREFIX)


def without_prefix(given: str) -> str:
    """The address that is to be read by parts.

    Raises
    ------
    TopgraftError
        If what stands behind the prefix is no address elsewhere.

    Examples
    --------
    >>> without_prefix("stream+s3://bucket/a.tar")
    's3://bucket/a.tar'
    >>> without_prefix("stream+photos.tar")
    Traceback (most recent call last):
    ...
    topgraft.errors.TopgraftError: stream+photos.tar: stream+ stands before an address, as in stream+s3://a/b.tar.
    Shards on this machine are read where they lie anyway: give photos.tar
    """
    address = given.removeprefix(PREFIX)
    if "::" in address:
        raise TopgraftError(
            f"{shown(given)}: addresses inside archives are not read. Unpack the archive first."
        )
    scheme = address.partition("://")[0].lower()
    if not is_address(address) or scheme in ("file", "local"):
        rest = address[len(scheme) + 3 :] if is_address(address) else address
        raise TopgraftError(
            f"{printable(given)}: {PREFIX} stands before an address, as in {PREFIX}s3://a/b.tar.\n"
            f"Shards on this machine are read where they lie anyway: give {printable(rest)}"
        )
    return address


def part(address: str, start: int, size: int) -> bytes:
    """Some bytes of a file at an address.

    Where parts are read in their order, whole blocks come, the next ones before they are needed, and some are
    held, so that a file is moved about once; any other part comes alone.

    Parameters
    ----------
    address
        As fsspec takes it.
    start, size
        First byte and number of bytes.

    Raises
    ------
    TopgraftError
        If there is nothing at the address, it may not be read, or its server gives no parts of files.
    RunningError
        If the connection fails four times in 10 seconds, or the file became shorter.
    """
    return _held(os.getpid()).part(address, start, size) if size else b""


def length(address: str) -> int:
    """Bytes of a file at an address.

    Raises
    ------
    TopgraftError
        If there is nothing, it may not be read, or it has no known length.
    RunningError
        If the connection fails.
    """
    return _place(address, os.getpid())[2]


def open_parts(address: str) -> io.BufferedReader:
    """A file at an address to read and seek in, by parts."""
    return io.BufferedReader(_File(address, length(address)))


def forget() -> None:
    """Let go of blocks and lengths, since files may have changed; what is being read goes on."""
    _place.cache_clear()
    _held.cache_clear()


@lru_cache(maxsize=1)
def _held(_process: int) -> _Blocks:  # connections and threads do not outlive a fork
    return _Blocks()


@lru_cache(maxsize=100_000)
def _place(address: str, _process: int) -> tuple[Any, str, int]:
    """File system, path in it, and bytes."""
    files = opened(address)
    with failing(address, done="be read"):
        place = files._strip_protocol(address)
        info = files.info(place)
    size = info.get("size")
    if info.get("type") == "directory" or not isinstance(size, int):
        raise TopgraftError(
            f"{shown(address)} has no length, so it can't be read by parts: leave out {PREFIX}"
        )
    if address.lower().startswith("http") and size > 1:
        _refuse_whole(files, place, size, address)
    return files, place, size


def _refuse_whole(files: Any, place: str, size: int, address: str) -> None:
    """Servers of HTTP may answer with the whole where a part is asked for; here before it all comes."""
    with (
        failing(address, done="be read"),
        files.open(place, block_size=BLOCK, cache_type="none", size=size) as file,
    ):
        file.seek(1)
        try:
            file.read(1)
        except ValueError:
            raise TopgraftError(_NO_PARTS.format(shown(address))) from None


def _asked(address: str, start: int, size: int) -> bytes:
    files, place, whole = _place(address, os.getpid())
    for wait in (*WAITS, None):
        try:
            with failing(address, done="be read"):
                content = bytes(files.cat_file(place, start=start, end=start + size))
            break
        except RunningError:
            if wait is None:
                raise
            time.sleep(wait)
    if len(content) > size:
        raise TopgraftError(_NO_PARTS.format(shown(address)))
    if len(content) < size:
        raise RunningError(
            f"{shown(address)} had {whole:,} bytes and is shorter now. Wait until it is written, and give "
            "the command again."
        )
    return content


class _Blocks:
    """Blocks of one process, the last ones used."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self.ends: dict[str, int] = {}
        self.pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="topgraft-parts")

    def part(self, address: str, start: int, size: int) -> bytes:
        with self.lock:
            last = self.ends.get(address)
            self.ends[address] = start + size
        if size > BLOCK or last is None or abs(start - last) > BLOCK:
            return _asked(address, start, size)
        first, final = start // BLOCK, (start + size - 1) // BLOCK
        content = b"".join(self.block(address, number) for number in range(first, final + 1))
        count = -(-_place(address, os.getpid())[2] // BLOCK)
        for number in range(final + 1, min(final + 1 + AHEAD, count)):
            self.begin(address, number)
        return content[start - first * BLOCK :][:size]

    def claim(self, address: str, number: int) -> tuple[Future[bytes], bool]:
        """A block that comes or is there, and whether the caller is to get it."""
        key = (address, number)
        with self.lock:
            known = self.blocks.get(key)
            if known is not None:
                self.blocks.move_to_end(key)
                return known, False
            mine: Future[bytes] = Future()
            self.blocks[key] = mine
            while len(self.blocks) > HELD:
                self.blocks.popitem(last=False)
            return mine, True

    def get(self, address: str, number: int, to: Future[bytes]) -> None:
        start = number * BLOCK
        try:
            size = min(BLOCK, _place(address, os.getpid())[2] - start)
            to.set_result(_asked(address, start, size))
        except BaseException as error:  # noqa: BLE001 (others wait for this block, whatever ends it)
            with self.lock:
                self.blocks.pop((address, number), None)  # the next who needs it asks again
            to.set_exception(error)

    def block(self, address: str, number: int) -> bytes:
        block, is_mine = self.claim(address, number)
        if is_mine:
            self.get(address, number, block)
        return block.result()

    def begin(self, address: str, number: int) -> None:
        block, is_mine = self.claim(address, number)
        if is_mine:
            self.pool.submit(self.get, address, number, block)


class _File(io.RawIOBase):
    """What :func:`open_parts` gives."""

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        self.address, self.size, self.at = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        size = max(0, min(len(view), self.size - self.at))
        view[:size] = part(self.address, self.at, size)
        self.at += size
        return size
