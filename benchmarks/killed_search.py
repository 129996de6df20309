"""A search that is killed again and again, anywhere, until it ends with the bits of an undisturbed one.

    python benchmarks/killed_search.py --minutes 120

Each fit is a process forked from this one, which has loaded everything already, so that a kill costs little
and there can be many. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture_job import Job, differences

MOST = 40
"""Kills of one search, after which it may end."""
PATIENCE = 900.0
"""Seconds of a processor after which a fit that nobody kills is believed to run on for ever."""


@dataclass
class Search:
    """A fit whose processes were killed.

    Parameters
    ----------
    kills
        How many.
    between
        Kills in which the search had begun and was not decided.
    tried
        Short trainings that it made.
    wrong
        In what it differs from an undisturbed one, in words.
    """

    kills: int = 0
    between: int = 0
    tried: int = 0
    wrong: list[str] = field(default_factory=list)


def forked(job: Job, out: Path, store: Path, *, seconds: float) -> int:
    """Exit status of a fit in a forked process that is killed (signal 9, so -9) after so much processor time.

    Seconds of a processor, not of a clock: so the moments are the same whatever else the machine does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12: forking beside threads
        process = os.fork()
    if not process:
        status = 1
        try:
            status = _fit(job, out, store)
        finally:
            os._exit(status)
    while spent(process) < seconds:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def spent(process: int) -> float:
    """Seconds of a processor that a process has used; it has not been waited for, so that there is one."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fit(job: Job, out: Path, store: Path) -> int:
    """What the forked process does."""
    import torch

    from topgraft.cli import main

    os.environ.update(job.environment(store))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    torch.set_num_threads(1)
    try:
        main([str(argument) for argument in job.command(out)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 1


def undisturbed(job: Job, place: Path) -> tuple[Path, float]:
    """The folder of a fit that nobody kills, and the seconds of a processor that it took."""
    import accelerate  # noqa: F401 (loaded here once, instead of by each process)
    import scipy.stats  # noqa: F401

    import topgraft.fit  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status := forked(job, place / "run", place / "store", seconds=PATIENCE):
        raise RuntimeError(f"the undisturbed fit ended with {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return place / "run", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def killed(
    job: Job, place: Path, reference: Path, stream: random.Random, *, usual: float, most: int = MOST
) -> Search:
    """A fit that is killed at random moments and goes on each time, until it has ended.

    Parameters
    ----------
    job
        What is fitted.
    place
        An empty folder.
    reference
        What an undisturbed fit left.
    stream
        Of the moments.
    usual
        Seconds of a processor that an undisturbed fit takes.
    most
        Kills after which it may end.
    """
    one, out, known = Search(), place / "run", dict[str, Any]()
    while True:
        limit = stream.uniform(0, usual) if one.kills < most else PATIENCE
        status = forked(job, out, place / "store", seconds=limit)
        decisions = _decisions(out)
        one.wrong += decided_anew(known, decisions)
        known = decisions
        if status != -signal.SIGKILL:
            break
        one.kills += 1
        begun = any(name.startswith("short_") for name in decisions)
        one.between += begun and "candidate" not in decisions
    one.tried = sum(name.startswith("short_") for name in known)
    if status:
        one.wrong.append(f"ended with {status} after {one.kills} kills")
    one.wrong += differences(out, reference)
    return one


def decided_anew(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Decisions of a plan that a later process lost or made again, in words; a short training is one, too.

    Examples
    --------
    >>> decided_anew({"keep": 3, "short_2_4": 0.5}, {"keep": 3, "short_2_4": 0.4, "seeds": 3})
    ['short_2_4 was decided anew']
    """
    return [f"{name} was decided anew" for name, value in before.items() if after.get(name) != value]


def _decisions(out: Path) -> dict[str, Any]:
    plan = out / "plan.json"
    found: dict[str, Any] = json.loads(plan.read_text())["decisions"] if plan.is_file() else {}
    return found


def told(every: Sequence[Search]) -> str:
    """What became of all of them."""
    kills, between = sum(one.kills for one in every), sum(one.between for one in every)
    tried, wrong = max((one.tried for one in every), default=0), sum(bool(one.wrong) for one in every)
    return (
        f"{len(every)} searches of {tried} short trainings, {kills} kills, {between} amid the search: "
        f"{wrong} ended with other bits"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120, help="no further search begins after these")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    end, every = time.monotonic() + 60 * asked.minutes, list[Search]()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="killed-") as folder:
        job = Job(Path(folder))
        assert job.data.is_dir()
        (Path(folder) / "reference").mkdir()
        reference, usual = undisturbed(job, Path(folder) / "reference")
        while time.monotonic() < end:
            place = Path(folder) / str(len(every))
            place.mkdir()
            stream = random.Random(f"{asked.seed} {len(every)}")
            every.append(killed(job, place, reference, stream, usual=usual))
            print(f"{len(every)}: {every[-1]}", flush=True)
    print(told(every))
    sys.exit(1 if any(one.wrong for one in every) else 0)


if __name__ == "__main__":
    main()
