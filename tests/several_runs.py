"""Runs on the same small job that differ in what a report of several is to tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_line import done, table_of, tiny_job, word_texts

ODD = {"praise": 'praise <b>"$x_1$" & </script>'}
"""A class whose name would be markup where it is not shown as it is."""


def fitted(folder: Path) -> dict[str, Path]:
    """Two runs judged on the same examples, and one of another split; the store must be set."""
    job = tiny_job(folder / "job")
    rows = [(text, ODD.get(label, label)) for text, label in word_texts(45)]
    table = table_of(folder / "odd.csv", rows)
    options = {
        "shallow": ("--keep", "1", "--freeze", "all"),
        "trained": ("--keep", "2", "--freeze", "0", "--epochs", "2"),
        "other": ("--keep", "1", "--freeze", "all", "--seed", "1"),
    }
    for name, given in options.items():
        done("fit", table, "-o", folder / f"{name}.topgraft", "--backbone", job.backbone, *given)
    return {name: folder / f"{name}.topgraft" for name in options}


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file of a run."""
    document = json.loads((folder / name).read_text(encoding="utf-8"))
    change(document)
    (folder / name).write_text(json.dumps(document), encoding="utf-8")


def answering(folder: Path, right: list[bool]) -> None:
    """Make a run say of its untouched examples what is right or wrong as given, its score with it."""

    def untouched(document: dict[str, Any]) -> None:
        classes = len(document["classes"])
        document["groups"] = list(range(len(right)))
        document["targets"] = [i % classes for i in range(len(right))]
        document["predictions"] = [
            t if ok else (t + 1) % classes for t, ok in zip(document["targets"], right, strict=True)
        ]
        document["mistakes"] = []

    changed(folder, "untouched.json", untouched)
    share = sum(right) / len(right)
    changed(folder, "result.json", lambda d: d["score"].update(value=share, n=len(right)))
