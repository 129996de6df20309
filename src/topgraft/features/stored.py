"""What the store holds: its shelves from outside, and how one is deleted."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from topgraft.errors import TopgraftError
from topgraft.features.holds import is_used, unused
from topgraft.features.shards import SUFFIX, Shard
from topgraft.files import DamagedFile, read_json, sweep, told

SHARD = re.compile(r"[0-9a-f]{64}" + re.escape(SUFFIX))
FOLDER = "features-1"
"""Of the shelves, in a store and at its address; another version that could not read these has another."""
DESCRIPTION = "description.json"
FILES, INDEX = "files", "files.json"
"""Of what was fetched: the folder of the files, and what is known of them."""
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Stored:
    """A shelf as it lies on the disk; looking at it changes nothing.

    Parameters
    ----------
    folder
        Where it lies.
    bytes
        What it takes.
    used
        When it was last read or appended to, in seconds since 1970.
    """

    folder: Path
    bytes: int
    used: float

    @property
    def key(self) -> str:
        """Its key, which is the name of its folder."""
        return self.folder.name

    @property
    def is_used(self) -> bool:
        """Whether a process uses it just now, as far as can be known."""
        return is_used(self.folder)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """What made its arrays; empty where that can't be read."""
        try:
            found = read_json(self.folder / DESCRIPTION)
        except TopgraftError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def what(self) -> str:
        """What its arrays are, in words."""
        kind, cut = self.description.get("what"), self.description.get("cut")
        if kind == "pooled":
            return "pooled, all cuts"
        if kind == "state" and isinstance(cut, int):
            view = self.description.get("view")
            return f"states at cut {cut}{self._place(cut)}{f', view {view}' if view else ''}"
        if kind == "fetched":
            return f"fetched from {self.description.get('address')}"
        if kind == "converted" and isinstance(cut, int):
            return f"a converted network, {cut} blocks"
        if kind == "evidence":
            return "probes, all cuts"
        return "unlike what this version stores" if self.description else "unknown: no description"

    def _place(self, cut: int) -> str:
        points = self.description.get("blocks")
        if (
            not isinstance(points, list)
            or not 1 <= cut <= len(points)
            or not isinstance(points[cut - 1], dict)
        ):
            return ""
        module, when = points[cut - 1].get("module"), points[cut - 1].get("when")
        side = "before" if when == "enter" else "after"
        return f" ({side} {module})" if isinstance(module, str) and module else ""

    @property
    def backbone(self) -> str:
        """Which network made its arrays, in words; empty where that is unknown."""
        recipe = self.description.get("recipe")
        if not isinstance(recipe, dict):
            named = self.description.get("class")
            return named if isinstance(named, str) else ""
        name = recipe.get("name") or recipe.get("target") or recipe.get("class")
        kind = recipe.get("kind")
        if not isinstance(name, str) or not isinstance(kind, str):
            return ""
        return name if kind == "own" else f"{kind}/{name}"

    def __str__(self) -> str:
        of = f" of {self.backbone}" if self.backbone else ""
        return f"{self.what}{of}"

    def examples(self) -> int:
        """How many examples it holds, by the headers of its shards; of what was fetched, how many files."""
        if self.description.get("what") == "fetched":
            return sum(len(files) for _, _, files in os.walk(self.folder / FILES))
        digests: set[str] = set()
        for path in _paths(self.folder):
            if SHARD.fullmatch(path.name):
                with contextlib.suppress(DamagedFile, OSError):
                    digests.update(Shard(path, self.key).digests)
        return len(digests)


def shelves_in(folder: Path) -> Iterator[Stored]:
    """The shelves in a folder, by their keys; what is not the store's is left out.

    Raises
    ------
    TopgraftError
        If the folder may not be read.
    """
    with told(folder, reading=True):
        paths = sorted(folder.iterdir()) if folder.exists() else []
    for path in paths:
        if _KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield _seen(path)


def remove(shelf: Stored, *, but_here: bool = False) -> bool:
    """Delete a shelf, but not one that is in use, what is being written or what is not the store's.

    Parameters
    ----------
    shelf
        Which.
    but_here
        Whether it is deleted even where this process itself uses it.

    Returns
    -------
    bool
        Whether it was deleted; what is not the store's may be left in its folder.

    Raises
    ------
    TopgraftError
        If it may not be deleted.
    """
    with unused(shelf.folder, but_here=but_here) as nobody:
        if not nobody:
            return False
        with told(shelf.folder):
            for path in sorted(_paths(shelf.folder), key=lambda path: path.name == DESCRIPTION):
                if path.name == FILES and path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif SHARD.fullmatch(path.name) or path.name in (DESCRIPTION, INDEX):
                    path.unlink(missing_ok=True)
            sweep(shelf.folder)
        with contextlib.suppress(OSError):  # not empty: something there is not ours
            shelf.folder.rmdir()
    return True


def _paths(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _below(folder: str) -> int:
    """Bytes of the files in a folder and below it."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(here, name)).st_size  # noqa: PTH118 (text is quicker)
    return total


def _seen(folder: Path) -> Stored:
    total, used = 0, 0.0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                seen = entry.stat(follow_symlinks=False)
                total += _below(entry.path) if entry.name == FILES else seen.st_size
                if SHARD.fullmatch(entry.name) or entry.name == DESCRIPTION:
                    used = max(used, seen.st_mtime)
    return Stored(folder, total, used)
