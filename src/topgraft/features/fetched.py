"""Files that were fetched from elsewhere, kept in the store beside what was computed, and bounded with it.

A folder of the store holds the files of one address. What each was by its server's word and by its content is
written down, so that a file that changed there, or here, is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topgraft.errors import RunningError, TopgraftError
from topgraft.features.holds import Hold
from topgraft.features.limit import limit_of, make_room, told_dropped, told_over
from topgraft.features.shelf import StoreWarning, key_of
from topgraft.features.store import Store
from topgraft.features.stored import DESCRIPTION, FILES, FOLDER, INDEX, shelves_in
from topgraft.files import read_json, told, write_json

_HELD: dict[Path, Hold] = {}
"""What this process reads stays until it ends: its data is read from there."""


@dataclass(frozen=True)
class Wanted:
    """A file at an address.

    Parameters
    ----------
    name
        Relative to the address, with ``/`` between folders.
    place
        What the file system there calls it.
    size
        Bytes; ``None`` where that is not known.
    version
        What changes with its content by its server's word; empty where the server says nothing.
    """

    name: str
    place: str
    size: int | None
    version: str


@dataclass(frozen=True)
class Brought:
    """What was fetched, and what was here already.

    Parameters
    ----------
    folder
        Where the files lie, under their own names.
    fetched, bytes
        How many files came, and their bytes.
    here
        How many files were here already.
    damaged
        How many of those that came had been here, but were damaged.
    """

    folder: Path
    fetched: int
    bytes: int
    here: int
    damaged: int


class Fetched:
    """The files of one address in the store.

    Parameters
    ----------
    address
        Where they come from.
    said
        The same without what only its owner should see.
    store
        The default one where none is given.
    """

    def __init__(self, address: str, said: str = "", store: Store | None = None) -> None:
        self.address = said or address
        self.root = (store or Store()).root
        self.description = {"what": "fetched", "address": self.address}
        self.folder = self.root / FOLDER / key_of({"what": "fetched", "address": address})
        self.files = self.folder / FILES

    def bring(self, wanted: Sequence[Wanted], get: Callable[[list[str], list[str]], Any]) -> Brought:
        """Fetch what is not here, or not any more what it is there.

        Parameters
        ----------
        wanted
            The files, each name once and inside the address.
        get
            Copies files of these places to these paths.

        Raises
        ------
        TopgraftError
            If the store may not be written to, or there is not enough room on its disk.
        RunningError
            If a file came with another size than it has there.
        """
        with told(self.root):
            self.files.mkdir(parents=True, exist_ok=True)
        _HELD.setdefault(self.folder, Hold(self.folder)).take()
        if not (self.folder / DESCRIPTION).exists():
            write_json(self.folder / DESCRIPTION, self.description)
        os.utime(self.folder / DESCRIPTION)
        known = self._known()
        states = {one.name: self._state(one, known.get(one.name)) for one in wanted}
        missing = [one for one in wanted if states[one.name] != "here"]
        self._make_room(sum(one.size or 0 for one in missing))
        came = 0
        for at in range(0, len(missing), 64):
            came += self._get(missing[at : at + 64], known, get)
            write_json(self.folder / INDEX, {"files": known})
        damaged = sum(state == "damaged" for state in states.values())
        return Brought(self.files, len(missing), came, len(wanted) - len(missing), damaged)

    def _known(self) -> dict[str, dict[str, Any]]:
        try:
            found = read_json(self.folder / INDEX)["files"]
        except (TopgraftError, KeyError, TypeError, OSError):
            return {}
        return (
            {n: one for n, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}
        )

    def _state(self, one: Wanted, known: Mapping[str, Any] | None) -> str:
        """``here``, ``damaged`` or ``missing``: never here, another one there, or perhaps another one."""
        if known is None or not one.version or known.get("version") != one.version:
            return "missing"
        try:
            digest = _digest(self.files / one.name)
        except OSError:
            return "missing"
        return "here" if digest == known.get("sha256") else "damaged"

    def _get(
        self,
        some: Sequence[Wanted],
        known: dict[str, dict[str, Any]],
        get: Callable[[list[str], list[str]], Any],
    ) -> int:
        came = 0
        with told(self.folder):
            for one in some:
                (self.files / one.name).parent.mkdir(parents=True, exist_ok=True)
        parts = [self.files / f"{one.name}.{os.getpid()}.part" for one in some]
        try:
            get([one.place for one in some], [str(part) for part in parts])
            for one, part in zip(some, parts, strict=True):
                size = part.stat().st_size
                if one.size is not None and size != one.size:
                    raise RunningError(
                        f"{one.place} came with {size:,} of {one.size:,} bytes. Give the command again."
                    )
                known[one.name] = {"version": one.version, "sha256": _digest(part)}
                part.replace(self.files / one.name)
                came += size
        finally:
            for part in parts:
                with contextlib.suppress(OSError):
                    part.unlink()
        return came

    def _make_room(self, more: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if more > free:
            raise TopgraftError(
                f"{self.address}: {more:,} bytes are to be fetched, and the disk of the store ({self.root}) "
                f"has {free:,} left. Free some, or set TOPGRAFT_CACHE to a folder on another disk."
            )
        limit = limit_of(self.root)
        if not more or limit.bytes is None:
            return
        dropped = make_room(self.folder.parent, limit.bytes, more, keep=self.folder)
        if dropped:
            warnings.warn(told_dropped(dropped, limit, self.root), StoreWarning, stacklevel=4)
        taken = more + sum(shelf.bytes for shelf in shelves_in(self.folder.parent))
        if taken > limit.bytes:
            warnings.warn(told_over(taken, limit, self.root), StoreWarning, stacklevel=4)


def _digest(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()
