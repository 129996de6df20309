"""Everything that topgraft opens, each with a small valid example, and what opening it may and may not do.

A reader that is given a changed file either gives a result (the right one, where the file carries
checksums) or one of topgraft's own errors: no other exception, no hang, no huge memory, no code run, nothing
written outside.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_changes import Change

from topgraft.errors import TopgraftError, TopgraftWarning

SECONDS = 60
"""Opening takes milliseconds; beside other load it may take a thousand times as long."""
MEMORY = 1 << 30
"""Bytes by which the process may grow at most while it opens one."""


@dataclass(frozen=True)
class Reader:
    """Something that is opened.

    Parameters
    ----------
    make
        Writes a valid example into an empty folder.
    open
        Opens it and uses all that is in it; what it gives can be compared by ``==``.
    exact
        Whether a result of changed files must be that of the valid ones.
    turned
        Whether files are also put out of the way, or pipes, folders and links in their places.
    """

    make: Callable[[Path], None]
    open: Callable[[Path], Any]
    exact: bool = False
    turned: bool = True


class Broken(AssertionError):
    """The promise was broken."""


class _Late(BaseException):
    pass


def checked(reader: Reader, valid: Path, changes: Sequence[Change]) -> str:
    """What became of a changed copy of a valid example: ``opened`` or ``refused``.

    Raises
    ------
    Broken
        If the promise was broken.
    """
    expected = reader.open(valid) if reader.exact else None
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "case")
        shutil.copytree(valid, folder)
        for change in changes:
            change.apply(folder)
        beside = _beside(folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            with _watched(folder), _bounded(), warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", TopgraftWarning)
                found = reader.open(folder)
            outcome = "opened"
        except TopgraftError as error:
            outcome = "refused"
            if not str(error).strip():
                raise Broken(f"{changes} was refused without a word") from error
        except _Late:
            raise Broken(f"{changes}: not opened within {SECONDS} s") from None
        except MemoryError as error:
            raise Broken(f"{changes}: memory ran out") from error
        except Exception as error:
            raise Broken(f"{changes}: {type(error).__name__}: {error}") from error
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > MEMORY:
            raise Broken(f"{changes}: took {grown:,} bytes of memory")
        if _beside(folder) != beside:
            raise Broken(f"{changes}: wrote beside its folder")
        if outcome == "opened" and reader.exact and found != expected:
            raise Broken(f"{changes}: gave {found!r:.200}, not {expected!r:.200}")
    return outcome


def _beside(folder: Path) -> dict[str, bytes]:
    """The files beside a folder: links out of it lead to them."""
    return {p.name: p.read_bytes() for p in folder.parent.iterdir() if p != folder}


_watching: list[Path] = []
_seen: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"):
        _seen.append(f"{event} {arguments!r:.200}")
    elif (
        event == "open"
        and isinstance(arguments[0], (str, bytes))
        and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    ):
        path = Path(os.fsdecode(arguments[0])).resolve()
        inside = path.is_relative_to(_watching[0].resolve())
        if not inside and "__pycache__" not in path.parts and not path.is_relative_to("/dev"):
            _seen.append(f"wrote {path}")


sys.addaudithook(_audit)


@contextmanager
def _bounded() -> Iterator[None]:
    """What takes far more than it may ends in an error, not the whole machine in want of memory."""
    status = Path("/proc/self/status")
    if not status.is_file():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    lines = status.read_text(encoding="utf-8").splitlines()
    held = next(int(line.split()[1]) for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held * 1024 + 4 * MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """What runs code, starts programs or writes outside of a folder is an error; and so is a hang."""

    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    _watching.append(folder)
    _seen.clear()
    try:
        yield
    finally:
        _watching.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if _seen:
            raise Broken(_seen[0])
