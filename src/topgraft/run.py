"""The folder that a run leaves behind: claimed at the start, complete at the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from topgraft.errors import TopgraftError
from topgraft.files import DamagedFile, canonical_json, is_leftover, read_json, sweep, told, write_json

if sys.platform != "win32":  # there, two of the same command at once are not noticed
    import fcntl

FORM = 1
STATUS = "run.json"
WORK = "work"


class RunFolder:
    """A folder with ``run.json``, which says what command it belongs to and whether it is finished."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path, self.document = path, document

    @classmethod
    def claim(cls, path: Path, command: Mapping[str, Any], *, overwrite: bool) -> RunFolder:
        """Make the folder, or go on with an unfinished run of the same command and data.

        Parameters
        ----------
        path
            Does not exist yet, or holds an unfinished run of the same command.
        command
            Everything that the result depends on, as JSON.
        overwrite
            Whether a finished run there may be replaced.

        Raises
        ------
        TopgraftError
            If something else is there, or another process is at work there; it is left alone.
        """
        if path.is_dir():
            with alone(path):  # before anything is swept or replaced; the caller then holds what it claimed
                pass
        key = hashlib.sha256(canonical_json(command)).hexdigest()
        fresh = {"form": FORM, "status": "unfinished", "key": key, "command": dict(command)}
        status = cls.check(path, overwrite=overwrite)
        if status:
            there = read_json(path / STATUS)
            if status == "unfinished" and there.get("key") == key:
                sweep(path)
                return cls(path, there)
            if status == "unfinished" and not overwrite:
                raise TopgraftError(
                    f"{path} holds an unfinished run of another command or other data. Give the same command "
                    "to go on with it, another -o, or --overwrite to start anew."
                )
        place = path.resolve()  # what a link stands for is replaced, not the link
        was_there = place.exists()
        with told(path):
            if status:
                shutil.rmtree(place)
            place.mkdir(parents=True, exist_ok=True)
            sweep(place)  # of one that was killed when it had just begun
        try:
            write_json(path / STATUS, fresh)
        except TopgraftError:
            if status or not was_there:
                place.rmdir()
            raise
        return cls(path, fresh)

    @classmethod
    def check(cls, path: Path, *, overwrite: bool) -> str:
        """What is at ``path``: ``""`` for nothing or an empty folder, ``unfinished`` or ``finished``.

        Raises
        ------
        TopgraftError
            If it is no run, or a finished one that may not be replaced.
        """
        with told(path, reading=True):
            if not path.exists() and not path.is_symlink():
                return ""
            if path.is_dir() and all(is_leftover(entry.name) for entry in path.iterdir()):
                return ""
            is_run = (path / STATUS).is_file()
        status = None
        if is_run:
            try:
                document = read_json(path / STATUS)
            except DamagedFile as error:
                raise TopgraftError(
                    f"{error}\nIt is left alone. Delete {path}, or give another -o."
                ) from error
            status = document.get("status") if isinstance(document, dict) else None
        if status not in ("unfinished", "finished"):
            raise TopgraftError(
                f"{path} exists and is not a run of topgraft; it is left alone. "
                "Give -o a folder that does not exist yet."
            )
        if status == "finished" and not overwrite:
            raise TopgraftError(
                f"{path} holds a finished run. Give another -o, or --overwrite to replace it."
            )
        return str(status)

    @property
    def work(self) -> Path:
        """Where unfinished trainings keep their state; gone when the run is finished."""
        folder = self.path / WORK
        folder.mkdir(exist_ok=True)
        return folder

    def finish(self) -> None:
        """Say that the run is finished."""
        shutil.rmtree(self.path / WORK, ignore_errors=True)
        self.document = {**self.document, "status": "finished"}
        write_json(self.path / STATUS, self.document)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else works in a run's folder meanwhile; however this process ends, the next one can go on.

    Raises
    ------
    TopgraftError
        If another process is at work there.
    """
    if sys.platform == "win32":
        yield
        return
    with told(path, reading=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # no locks on this disk
            _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TopgraftError(
            f"Another process is at work in {path}. Wait until it has ended, or give another -o."
        ) from None
