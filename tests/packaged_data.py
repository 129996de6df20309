"""Pieces of the packaged pictures and glosses, from which the tests make their data."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from topgraft import demo


def pictures_of(name: str, start: int, count: int) -> list[Path]:
    """``count`` packaged pictures of one class, sorted by name, from the ``start``-th on."""
    return sorted((demo.pictures() / name).iterdir())[start : start + count]


def glosses_of(names: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """The first ``count`` packaged glosses of each class, with their label, in the order of the table."""
    left = dict.fromkeys(names, count)
    with demo.glosses().open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if left.get(row["label"], 0):
                left[row["label"]] -= 1
                yield row["text"], row["label"]


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write ``rows``, the header first, as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
