"""Faults of disks, permissions, the store and a run's own files, each met by a real fit."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from torture_bench import (
    REFUSED,
    REPAIRED,
    UNHARMED,
    UNTRIED,
    Bench,
    Met,
    cut,
    descriptions,
    files_of_at_most,
    flip,
    plainly,
    shards,
    warned,
    without_rights,
)
from torture_job import Done, left_behind, small_disk

Fault = Callable[[Bench], Met]


def full_disk(bench: Bench, size: str, *, of_store: bool) -> Met:
    """Too small a disk for the run or the store; then room is made and the same command given again."""
    what = "store" if of_store else "run"
    name = f"the disk of the {what} is full ({size.removesuffix('k')} kB)"
    out, store = bench.fresh("full")
    disk = bench.job.place / "full" / "disk"
    with small_disk(disk, size) as is_there:
        if not is_there:
            return Met(name, "disk", UNTRIED, told="needs the right to mount a small disk")
        out, store = (out, disk / "store") if of_store else (disk / "run", store)
        done = bench.run(out, store)
        wrong = bench.refused(done, 1, "disk is full")
        wrong += [f"left behind: {n}" for n in left_behind(disk) if n != "work"]
        if (out / "graft.json").exists():
            wrong.append("a saved model is there")
        larger = ["mount", "-o", "remount,size=64m", str(disk)]
        subprocess.run(larger, check=True, capture_output=True)
        wrong += [f"then: {w}" for w in bench.right(bench.run(out, store), out, disk)]
    return Met(name, "disk", REFUSED, done.status, plainly(done.message, disk, bench.job.place), wrong)


def file_limit(bench: Bench, size: int) -> Met:
    """A limit for the size of files, then none."""
    out, store = bench.fresh("limit")
    done = bench.run(out, store, first=files_of_at_most(size))
    wrong = bench.refused(done, 1, "limit for the size")
    wrong += [f"left behind: {n}" for n in left_behind(out.parent) if n != "work"]
    wrong += [f"then: {w}" for w in bench.right(bench.run(out, store), out, store)]
    told = plainly(done.message, bench.job.place)
    return Met(f"files may have {size:,} bytes at most", "disk", REFUSED, done.status, told, wrong)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[bool]:
    """The folder as on a read-only disk, for administrators too; gives ``False`` where that can't be had."""
    mounts = [["mount", "--bind", str(place), str(place)], ["mount", "-o", "remount,ro,bind", str(place)]]
    done = []
    try:
        for mount in mounts:
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                break
            done.append(mount)
        yield len(done) == len(mounts)
    finally:
        if done:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


def read_only_run(bench: Bench) -> Met:
    """The run's place is on a read-only disk."""
    name = "the run's folder is to be made on a read-only disk"
    out, store = bench.fresh("readonly")
    (out.parent / "disk").mkdir()
    with read_only(out.parent / "disk") as is_there:
        if not is_there:
            return Met(name, "disk", UNTRIED, told="needs the right to mount")
        done = bench.run(out.parent / "disk" / "run", store)
        wrong = bench.refused(done, 2, "read-only")
    if list((out.parent / "disk").iterdir()):
        wrong.append("something was written")
    return Met(name, "disk", REFUSED, done.status, plainly(done.message, bench.job.place), wrong)


def read_only_store(bench: Bench, *, filled: bool) -> Met:
    """The store is on a read-only disk: empty, or with everything that the run needs."""
    name = f"the store is on a read-only disk, {'and holds what is needed' if filled else 'and empty'}"
    out, store = bench.fresh("readonly", half=filled)
    if filled:
        shutil.rmtree(out)
        bench.run(out.parent / "other", store)
    else:
        store.mkdir()
    with read_only(store) as is_there:
        if not is_there:
            return Met(name, "disk", UNTRIED, told="needs the right to mount")
        done = bench.run(out, store)
    if filled:
        return Met(name, "disk", UNHARMED, done.status, plainly(warned(done)), bench.right(done, out, store))
    wrong = bench.refused(done, 2, "read-only", "TOPGRAFT_CACHE")
    return Met(name, "disk", REFUSED, done.status, plainly(done.message, bench.job.place), wrong)


def closed(bench: Bench, what: str) -> Met:
    """A folder without permission, for a process that may not pass that by."""
    out, store = bench.fresh("closed")
    data = out.parent / "pictures"
    shutil.copytree(bench.job.data, data)
    at = {"run's place": out.parent / "place", "store": store, "data": data / "across"}[what]
    at.mkdir(exist_ok=True)
    at.chmod(0o000 if what == "data" else 0o555)
    run = at / "run" if what == "run's place" else out
    try:
        done = bench.run(run, store, data=data, first=without_rights)
    finally:
        at.chmod(0o755)
    name = f"no permission: {what}"
    if done.status == 0 and what != "data":
        return Met(name, "permission", UNTRIED, told="permissions do not bind this process")
    words = ("across",) if what == "data" else ("ermission", at.name)
    return Met(
        name,
        "permission",
        REFUSED,
        done.status,
        plainly(done.message, bench.job.place),
        bench.refused(done, 2, *words),
    )


