"""Large arrays in a file without a name, so that memory does not grow with the number of examples."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from topgraft.errors import TopgraftWarning

HELD = 16 * 2**20
"""Bytes of the largest array that is held in memory."""


class RoomWarning(TopgraftWarning):
    """Memory is taken, since there is no room on the disk."""


def room(shape: tuple[int, ...], dtype: DTypeLike, folder: Path | None = None) -> NDArray[Any]:
    """An array to be filled.

    One of more than :data:`HELD` bytes lies in a file that has no name: the system writes it out and takes
    its memory back as it needs to, and nothing is left behind, however the process ends. Its room is reserved
    at once, so that a full disk is noticed here and not by a crash later.

    Parameters
    ----------
    shape, dtype
        Of the array; its numbers are any.
    folder
        On the disk that is to hold it; by default that of temporary files which may be large.

    Returns
    -------
    ndarray
        In memory, which a :class:`RoomWarning` says, where the disk has no room for it, and on systems that
        can't reserve any.

    Examples
    --------
    >>> small, large = room((3, 2), np.float32), room((2**23,), np.float32)
    >>> large[:] = 1
    >>> small.shape, float(large.sum())
    ((3, 2), 8388608.0)
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size <= HELD or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, kind)
    place = folder if folder is not None and folder.is_dir() else _for_large_files()
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            held = mmap.mmap(file.fileno(), size)
    except OSError as error:
        warnings.warn(
            f"{place} has no room for {size / 1e6:,.0f} MB ({error.strerror or error}): they are held in "
            "memory.",
            RoomWarning,
            stacklevel=2,
        )
        return np.empty(shape, kind)
    return np.frombuffer(held, kind).reshape(shape)


def give_back() -> None:
    """Give what was freed back to the system, where its C library can (glibc: ``malloc_trim``).

    What several threads took and freed in pieces, such as decoded pictures and activations, else stays with
    the process, and the next stage takes its memory on top of it.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no such function, or no C library to ask
        ctypes.CDLL(None).malloc_trim(0)


def _for_large_files() -> Path:
    """TMPDIR where it is set; else ``/var/tmp``, which is a disk where ``/tmp`` may be memory."""
    usual = Path("/var/tmp")  # noqa: S108 (a file without a name, made by tempfile)
    if "TMPDIR" not in os.environ and os.access(usual, os.W_OK):
        return usual
    return Path(tempfile.gettempdir())
