"""Draws of the study side by side, each a process with cores of its own, in which all its times are taken."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STUDY = Path(__file__).with_name("study.py")


def is_whole(draw: Any) -> bool:
    """Whether a draw has its grid, its advice and what foretells it."""
    return isinstance(draw, dict) and "cuts" in draw


def merged(results: Path, part: Path) -> None:
    """Put the draws that are whole in one file of a task into that task's file of results."""
    new, place = json.loads(part.read_text(encoding="utf-8")), results / part.name
    known = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {**new, "seeds": {}}
    if known["told"] != new["told"]:
        raise SystemExit(f"{place} holds another form of the task; move it away to measure anew.")
    known["seeds"] |= {seed: draw for seed, draw in new["seeds"].items() if is_whole(draw)}
    known["seeds"] = dict(sorted(known["seeds"].items()))
    if known["seeds"]:
        written = place.with_suffix(".new")
        written.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        written.replace(place)


def lacking(tasks: Sequence[str], seeds: Sequence[int], results: Path) -> list[tuple[str, int]]:
    """Draws that are not whole in the results, task by task."""
    found = []
    for task in tasks:
        file = results / f"{task}.json"
        done = json.loads(file.read_text(encoding="utf-8"))["seeds"] if file.is_file() else {}
        found += [(task, seed) for seed in seeds if not is_whole(done.get(str(seed)))]
    return found


def side_by_side(tasks: Sequence[str], seeds: Sequence[int], build: Path, results: Path, jobs: int) -> None:
    """Measure what is lacking, so many draws at once; each training is kept when it ends."""
    waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for one in lacking(tasks, seeds, results):
        waiting.put(one)
    cores = sorted(os.sched_getaffinity(0))
    merging, failed = threading.Lock(), []

    def work(number: int) -> None:
        mine = cores[number::jobs] or cores
        while True:
            try:
                task, seed = waiting.get_nowait()
            except queue.Empty:
                return
            place = build / "draws" / f"{task}-{seed}"
            data = place / "data" / task
            if not data.is_dir():
                kept_out = shutil.ignore_patterns("store-*")
                shutil.copytree(build / task, data, ignore=kept_out)
            command = [sys.executable, STUDY, "--tasks", task, "--seeds", str(seed), "--jobs", "1"]
            command += ["--build", place / "data", "--results", place, "--out", place / "study.md"]
            environment = os.environ | {"OMP_NUM_THREADS": str(len(mine))}
            ended = subprocess.run(["taskset", "-c", ",".join(map(str, mine)), *command], env=environment)
            if ended.returncode:
                failed.append(f"{task}, draw {seed}")
                continue
            with merging:
                merged(results, place / f"{task}.json")
            shutil.rmtree(place / "data")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"These ended with an error: {'; '.join(failed)}")
