"""The page of what works names tests that are there, and leaves no cell open."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "what-works.md"
NAMED = re.compile(r"`(test_\w+\.py)(?:::(test_\w+))?`")
TASKS = ("One label an example", "Several labels an example", "Numbers to predict", "Ordered classes")
KINDS = ["pictures", "texts", "sounds", "rows", "arrays", "tests"]


def sections() -> dict[str, list[list[str]]]:
    """The cells of the table below each heading, its header first."""
    found: dict[str, list[list[str]]] = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        lines = [line for line in rest.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        found[title] = [row for number, row in enumerate(cells) if number != 1]
    return found


@cache
def defined_in(file: str) -> frozenset[str]:
    """Names of the tests in a file; none if it is not there."""
    path = HERE / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(NAMED.findall(PAGE.read_text(encoding="utf-8")))
    assert len(named) > 40
    gone = [f"{file}::{test}" for file, test in sorted(named) if not is_there(file, test)]
    assert gone == []


def is_there(file: str, test: str) -> bool:
    """Whether there is a file of tests, and in it the test, if one is named."""
    return test in defined_in(file) if test else bool(defined_in(file))


def test_no_cell_is_left_open() -> None:
    for title, (header, *rows) in sections().items():
        assert rows, title
        for row in rows:
            assert len(row) == len(header), (title, row)
            assert all(row), (title, row)
            assert not any("not tested" in cell for cell in row), (title, row)


def test_each_task_has_every_interface_and_each_row_its_tests() -> None:
    found = {task: sections()[task] for task in TASKS}
    interfaces = [{re.split(r"[,:(]", row[0])[0] for row in rows[1:]} for rows in found.values()]
    for header, *rows in found.values():
        assert header[1:] == KINDS
        for row in rows:
            assert set(row[1:-1]) <= {"real", "small", "refused"}, row
            assert NAMED.search(row[-1]), row
    assert {
        "command line",
        "Python",
        "`TransferFeatures`",
        "PyTorch",
        "Lightning",
        "LoRA",
    } <= set.intersection(*interfaces)
