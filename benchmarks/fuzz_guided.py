"""One reader and changed files, guided by coverage: atheris chooses the bytes that changes are drawn from.

    python benchmarks/fuzz_guided.py READER --seconds 60 --corpus build/fuzz/READER --found found.jsonl

Started by ``benchmarks/fuzz.py --engine atheris``, a process a reader, since libFuzzer ends its process. Each
branch of Topgraft's own code counts, and inputs that reach a new one are kept in the corpus, from which the
next run goes on. The changes are those of ``tests/fuzz_changes.py``, applied by ``tests/fuzz_checked.py`` to
a copy in a folder of its own, and never through a link.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
MOST = 10
"""Different failures after which the reader is left."""
LONGEST = 512
"""Bytes that changes are drawn from: three of them take fewer."""


def place_of(error: BaseException) -> str:
    """Where a failure came from, by which those that are one are known: the last line of our own code."""
    cause = error.__cause__ or error
    own = [f for f in traceback.extract_tb(cause.__traceback__) if f"{os.sep}topgraft{os.sep}" in f.filename]
    last = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{type(cause).__name__} {last}"


class Found:
    """What became of the files so far, written down as it comes: the process may end at any moment."""

    def __init__(self, path: Path) -> None:
        self.path, self.counts, self.places = path, Counter[str](), set[str]()
        self.written = 0.0

    def write(self, **line: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def outcome(self, name: str) -> None:
        self.counts[name] += 1
        if time.monotonic() - self.written > 1:
            self.written = time.monotonic()
            self.write(counts=self.counts)

    def failure(self, error: Exception) -> None:
        if (place := place_of(error)) not in self.places:
            self.places.add(place)
            self.write(failure=f"{place}: {error}")
        if len(self.places) >= MOST:
            os._exit(0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("reader")
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--corpus", type=Path, required=True)
    options.add_argument("--found", type=Path, required=True)
    given = options.parse_args()
    given.corpus.mkdir(parents=True, exist_ok=True)
    found = Found(given.found)
    with TemporaryDirectory() as root:
        place = Path(root, "valid", "case")
        place.mkdir(parents=True)
        # what a reader imports only when it opens something is instrumented, too
        with atheris.instrument_imports(include=["topgraft"]):
            from fuzz_changes import Change, changes_of
            from fuzz_checked import Broken, checked
            from fuzz_readers import READERS, SLOW
            from hypothesis import HealthCheck, settings
            from hypothesis import given as drawn

            reader = {**READERS, **SLOW}[given.reader]
            reader.make(place)
            checked(reader, place, [])

        @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @drawn(changes_of(place, turned=reader.turned))
        def hold(changes: Sequence[Change]) -> None:
            try:
                found.outcome(checked(reader, place, changes))
            except Broken as error:
                found.failure(error)

        flags = [f"-max_total_time={given.seconds}", f"-max_len={LONGEST}", "-len_control=0", "-verbosity=0"]
        flags += ["-timeout=0", "-rss_limit_mb=0"]  # the check itself notices hangs, by an alarm, and memory
        atheris.Setup([sys.argv[0], *flags, str(given.corpus)], one_of(hold))
        atheris.Fuzz()


def one_of(hold: Any) -> Any:
    """What libFuzzer calls with bytes."""

    def one(data: bytes) -> None:
        hold.hypothesis.fuzz_one_input(data)

    return one


if __name__ == "__main__":
    main()
