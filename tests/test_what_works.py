"""The page of what works names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
NAMED = re.compile(r"`(test_\w+\.py)(?:::(test_\w+))?`")


def test_every_test_that_the_page_names_is_there() -> None:
    page = (HERE.parent / "docs" / "what-works.md").read_text(encoding="utf-8")
    named = set(NAMED.findall(page))
    assert len(named) > 20
    gone = [f"{file}::{test}" for file, test in named if not is_there(HERE / file, test)]
    assert gone == []


def is_there(file: Path, test: str) -> bool:
    """Whether there is a file of tests, and in it the test, if one is named."""
    return file.is_file() and (not test or f"def {test}(" in file.read_text(encoding="utf-8"))
