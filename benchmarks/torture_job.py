"""The fit that `make torture` disturbs: started as a process of its own, watched, ended, and compared."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torture_network import COUNTS, PAUSE, pictures, rows_of

HERE = Path(__file__).resolve().parent
OPTIONS = (
    *("--backbone", "torture_network:counted", "--batch-size", "32", "--epochs", "16", "--rate", "0.003"),
    *("--taps", "none", "--augment", "none", "--mixup", "0", "--soup", "2"),
)
"""Epochs and soup are given, so that no decision depends on the time that a disturbed run has left."""
MARKS = {
    "pass": (r"Data ", r"One pass  \d"),
    "search": (r"Advice ", r"Cost      training"),
    "training": (r"Cost      training", r"Trained "),
    "saving": (r"Trained ", r"Saved "),
}
"""Each stage by the beginnings of the lines before and after it; the pass with its trial and resizing."""
SAME = ("model.safetensors", "graft.json", "labels.json", "untouched.json", "chain.svg")
"""Files of a run that must be the same bit for bit."""
TIMEOUT = 900.0
UNFINISHED = re.compile(r"\.topgraft-part-|\.new$|\.tmp$")


@dataclass(frozen=True)
class Done:
    """What a process did; ``status`` is the negative number of a signal that ended it."""

    status: int
    out: str
    err: str
    seconds: float
    at: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON document that it must be."""
        return dict(json.loads(self.out))

    @property
    def message(self) -> str:
        """The last thing that was said to the user."""
        said = self.err[self.err.rindex("Error: ") :] if "Error: " in self.err else self.err
        return said.strip()


