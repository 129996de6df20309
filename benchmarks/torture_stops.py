"""Ctrl-C, once and twice, in every stage of a fit; then the same command."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torture_bench import TRACE, Bench
from torture_job import left_behind, passes, stored_rows
from torture_kills import again

MOMENTS = {
    "loading": r"Weights ",
    "pass": r"Engine ",
    "probes": r"One pass  \d",
    "training": r"Cost      training",
    "refit": r"Freeze  ",
    "saving": r"Trained ",
}
"""The line after which Ctrl-C is pressed."""
SOON = 10.0
"""Seconds within which a fit must have ended after Ctrl-C on an idle machine: a step of this job takes
milliseconds, and what takes long is finding out that one is to end."""
LAST = "Stopped. The same command goes on where it was."


@dataclass
class Stop:
    """One fit that was stopped.

    Parameters
    ----------
    stage, presses
        Where, and how often Ctrl-C was pressed.
    status
        What it ended with; 0 where it had ended by then.
    seconds
        From pressing to the end.
    again
        Rows that passed the prefix again afterwards although they were stored.
    wrong
        What is not as it must be, in words.
    """

    stage: str
    presses: int
    status: int = 0
    seconds: float = 0.0
    again: int = 0
    wrong: list[str] = field(default_factory=list)


def stop(bench: Bench, stage: str, presses: int, *, wait: float = 0.0) -> Stop:
    """Press Ctrl-C ``wait`` seconds after a stage has begun, and give the same command again."""
    found = Stop(stage, presses)
    out, store = bench.fresh("stopped")
    counts = out.with_name("counts")
    running = bench.start(out, store, counts=counts)
    running.wait_for(MOMENTS[stage])
    time.sleep(wait)
    pressed = time.monotonic()
    for press in range(presses):
        time.sleep(0.02 * press)
        running.send(signal.SIGINT)
    done = running.end()
    found.status, found.seconds = done.status, round(time.monotonic() - pressed, 1)
    if done.status == 0:
        found.wrong = bench.right(done, out, store)
        return found
    if done.status != 130:
        found.wrong.append(f"ended with {done.status}, not 130")
    if TRACE in done.err:
        found.wrong.append("a traceback instead of a message")
    if not done.err.rstrip().endswith(LAST):
        found.wrong.append("its last line does not say how to go on")
    found.wrong += [f"left behind: {n}" for n in left_behind(out.parent) if n != "work"]
    stored = stored_rows(store, bench.names)
    running = bench.start(out, store, counts=counts)
    found.wrong += [f"then: {w}" for w in bench.right(running.end(), out, store)]
    found.again = again(passes(counts), running, bench.references[True].passes, stored)
    if found.again:
        found.wrong.append(f"{found.again} rows passed the prefix again although they were stored")
    return found


def run_stops(
    bench: Bench, *, done: list[dict[str, Any]], note: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """Every stage, once and twice; each is noted when it has ended."""
    wanted = [(stage, presses) for presses in (1, 2) for stage in MOMENTS]
    for number, (stage, presses) in list(enumerate(wanted))[len(done) :]:
        one = stop(bench, stage, presses, wait=0.03 * (number % 3))
        done.append(asdict(one))
        note(done)
        said = "; ".join(one.wrong) or "the same model"
        print(f"Ctrl-C in {stage}, {presses} x: status {one.status}, {said}", flush=True)
    return done
