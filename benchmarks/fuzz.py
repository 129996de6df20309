"""Changed files at every reader, and requests at the service, for as long as one likes.

    python benchmarks/fuzz.py [--minutes 10] [--reader graft]

Each reader gets the same share of the time; the service is asked afterwards. The exit status is 1 if anything
failed; what did is printed as the changes that did it, which belong into ``FOUND`` of tests/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
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


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--reader", choices=[*READERS, *SLOW])
    given = options.parse_args()
    readers = {n: r for n, r in {**READERS, **SLOW}.items() if given.reader in (None, n)}
    failed = False
    with tempfile.TemporaryDirectory() as store:
        os.environ["TOPGRAFT_CACHE"] = store
        for name, reader in readers.items():
            counts, failures = fuzz(reader, given.minutes * 60 / (len(readers) + 1))
            told = f"{counts['opened']:8,} opened {counts['refused']:8,} refused {len(failures):4} failed"
            print(f"{name:14} {told}", flush=True)
            for one in failures:
                print(f"    {one:.500}")
            failed = failed or bool(failures)
    if given.reader is None:
        asked = {**os.environ, "TOPGRAFT_FUZZ_EXAMPLES": str(int(20 * given.minutes))}
        command = [sys.executable, "-m", "pytest", "-q", HERE.parent / "tests" / "test_serve_fuzzed.py"]
        failed = bool(subprocess.run(command, env=asked, cwd=HERE.parent).returncode) or failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
