"""Changed files at every reader, and requests at the service, for as long as one likes.

    python benchmarks/fuzz.py [--minutes 10] [--reader graft] [--engine atheris]

Each reader gets the same share of the time; the service is asked afterwards. The exit status is 1 if anything
failed; what did is printed as the changes that did it, which belong into ``FOUND`` of tests/test_fuzz.py.
Hypothesis draws the changes at random. With ``--engine atheris`` they follow from bytes that are chosen by
what they reach in Topgraft's code (``fuzz_guided.py``); what reached something new is kept in ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from fuzz_changes import Change, changes_of  # noqa: E402 (lies in tests)
from fuzz_checked import Broken, Reader, checked  # noqa: E402 (the same)
from fuzz_readers import READERS, SLOW  # noqa: E402 (the same)
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402

MOST = 10
"""Failures of one reader after which it is left."""


class Over(BaseException):
    """The time is."""


def fuzz(reader: Reader, seconds: float) -> tuple[Counter[str], list[str]]:
    """How often changed files were opened and refused, and what failed."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as root:
        place = Path(root, "valid", "case")
        place.mkdir(parents=True)
        reader.make(place)
        reader.open(place)  # what is loaded then loads nothing later
        end = time.monotonic() + seconds

        @settings(
            max_examples=10**7,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(changes_of(place, turned=reader.turned))
        def hold(changes: Sequence[Change]) -> None:
            if time.monotonic() > end or len(failures) >= MOST:
                raise Over
            try:
                counts[checked(reader, place, changes)] += 1
            except Broken as error:
                failures.append(str(error))

        with contextlib.suppress(Over):
            hold()
    return counts, failures


def guided(name: str, seconds: float) -> tuple[Counter[str], list[str]]:
    """The same in a process of its own, guided by coverage."""
    corpus = HERE.parent / "build" / "fuzz" / name.replace(" ", "-")
    with tempfile.TemporaryDirectory() as root:
        found = Path(root, "found.jsonl")
        command = [sys.executable, str(HERE / "fuzz_guided.py"), name, "--seconds", str(max(1, int(seconds)))]
        # what libFuzzer leaves of a process that died lies where it was started
        done = subprocess.run(
            [*command, "--corpus", str(corpus), "--found", str(found)],
            cwd=root,
            capture_output=True,
            text=True,
        )
        lines = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    counts = Counter[str]()
    for line in lines:
        counts = Counter(line["counts"]) if "counts" in line else counts
    failures = [line["failure"] for line in lines if "failure" in line]
    if done.returncode or not counts:
        failures.append(f"the process ended with {done.returncode}: {done.stderr[-1500:]}")
    return counts, failures


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--reader", choices=[*READERS, *SLOW])
    options.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    given = options.parse_args()
    if given.engine == "atheris" and find_spec("atheris") is None:
        print("atheris is not installed; `make fuzz ENGINE=atheris` does that.", file=sys.stderr)
        return 2
    readers = {n: r for n, r in {**READERS, **SLOW}.items() if given.reader in (None, n)}
    failed = False
    with tempfile.TemporaryDirectory() as store:
        os.environ["TOPGRAFT_CACHE"] = store
        for name, reader in readers.items():
            seconds = given.minutes * 60 / (len(readers) + 1)
            counts, failures = guided(name, seconds) if given.engine == "atheris" else fuzz(reader, seconds)
            told = f"{counts['opened']:8,} opened {counts['refused']:8,} refused {len(failures):4} failed"
            print(f"{name:14} {told}", flush=True)
            for one in failures:
                print(f"    {one:.500}")
            failed = failed or bool(failures)
    if given.reader is None and given.engine == "hypothesis":
        asked = {**os.environ, "TOPGRAFT_FUZZ_EXAMPLES": str(int(20 * given.minutes))}
        command = [sys.executable, "-m", "pytest", "-q", HERE.parent / "tests" / "test_serve_fuzzed.py"]
        failed = bool(subprocess.run(command, env=asked, cwd=HERE.parent).returncode) or failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
