"""Every way of reusing a pretrained network, on real weights, for pictures and for texts.

    python benchmarks/ways.py                              all rows; writes docs/ways.md
    python benchmarks/ways.py --tasks glosses --budget 30

What is done is kept in ``build/ways``, one file a row: a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import ROOT, code_digest, machine_lines, markdown_table

from topgraft import demo
from topgraft.console import Console

TASKS = ("clipart", "glosses")
BUDGET = 90.0
PACKAGES = ("topgraft", "torch", "timm", "transformers", "numpy")
INTRODUCTION = """\
# The ways of reuse

Written by `make ways`: `topgraft fit` on the packaged pictures and glosses, each row with `--keep`,
`--freeze` and `--weights` as shown, `--budget {budget:g}` (seconds) and an empty store. Scores are accuracy
in percent on the same untouched fifth of the examples, with their 95 % interval; a part of this size shows
only large differences between rows. Trained parameters include the new head.

A row whose training needs more time than the budget gives it does one epoch: from the inputs, with nothing
frozen, that is the rule for pictures on few cores.
"""


@dataclass(frozen=True)
class Way:
    """A way of reuse, as ``fit`` is told it."""

    name: str
    keep: str
    freeze: str
    weights: str = "auto"


WAYS = (
    Way("initialiser", "all", "0"),
    Way("feature extractor", "all", "all"),
    Way("partly frozen", "all", "67%"),
    Way("fewer layers kept, all frozen", "67%", "all"),
    Way("fewer layers kept, half frozen", "67%", "50%"),
    Way("random values, all frozen (a contrast)", "all", "all", "none"),
)


def run_way(way: Way, source: Any, out: Path, **options: Any) -> dict[str, Any]:
    """One row: ``fit`` this way into ``out``; what it reported, as JSON."""
    from topgraft.features.store import Store
    from topgraft.fit import fit

    console = options.pop("console", None)
    with tempfile.TemporaryDirectory(prefix="topgraft-ways-") as folder:
        run = fit(
            source,
            out,
            store=Store(Path(folder)),
            console=console,
            keep=way.keep,
            freeze=way.freeze,
            weights=way.weights,
            **options,
        )
    return dict(run.result)


def row(way: Way, result: Mapping[str, Any]) -> list[str]:
    """The cells of a row of the table."""
    blocks, score = result["blocks"], result["score"]
    epochs = max(0, len(result["history"] or []) - 1)
    return [
        way.name,
        _named(result["keep"], blocks["kept"]),
        _named(result["freeze"], blocks["frozen"]),
        f"{result['trained_parameters']:,}",
        str(epochs),
        f"{100 * score['value']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})",
        f"{result['seconds']:.0f}",
    ]


def _named(count: int, names: Sequence[str]) -> str:
    return f"{count} (`{names[-1]}`)" if names else "0"


def measured(task: str, way: Way, budget: float, file: Path) -> dict[str, Any]:
    """The result of a row, read from ``file`` where the same code measured it with the same budget."""
    key = {"code": code_digest("src/topgraft"), "budget": budget, "way": [way.keep, way.freeze, way.weights]}
    if file.is_file():
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if record["key"] == key:
            return dict(record["result"])
    source = demo.pictures() if task == "clipart" else demo.glosses()
    with tempfile.TemporaryDirectory(prefix="topgraft-ways-") as folder:
        console = Console(sys.stdout, None)
        result = run_way(way, source, Path(folder) / "run", budget=budget, console=console)
    kept = {
        name: result[name]
        for name in ("keep", "freeze", "blocks", "trained_parameters", "score", "history", "seconds")
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"key": key, "result": kept}), encoding="utf-8")
    new.replace(file)
    return kept


def document(results: Mapping[str, Sequence[Mapping[str, Any]]], budget: float) -> str:
    """The page."""
    header = ["way", "keep", "freeze", "trained parameters", "epochs", "score", "seconds"]
    lines = [INTRODUCTION.format(budget=budget)]
    for task, some in results.items():
        rows = [row(way, result) for way, result in zip(WAYS, some, strict=True)]
        lines += [f"## {task}", "", *markdown_table(header, rows), ""]
    return "\n".join([*lines, "## Machine", "", *machine_lines(PACKAGES)]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for each row")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "ways", help="where results are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "ways.md", help="the page")
    parser.add_argument("--anew", action="store_true", help="forget what was done before")
    asked = parser.parse_args()
    if asked.anew:
        shutil.rmtree(asked.build, ignore_errors=True)
    results = {
        task: [
            measured(task, way, asked.budget, asked.build / f"{task}-{number}.json")
            for number, way in enumerate(WAYS)
        ]
        for task in asked.tasks
    }
    page = document(results, asked.budget)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