def _all_shards(change: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def damage(store: Path, _run: Path) -> None:
        for path in shards(store):
            change(path)

    return damage


def _all_descriptions(change: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def damage(store: Path, _run: Path) -> None:
        for path in descriptions(store):
            change(path)

    return damage


def _deleted(store: Path, _run: Path) -> None:
    shutil.rmtree(store)


def _in_run(pattern: str, change: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def damage(_store: Path, run: Path) -> None:
        paths = sorted(run.glob(pattern))
        assert paths, f"no {pattern} to damage"
        for path in paths:
            change(path)

    return damage


def _time(seconds: float) -> Callable[[Path, Path], None]:
    def damage(store: Path, run: Path) -> None:
        for folder in (store, run):
            for path in [folder, *folder.rglob("*")]:
                os.utime(path, (seconds, seconds))

    return damage


def _flip_header(path: Path) -> None:
    flip(path, 0.0, bit=1)


def _flip_number(path: Path) -> None:
    flip(path, 1.0)


YEAR = 365.25 * 86_400
LATER: dict[str, Callable[[Path, Path], None]] = {
    "store: deleted": _deleted,
    "store: every file cut short": _all_shards(cut),
    "store: every file empty": _all_shards(lambda path: cut(path, 0)),
    "store: one bit of each file's numbers flipped": _all_shards(_flip_number),
    "store: one bit of each file's header flipped": _all_shards(_flip_header),
    "store: every file deleted": _all_shards(Path.unlink),
    "store: a file in the place of another": lambda store, _: _exchange(store),
    "store: descriptions deleted": _all_descriptions(Path.unlink),
    "store: one bit of each description flipped": _all_descriptions(flip),
    "run: one bit of the training's state flipped": _in_run("work/trial-*", flip),
    "run: the training's state cut short": _in_run("work/trial-*", cut),
    "run: the training's state deleted": _in_run("work/trial-*", Path.unlink),
    "run: what the trial measured cut short": _in_run("work/speed.json", cut),
    "run: the evidence cut short": _in_run("evidence.json", cut),
    "run: the evidence deleted": _in_run("evidence.json", Path.unlink),
    "run: the plan cut short": _in_run("plan.json", cut),
    "run: run.json cut short": _in_run("run.json", cut),
    "clock: everything is from the year 2070": _time(100 * YEAR),
    "clock: everything is from the year 1971": _time(1.5 * YEAR),
}
"""Damage to a run that was killed after its training, before it goes on."""
UNNOTICED = (
    "clock",
    "run: the evidence deleted",
    "run: the training's state deleted",
    "store: descriptions d",
)
"""Nothing is damaged, or is simply not there: nothing has to be told."""


def _exchange(store: Path) -> None:
    first, second, *_ = shards(store)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def later(bench: Bench, name: str) -> Met:
    """A killed run goes on after something was damaged."""
    out, store = bench.fresh("later", half=True)
    LATER[name](store, out)
    done = bench.run(out, store)
    told = plainly(warned(done), bench.job.place)
    kind = name.split(":", maxsplit=1)[0]
    if done.status:
        wrong = bench.refused(done, done.status, "damaged")
        shutil.rmtree(out)  # what its message must lead to: begun anew, or --overwrite
        wrong += [f"then: {w}" for w in bench.right(bench.run(out, store), out, store)]
        return Met(name, kind, REFUSED, done.status, plainly(done.message, bench.job.place), wrong)
    wrong = bench.right(done, out, store)
    if (
        kind == "store"
        and not told
        and not name.startswith((*UNNOTICED, "store: deleted", "store: every file d"))
    ):
        wrong.append("nothing was said")
    return Met(name, kind, REPAIRED if told else UNHARMED, done.status, told, wrong)


UNDER = {
    name: LATER[name]
    for name in LATER
    if name.startswith("store")
    and not name.endswith("in the place of another")
    and "descriptions" not in name
} | {"run: its folder deleted": lambda _store, run: shutil.rmtree(run)}
"""Damage under a running fit, between the pass and the training that reads what is stored (one file)."""


def under(bench: Bench, name: str) -> Met:
    """Something is damaged while a fit runs."""
    out, store = bench.fresh("under")
    running = bench.start(out, store)
    running.wait_for(r"One pass  \d")
    UNDER[name](store, out)
    done: Done = running.end()
    kind = name.split(":", maxsplit=1)[0]
    said = f"{name}, while a fit runs"
    if kind == "run":
        wrong = bench.refused(done, done.status)
        if done.status not in (1, 2):
            wrong.append(f"ended with {done.status}")
        wrong += [f"then: {w}" for w in bench.right(bench.run(out, store), out, store)]
        return Met(said, kind, REFUSED, done.status, plainly(done.message, bench.job.place), wrong)
    told = plainly(warned(done), bench.job.place)
    return Met(said, kind, REPAIRED if told else UNHARMED, done.status, told, bench.right(done, out, store))


def faults() -> dict[str, Fault]:
    """All of this file by name, in the order of the page."""
    found: dict[str, Fault] = {
        f"full {what} {size}": lambda b, size=size, of=what == "store": full_disk(b, size, of_store=of)
        for what, sizes in {"run": ("8k", "40k", "80k"), "store": ("8k", "96k")}.items()
        for size in sizes
    }
    found |= {f"file limit {size}": lambda b, size=size: file_limit(b, size) for size in (300, 20_000)}
    found |= {
        "read-only run": read_only_run,
        "read-only empty store": lambda b: read_only_store(b, filled=False),
        "read-only full store": lambda b: read_only_store(b, filled=True),
    }
    found |= {
        f"closed {what}": lambda b, what=what: closed(b, what) for what in ("run's place", "store", "data")
    }
    found |= {name: lambda b, name=name: later(b, name) for name in LATER}
    found |= {f"{name}, under": lambda b, name=name: under(b, name) for name in UNDER}
    return found
