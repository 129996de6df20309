"""Fits that are killed at random moments, and the same command again until it ends."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torture_bench import PAUSE, Bench, Reference, trained_epochs
from torture_job import MARKS, Done, Running, differences, passes, stored_rows

TWICE = 5
"""Each so-manieth disturbed fit is killed again while it goes on."""
PLANNED = 4
"""Each so-manieth repeats the reference's plan (``--plan``), which leaves the search out."""
STAGES = tuple(MARKS)
MOST_TRIES = 4


@dataclass
class Killed:
    """One disturbed fit.

    Parameters
    ----------
    number, stage, share
        Which, and how far into which stage it was killed, as a share of that stage's time.
    planned
        Whether it repeated the reference's plan.
    kills
        How often it was killed.
    resumed
        What the last process said that it found done, by stage.
    again
        Rows that passed the first block although an earlier process had stored what came out.
    in_flight
        Rows that passed it in a killed process and were not stored yet.
    wrong
        In what the result differs from the reference, in words; empty where it is the same.
    """

    number: int
    stage: str
    share: float
    planned: bool
    kills: int = 0
    resumed: dict[str, int] = field(default_factory=dict)
    again: int = 0
    in_flight: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Campaign:
    """Disturbed fits of one job.

    Parameters
    ----------
    bench
        Where they run.
    seed
        Of the random moments.
    """

    bench: Bench
    seed: int = 0

    @property
    def references(self) -> Mapping[bool, Reference]:
        """Without and with the plan."""
        return self.bench.references

    def kill(self, number: int, total: int) -> Killed:
        """One fit, killed in its stage and run to its end."""
        stream = random.Random(f"{self.seed} {number}")
        planned = number % PLANNED == PLANNED - 1
        stages = [stage for stage in STAGES if stage in self.references[planned].stages]
        stage = stages[number % len(stages)]
        each = max(1, total // len(STAGES))
        share = ((number // len(STAGES)) % each + stream.random()) / each
        for attempt in range(MOST_TRIES):
            one = Killed(number, stage, round(share, 3), planned)
            if self._disturb(one, stream):
                return one
            share *= 0.6 if attempt else 0.8  # it had ended by then
        raise RuntimeError(f"fit {number} always ended before it was killed in {stage}")

    def _disturb(self, one: Killed, stream: random.Random) -> bool:
        began = time.monotonic()
        reference, names = self.references[one.planned], self.bench.names
        out, store = self.bench.fresh("killed")
        counts, limit = out.with_name("counts"), reference.passes

        def start() -> Running:
            plan = self.bench.plan if one.planned else ()
            return self.bench.job.start(out, store, *plan, counts=counts, pause=PAUSE)

        running = start()
        if not killed_in(running, one.stage, one.share, reference.stages):
            return False
        moments = [(one.stage, one.share)]
        if one.number % TWICE == TWICE - 1:
            later = [s for s in STAGES[STAGES.index(one.stage) :] if s in reference.stages]
            moments.append((stream.choice(later), stream.random()))
        expected = self._expected(out)
        one.kills, before = 1, stored_rows(store, names)
        one.in_flight += self._lost(counts, running, Counter(), before)
        for stage, share in moments[1:]:
            running, stored = start(), before
            if killed_in(running, stage, share, reference.stages):
                one.again += again(passes(counts), running, limit, stored)
                before = stored_rows(store, names)
                one.in_flight += self._lost(counts, running, stored, before)
                one.kills += 1
                expected = self._expected(out)
        if (out / "run.json").exists() and json.loads((out / "run.json").read_text())["status"] == "finished":
            one.wrong = differences(out, reference.folder)  # it was killed after its last word
            one.seconds = time.monotonic() - began
            return True
        running = start()
        done = running.end()
        one.again += again(passes(counts), running, limit, before)
        one.wrong = self._judge(one, done, out, reference.folder, expected)
        one.seconds = round(time.monotonic() - began, 1)
        return True

    def _lost(self, counts: Path, running: Running, before: Counter[str], after: Counter[str]) -> int:
        """Rows that a killed process passed and did not store."""
        passed = passes(counts).get(running.process.pid, Counter())
        return sum((passed - (after - before)).values())

    def _expected(self, out: Path) -> set[str]:
        """Stages of which a killed process left something that the next one must find."""
        work = out / "work"
        found = set()
        if (out / "evidence.json").exists():
            found |= {"pass", "probe"}
        for stage, pattern in (("training", "trial-*.safetensors"), ("refit", "refit*.safetensors")):
            if any(trained_epochs(path) for path in work.glob(pattern)):
                found.add(stage)
        if (out / "plan.json").exists():
            decisions = json.loads((out / "plan.json").read_text())["decisions"]
            if "candidate" not in decisions and any(name.startswith("short_") for name in decisions):
                found.add("search")
        return found

    def _judge(self, one: Killed, done: Done, out: Path, reference: Path, expected: set[str]) -> list[str]:
        if done.status:
            return [f"the same command ended with {done.status}: {done.message}"]
        one.resumed = {entry["stage"]: entry["items_reused"] for entry in done.json["resumed"]}
        missing = sorted(expected - one.resumed.keys())
        wrong = [f"`resumed` lacks {stage}" for stage in missing]
        if one.again:
            wrong.append(f"{one.again} rows passed the prefix again although they were stored")
        return wrong + differences(out, reference)


def killed_in(running: Running, stage: str, share: float, stages: Mapping[str, tuple[float, float]]) -> bool:
    """Kill a process (signal 9) when ``share`` of a stage's usual time is gone; whether it still ran."""
    if not running.wait_for(MARKS[stage][0]):
        running.end()
        return False
    start, end = stages[stage]
    time.sleep(share * (end - start))
    running.send(signal.SIGKILL)
    return running.end().status == -signal.SIGKILL


def again(
    counted: Mapping[int, Counter[str]], running: Running, limit: Counter[str], stored: Counter[str]
) -> int:
    """Passes of a process beyond those left to do: all of an undisturbed fit, less what was stored."""
    mine = counted.get(running.process.pid, Counter())
    left = Counter({row: limit[row] - stored[row] for row in limit})
    return sum(max(0, mine[row] - left[row]) for row in mine if row in limit)


def run_kills(
    bench: Bench, total: int, *, done: list[dict[str, Any]], note: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """All disturbed fits that ``done`` lacks; each is noted when it has ended."""
    campaign = Campaign(bench)
    for number in range(len(done), total):
        one = campaign.kill(number, total)
        done.append(asdict(one))
        note(done)
        said = "the same model" if not one.wrong else "; ".join(one.wrong)
        twice = f", {one.kills} kills" if one.kills > 1 else ""
        print(f"kill {number + 1}/{total} in {one.stage} at {one.share:.2f}{twice}: {said}", flush=True)
    return done
