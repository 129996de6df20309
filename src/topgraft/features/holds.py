"""Which shelves are in use: objects of this process know one another, other processes are known by locks.

Who uses a shelf shares a lock on its folder; who wants to drop the shelf must have that lock alone. It ends
with the process, however that ends. On disks without locks another process's use can't be seen: a shelf may
then be dropped under its reader, which finds its examples not stored and makes them again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_TRIES = 5
_HERE: weakref.WeakSet[Hold] = weakref.WeakSet()
_LOCK = threading.Lock()


class Hold:
    """Keeps a shelf from being dropped to make room, from :meth:`take` until this object is gone.

    Parameters
    ----------
    folder
        The shelf's folder; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._close: weakref.finalize[[int], Hold] | None = None
        self._taken: tuple[int, int] | None = None
        self._is_settled = False
        with _LOCK:
            _HERE.add(self)

    @property
    def is_taken(self) -> bool:
        """Whether the shelf counts as in use by this process."""
        return self._taken is not None

    def take(self) -> None:
        """Use the folder, if there is one; a folder that was deleted and made anew is taken anew."""
        try:
            seen = self.folder.stat()
        except OSError:
            self.release()
            return
        if self._is_settled and self._taken == (seen.st_dev, seen.st_ino):
            return
        self.release()
        self._taken = (seen.st_dev, seen.st_ino)
        try:
            descriptor = _lock(self.folder, alone=False)
        except BlockingIOError:  # it is being dropped: the next look finds what is left of it
            return
        self._is_settled = True
        if descriptor is not None:
            self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Use it no more."""
        self._taken, self._is_settled = None, False
        if self._close is not None:
            self._close()
            self._close = None


def is_used_here(folder: Path) -> bool:
    """Whether an object of this process uses a shelf."""
    return any(hold.is_taken for hold in _holds_of(folder))


def is_used(folder: Path) -> bool:
    """Whether this or another process uses a shelf, as far as locks tell."""
    with unused(folder) as nobody:
        return not nobody


@contextlib.contextmanager
def unused(folder: Path, *, but_here: bool = False) -> Iterator[bool]:
    """Tell whether nobody uses a shelf; in the block no other process begins to.

    Parameters
    ----------
    folder
        The shelf's folder.
    but_here
        Whether this process's own use doesn't count; its objects then have to take the shelf again.
    """
    if but_here:
        for hold in _holds_of(folder):
            hold.release()
    elif is_used_here(folder):
        yield False
        return
    try:
        descriptor = _lock(folder, alone=True)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _holds_of(folder: Path) -> list[Hold]:
    with _LOCK:
        return [hold for hold in _HERE if hold.folder == folder]


def _lock(folder: Path, *, alone: bool) -> int | None:
    """A descriptor with the lock; ``None`` where there are no locks.

    Raises
    ------
    BlockingIOError
        If somebody else has the lock, or the folder was deleted meanwhile.
    """
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    kind = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
    try:
        for _ in range(0 if alone else _TRIES):  # who only looks whether it is in use lets go at once
            if _is_free(descriptor, kind):
                break
            time.sleep(0.01)
        else:
            fcntl.flock(descriptor, kind)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise BlockingIOError from None
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_free(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    return True
