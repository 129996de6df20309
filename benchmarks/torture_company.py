"""Fits that are not alone: data that change under them, others at the same store, a store that is emptied."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torture_bench import (
    PAUSE,
    REFUSED,
    REPAIRED,
    UNHARMED,
    Bench,
    Met,
    plainly,
    shards,
    warned,
)
from torture_job import Done, Running, left_behind

TOGETHER = 10
"""Fits at once on one store."""
BOUND = 1800.0
"""Seconds after which fits that ran at once count as stuck."""


def _change(picture: Path) -> bytes:
    """Replace a picture by another of the same class turned upside down; gives what it was."""
    from PIL import Image

    before = picture.read_bytes()
    Image.open(picture).rotate(180).save(picture)
    return before


def _grow(picture: Path) -> bytes:
    shutil.copy(picture, picture.with_name("another.png"))
    _change(picture.with_name("another.png"))
    return b""


def _delete(picture: Path) -> bytes:
    before = picture.read_bytes()
    picture.unlink()
    return before


def _restore(picture: Path, before: bytes) -> None:
    picture.with_name("another.png").unlink(missing_ok=True)
    if before:
        picture.write_bytes(before)


BETWEEN: dict[str, Callable[[Path], bytes]] = {
    "a picture changed": _change,
    "a picture deleted": _delete,
    "a picture added": _grow,
}


def data_between(bench: Bench, name: str) -> Met:
    """Data change after a run was killed: refused, until they are as before."""
    out, store = bench.fresh("data", half=True)
    data = out.parent / "pictures"
    shutil.copytree(bench.job.data, data)
    picture = data / "down" / "007.png"
    before = BETWEEN[name](picture)
    done = bench.run(out, store, data=data)
    wrong = bench.refused(done, 2, "another command or other data")
    _restore(picture, before)
    wrong += [f"then: {w}" for w in bench.right(bench.run(out, store, data=data), out, store)]
    told = plainly(done.message, bench.job.place)
    return Met(f"{name}, between two runs", "data", REFUSED, done.status, told, wrong)


def data_during(bench: Bench, mark: str, what: str) -> Met:
    """All pictures of a class change while a fit runs; then they are as before, and so is the model."""
    out, store = bench.fresh("data")
    data = out.parent / "pictures"
    shutil.copytree(bench.job.data, data)
    running = bench.start(out, store, data=data)
    running.wait_for(mark)
    before = {picture: _change(picture) for picture in sorted((data / "down").iterdir())}
    done = running.end()
    wrong = bench.refused(done, 1, "changed after it was read")
    wrong += [f"left behind: {n}" for n in left_behind(out.parent) if n != "work"]
    for picture, content in before.items():
        picture.write_bytes(content)
    wrong += [f"then: {w}" for w in bench.right(bench.run(out, store, data=data), out, store)]
    told = plainly(done.message, bench.job.place)
    return Met(f"pictures changed during a run, {what}", "data", REFUSED, done.status, told, wrong)


def at_once(bench: Bench, count: int) -> Met:
    """Several fits at the same time on one new store: each must give the right model, in bounded time."""
    out, store = bench.fresh("company")
    began = time.monotonic()
    runs = [out.with_name(f"run-{number}") for number in range(count)]
    started = [bench.start(run, store) for run in runs]
    ended = [running.end(timeout=BOUND) for running in started]
    seconds = time.monotonic() - began
    wrong = [
        f"fit {number}: {w}"
        for number, (done, run) in enumerate(zip(ended, runs, strict=True), start=1)
        for w in bench.right(done, run)
    ]
    wrong += [f"left behind: {n}" for n in left_behind(store)]
    wrong += _damaged(store)
    told = f"all in {seconds:.0f} s. {' '.join(dict.fromkeys(filter(None, map(warned, ended))))}".strip()
    status = max(done.status for done in ended)
    return Met(f"{count} fits at once on one new store", "company", UNHARMED, status, told, wrong)


def _damaged(store: Path) -> list[str]:
    """What a reader finds wrong in a store: every number of every file is compared with its checksum."""
    from topgraft.errors import TopgraftError
    from topgraft.files import read_tensors

    found = []
    for path in shards(store):
        with contextlib.suppress(TopgraftError):
            read_tensors(path)
            continue
        found.append(f"damaged: {path.name[:8]}")
    return found


def same_folder(bench: Bench) -> Met:
    """A second fit at the same folder, while the first runs."""
    out, store = bench.fresh("twice")
    first = bench.start(out, store)
    first.wait_for(r"One pass  \d")
    first.send(signal.SIGSTOP)  # or it may have ended when the second has started
    second = bench.run(out, store)
    first.send(signal.SIGCONT)
    wrong = bench.refused(second, 2, "Another process is at work in")
    wrong += [f"the first: {w}" for w in bench.right(first.end(), out, store)]
    told = plainly(second.message, bench.job.place)
    return Met("two fits at once in one folder", "company", REFUSED, second.status, told, wrong)


def emptied(bench: Bench) -> Met:
    """`topgraft cache clear` again and again, while a fit runs."""
    out, store = bench.fresh("emptied")
    running = bench.start(out, store)
    cleared = 0
    while running.process.poll() is None:
        cleared += Running(["cache", "clear"], bench.job.environment(store)).end().status == 0
    done = running.end()
    wrong = bench.right(done, out, store)
    name = "`topgraft cache clear` again and again beside a fit"
    told = f"{cleared} times. {warned(done)}".strip()
    return Met(name, "company", REPAIRED, done.status, plainly(told, bench.job.place), wrong)


def limited(bench: Bench) -> Met:
    """A store that may take one kilobyte."""
    out, store = bench.fresh("limited")
    environment = bench.job.environment(store, pause=PAUSE) | {"TOPGRAFT_CACHE_LIMIT": "1kB"}
    done = Running([*bench.job.command(out), *bench.plan], environment).end()
    wrong = bench.right(done, out, store)
    if "limit" not in warned(done):
        wrong.append("nothing was said")
    told = plainly(warned(done), bench.job.place)
    return Met("the store may take 1 kB", "company", REPAIRED, done.status, told, wrong)


def terminated(bench: Bench) -> Met:
    """SIGTERM, as a machine that shuts down sends it."""
    out, store = bench.fresh("terminated")
    running = bench.start(out, store)
    running.wait_for(r"Freeze  ")
    running.send(signal.SIGTERM)
    status = running.end().status
    wrong = [] if status in (-signal.SIGTERM, 143, 0) else [f"ended with {status}"]
    wrong += [f"then: {w}" for w in bench.right(bench.run(out, store), out, store)] if status else []
    return Met("the machine shuts down (SIGTERM)", "company", REPAIRED, status, "", wrong)


def nobody_listens(bench: Bench) -> Met:
    """Whoever reads the predictions stops after the first line, as `| head -1` does."""
    out, store = bench.fresh("pipe")
    told = bench.job.environment(store)
    command = [sys.executable, "-m", "topgraft", "predict", str(bench.reference), str(bench.job.data)]
    reader, writer = os.pipe()
    process = subprocess.Popen([*command, "--trust-code"], env=told, stdout=writer, stderr=-1, text=True)
    os.close(writer)
    with os.fdopen(reader) as lines:
        lines.readline()
    _, err = process.communicate(timeout=600)
    done = Done(process.returncode, "", err, 0.0)
    wrong = ["a traceback instead of a message"] if "Traceback" in err else []
    if done.status not in (0, 1, 141, -signal.SIGPIPE):
        wrong.append(f"ended with {done.status}")
    name = "whoever reads the predictions stops listening"
    return Met(name, "company", REFUSED, done.status, plainly(err, bench.job.place, out.parent), wrong)


def company() -> dict[str, Callable[[Bench], Met]]:
    """All of this file by name, in the order of the page."""
    found: dict[str, Callable[[Bench], Met]] = {
        f"data between: {name}": lambda b, name=name: data_between(b, name) for name in BETWEEN
    }
    found |= {
        "data during the pass": lambda b: data_during(b, r"Data  ", "before the pass"),
        "data during the scoring": lambda b: data_during(b, r"Trained ", "before the score"),
        "two at once": lambda b: at_once(b, 2),
        "same folder": same_folder,
        "emptied": emptied,
        "limited": limited,
        "terminated": terminated,
        "nobody listens": nobody_listens,
        "ten at once": lambda b: at_once(b, TOGETHER),
    }
    return found
