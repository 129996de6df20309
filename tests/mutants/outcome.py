"""A pytest plugin that writes down how each test ended: passed, by assertion, or by another error."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


def _append(test: str, ended: str) -> None:
    with Path(os.environ["MUTANT_OUTCOMES"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps([test, ended]) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        kind = call.excinfo.type if call.excinfo else None
        promised = kind is not None and issubclass(kind, (AssertionError, pytest.fail.Exception))
        in_test = promised and call.when == "call"
        if in_test and os.environ["MUTANT_STOP"] == "1":
            item.session.shouldstop = "a test turned red"
        _append(item.nodeid, "assertion" if in_test else f"error ({kind.__name__ if kind else 'unknown'})")
    elif call.when == "call":
        _append(item.nodeid, "passed" if report.passed else "skipped")
    return report
