"""Shards of packaged pictures and glosses, and tar files that mean harm."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaged_data import pictures_of

Members = Iterable[tuple[str, bytes]]


def write_tar(path: Path, members: Members) -> Path:
    """A tar file as programs write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            one = tarfile.TarInfo(name)
            one.size = len(content)
            archive.addfile(one, io.BytesIO(content))
    return path


def of_pictures(start: int, each: int, names: Sequence[str] = ("food", "tools")) -> list[tuple[str, bytes]]:
    """Members ``food/….webp`` and ``food/….cls`` of packaged pictures, the classes in turn."""
    found = []
    for pair in zip(*(pictures_of(name, start, each) for name in names), strict=True):
        for path, name in zip(pair, names, strict=True):
            found.append((f"{name}/{path.stem}.webp", path.read_bytes()))
            found.append((f"{name}/{path.stem}.cls", name.encode()))
    return found


def write_shards(folder: Path, *, shards: int = 2, each: int = 4) -> Path:
    """``photos-000.tar`` and so on, with ``each`` pictures of both classes in each."""
    for number in range(shards):
        write_tar(folder / f"photos-{number:03d}.tar", of_pictures(number * each, each))
    return folder
