"""Small files read whole, and only files: a pipe or a device in their place does not block."""

from __future__ import annotations

import os
from pathlib import Path

from topgraft.tensorfile import DamagedFile, open_regular

LARGEST = 1 << 28
"""Bytes of the largest one that is read (256 MiB)."""


def read_regular(path: Path) -> bytes:
    """The content of a file of at most :data:`LARGEST` bytes.

    Raises
    ------
    DamagedFile
        If there is something other than a file, or it is larger.
    OSError
        If it can't be opened or read.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "settings.json")
    >>> _ = place.write_bytes(b"{}")
    >>> read_regular(place)
    b'{}'
    """
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DamagedFile(path, f"it has more than {LARGEST:,} bytes")
    return content