class Running:
    """A process of the command line, with the lines that it has written so far."""

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        first: Callable[[], None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "topgraft", *map(str, command)],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=first or _takes_interrupts,  # noqa: PLW1509 (it takes no lock)
        )
        self.lines: list[tuple[float, str]] = []
        self._out: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_err, daemon=True),
            threading.Thread(target=self._read_out, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append((time.monotonic() - self.began, line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        self._out.append(self.process.stdout.read())

    def wait_for(self, mark: str, *, timeout: float = TIMEOUT) -> bool:
        """Until a line begins with ``mark`` (a pattern); whether one did before the process ended."""
        end = time.monotonic() + timeout
        with self._changed:
            while not any(re.match(mark, line) for _, line in self.lines):
                if self.process.poll() is not None or time.monotonic() > end:
                    return any(re.match(mark, line) for _, line in self.lines)
                self._changed.wait(0.02)
        return True

    def send(self, number: int) -> None:
        """Send a signal to this process and no other; nothing where it has ended."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self, *, timeout: float = TIMEOUT) -> Done:
        """Wait for its end; one that hangs is killed, and its status says so."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = -1000
        seconds = time.monotonic() - self.began
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        err = "".join(line for _, line in self.lines)
        return Done(status, "".join(self._out), err, seconds, self._stages())

    def _stages(self) -> dict[str, tuple[float, float]]:
        """When each stage began and ended, in seconds; one that was not seen whole is left out."""
        found = {}
        for stage, marks in MARKS.items():
            times = [[at for at, line in self.lines if re.match(mark, line)] for mark in marks]
            if all(times):
                found[stage] = (times[0][0], times[1][-1])
        return found


def _takes_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job of a shell starts with them ignored


@dataclass(frozen=True)
class Job:
    """A fit of the small network on made-up pictures.

    Parameters
    ----------
    place
        An empty folder for everything.
    each
        Pictures a class.
    """

    place: Path
    each: int = 50

    @cached_property
    def data(self) -> Path:
        """The pictures."""
        folder = self.place / "pictures"
        return folder if folder.exists() else pictures(folder, self.each)

    def environment(self, store: Path, counts: Path | None = None, *, pause: float = 0.0) -> dict[str, str]:
        """What a process is told beside its command: one thread, its store, where passes are counted."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("TORTURE_", "TOPGRAFT_"))}
        known = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        told = {
            "PYTHONPATH": os.pathsep.join(known),
            "TOPGRAFT_CACHE": str(store),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            PAUSE: str(pause),
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        }
        return inherited | told | ({COUNTS: str(counts)} if counts is not None else {})

    def command(self, out: Path, *more: str | Path, data: Path | None = None) -> list[str | Path]:
        """The arguments of the fit."""
        return ["fit", data or self.data, "-o", out, *OPTIONS, "--json", *more]

    def start(
        self,
        out: Path,
        store: Path,
        *more: str | Path,
        data: Path | None = None,
        counts: Path | None = None,
        pause: float = 0.0,
        first: Callable[[], None] | None = None,
    ) -> Running:
        """Start it."""
        told = self.environment(store, counts, pause=pause)
        return Running(self.command(out, *more, data=data), told, first=first)

    def run(self, out: Path, store: Path, *more: str | Path, **options: Any) -> Done:
        """Run it to its end."""
        return self.start(out, store, *more, **options).end()


def passes(counts: Path) -> dict[int, Counter[str]]:
    """Per process how often each row passed the first block; a last line that is cut short does not count."""
    found: dict[int, Counter[str]] = {}
    for line in counts.read_text().split("\n")[:-1] if counts.exists() else ():
        process, *rows = line.split()
        found.setdefault(int(process), Counter()).update(rows)
    return found


def names_of_rows(data: Path) -> dict[str, dict[str, str]]:
    """By fingerprint of the preprocessing and digest of the example, what the counter calls its row."""
    from topgraft.backbones import load
    from topgraft.data import read
    from topgraft.features.reading import batch_of

    sys.path.insert(0, str(HERE))
    try:
        backbone = load("torture_network:counted", modality="picture")
    finally:
        sys.path.remove(str(HERE))
    examples, found = read(data), {}
    for how in ("pretrained", "squash"):
        preprocess = backbone.resized(how).preprocess
        rows = [rows_of(batch_of(preprocess, examples, [i])["x"])[0] for i in range(len(examples))]
        found[preprocess.fingerprint] = dict(zip(examples.digests, rows, strict=True))
    return found


def stored_rows(store: Path, names: Mapping[str, Mapping[str, str]]) -> Counter[str]:
    """On how many shelves of a store each row lies, by the headers of its shards."""
    from topgraft.features.shards import Shard

    found: Counter[str] = Counter()
    for shelf in (store / "features-1").glob("*"):
        if not (shelf / "description.json").exists():
            continue
        by_digest = names.get(json.loads((shelf / "description.json").read_text()).get("preprocessing"), {})
        digests = {d for path in shelf.glob("*.safetensors") for d in Shard(path, shelf.name).digests}
        found.update(by_digest[d] for d in digests if d in by_digest)
    return found


def differences(run: Path, reference: Path) -> list[str]:
    """In what a finished run differs from the reference; nothing where it is the same bit for bit."""
    found = []
    for name in SAME:
        here, there = run / name, reference / name
        if not here.is_file():
            found.append(f"{name} is missing")
        elif _without_places(here) != _without_places(there):
            found.append(f"{name} differs")
    if not found:
        mine, theirs = (json.loads((folder / "result.json").read_text()) for folder in (run, reference))
        found += [f"{n} differs" for n in ("keep", "freeze", "score", "blocks") if mine[n] != theirs[n]]
    found += [f"left behind: {name}" for name in left_behind(run)]
    return found


def _without_places(path: Path) -> bytes:
    """A file's bytes; of what names pictures by their paths, without the folder that these lie in."""
    content = path.read_bytes()
    return re.sub(rb'"[^"]*/(\w+/\w+\.png)"', rb'"\1"', content) if path.suffix == ".json" else content


def left_behind(*folders: Path) -> list[str]:
    """Names of half-written files and of a finished run's work, below some folders."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return [path.name for path in paths if UNFINISHED.search(path.name) or path.name == "work"]


@contextmanager
def small_disk(place: Path, size: str, *options: str) -> Iterator[bool]:
    """A disk of its own of a fixed size, by ``options``; gives ``False`` where none can be had."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)
