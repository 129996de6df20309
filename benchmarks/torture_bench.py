"""Where `make torture` lets a fit meet a fault: a reference, a half-done run to copy, and a verdict."""

from __future__ import annotations

import ctypes
import json
import re
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torture_job import Done, Job, Running, differences, left_behind, names_of_rows, passes

PAUSE = 0.05
"""Seconds that each batch waits in the first block."""
REPAIRED, REFUSED, UNHARMED, UNTRIED = "repaired", "refused", "unharmed", "not tried"
"""Went on to the right model; ended with one message; nothing to notice; could not be tried here."""
TRACE = "Traceback (most recent call last)"
_PR_CAPBSET_DROP = 24
_DAC = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@dataclass
class Met:
    """What became of a fit that met a fault.

    Parameters
    ----------
    name, kind
        Which fault, and of what kind.
    outcome
        One of :data:`REPAIRED`, :data:`REFUSED`, :data:`UNHARMED` and :data:`UNTRIED`.
    status
        Exit status of the command that met it.
    told
        What it said of it.
    wrong
        What is not as it must be, in words; empty where all is.
    """

    name: str
    kind: str
    outcome: str
    status: int | None = None
    told: str = ""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """A fit that nobody disturbed, and what it needed.

    Parameters
    ----------
    folder
        What it left.
    stages
        When each stage began and ended, in seconds.
    passes
        How often each row passed the first block.
    """

    folder: Path
    stages: Mapping[str, tuple[float, float]]
    passes: Counter[str]


@dataclass(frozen=True)
class Bench:
    """A job, its references, and places for runs that are disturbed.

    Parameters
    ----------
    job
        What is fitted, in an empty place.
    """

    job: Job

    @cached_property
    def names(self) -> dict[str, dict[str, str]]:
        """What the counter of passes calls each example's row."""
        return names_of_rows(self.job.data)

    @cached_property
    def references(self) -> dict[bool, Reference]:
        """Runs that nobody disturbed: without a plan, and one that repeats the plan of the first."""
        plain = self._undisturbed("reference")
        again = self._undisturbed("planned", "--plan", plain.folder / "plan.json")
        if found := differences(again.folder, plain.folder):
            raise RuntimeError(f"the plan does not repeat the reference: {', '.join(found)}")
        return {False: plain, True: again}

    @property
    def reference(self) -> Path:
        """What an undisturbed run left."""
        return self.references[False].folder

    @property
    def plan(self) -> tuple[str, Path]:
        """What a run is told that repeats the plan of the reference."""
        return "--plan", self.reference / "plan.json"

    def _undisturbed(self, name: str, *more: str | Path) -> Reference:
        folder, store = self.job.place / name, self.job.place / f"{name}.store"
        counts = self.job.place / f"{name}.counts"
        done = self.job.run(folder, store, *more, counts=counts, pause=PAUSE)
        if done.status:
            raise RuntimeError(f"the undisturbed fit ended with {done.status}: {done.err}")
        (found,) = passes(counts).values()
        return Reference(folder, done.at, found)

    @cached_property
    def half(self) -> Path:
        """A folder with ``run`` and ``store`` of a run that was killed after its training."""
        folder = self.job.place / "half"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        running = self.start(folder / "run", folder / "store")
        running.wait_for(r"Freeze  ")
        running.send(signal.SIGKILL)
        if running.end().status != -signal.SIGKILL or not list((folder / "run" / "work").glob("trial-*")):
            raise RuntimeError("the run that was to be killed in its middle was not")
        return folder

    def start(self, out: Path, store: Path, *more: str | Path, **options: Any) -> Running:
        """A run that repeats the plan."""
        return self.job.start(out, store, *self.plan, *more, pause=PAUSE, **options)

    def run(self, out: Path, store: Path, *more: str | Path, **options: Any) -> Done:
        """The same to its end."""
        return self.start(out, store, *more, **options).end()

    def fresh(self, name: str, *, half: bool = False) -> tuple[Path, Path]:
        """Places of a run and a store for one fault: new, or those of the half-done run."""
        folder = self.job.place / name
        shutil.rmtree(folder, ignore_errors=True)
        if half:
            shutil.copytree(self.half, folder)
        else:
            folder.mkdir()
        return folder / "run", folder / "store"

    def right(self, done: Done, out: Path, *places: Path) -> list[str]:
        """What is not right about a run that must have ended well with the reference's model."""
        if done.status:
            return [f"ended with {done.status}: {done.message}"]
        return [*differences(out, self.reference), *(f"left behind: {n}" for n in left_behind(*places))]

    def refused(self, done: Done, status: int, *words: str) -> list[str]:
        """What is not right about a run that must have ended with one message."""
        wrong = [] if done.status == status else [f"ended with {done.status}, not {status}"]
        if TRACE in done.err:
            wrong.append("a traceback instead of a message")
        if done.err.count("Error: ") != 1:
            wrong.append(f"{done.err.count('Error: ')} messages")
        return wrong + [f"the message lacks {word!r}" for word in words if word not in done.message]


def warned(done: Done) -> str:
    """The warnings that a run gave, without places."""
    found = [
        line.removeprefix("Warning").strip() for line in done.err.split("\n") if line.startswith("Warning")
    ]
    return " ".join(dict.fromkeys(found))


def plainly(text: str, *places: Path) -> str:
    """A message without the folders of this machine, on one line."""
    for place in sorted(places, key=lambda p: -len(str(p))):
        text = text.replace(str(place), "…")
    text = re.sub(r"[0-9a-f]{16,}", lambda found: found[0][:8] + "…", text)
    return " ".join(text.split())


def without_rights() -> None:
    """Let permissions count for an administrator, too: take the right to pass them from the command."""
    library = ctypes.CDLL(None, use_errno=True)
    for right in _DAC:
        library.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)


def files_of_at_most(size: int) -> Callable[[], None]:
    """Let no file that the command writes grow beyond ``size`` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def flip(path: Path, at: float = 0.5, bit: int = 3) -> None:
    """Change one bit of a file, in place."""
    content = bytearray(path.read_bytes())
    content[min(len(content) - 1, int(at * len(content)))] ^= 1 << bit
    path.write_bytes(bytes(content))


def cut(path: Path, share: float = 0.6) -> None:
    """Cut a file short."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def shards(store: Path) -> Iterator[Path]:
    """The files of a store that hold numbers."""
    yield from sorted(store.glob("features-1/*/*.safetensors"))


def descriptions(store: Path) -> Iterator[Path]:
    """The files of a store that say what made the numbers."""
    yield from sorted(store.glob("features-1/*/description.json"))


def trained_epochs(checkpoint: Path) -> int:
    """Epochs that a checkpoint holds."""
    from topgraft.files import read_tensors

    _, metadata = read_tensors(checkpoint)
    return len(json.loads(metadata["history"])["epochs"]) - 1
