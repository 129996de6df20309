"""Is the advice good? Advised keep and freeze beside a grid of full trainings, task by task.

    python benchmarks/study.py                        every task, three seeds; writes docs/study.md
    python benchmarks/study.py --tasks digits fonts   some of them; the page tells of all that are done
    python benchmarks/study.py --seeds 1              one of the draws of examples
    python benchmarks/study.py --jobs 2               two draws at once, each with half of the cores
    python benchmarks/study.py --page                 the page anew from what is done

Results lie in ``benchmarks/study_results``, one file a task, and are committed, so that several sittings add
up; each training is kept when it ends, and a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT
from study_jobs import side_by_side
from study_page import document
from study_tasks import TASKS, Task, rows_of, tables, write_rows

RESULTS = ROOT / "benchmarks" / "study_results"
SEEDS = 3
KEEPS, SHORT, SHARES = 6, 8, (0.0, 1 / 3, 2 / 3, 1.0)
"""Of the grid: depths, blocks up to which it is every depth, shares of the kept blocks that are frozen."""
SHARE = 1 / 5
"""Of the grid's time: what the advice may cost."""
SAME = {"augment": "none", "mixup": 0.0, "taps": "none", "soup": 1, "resize": "pretrained"}
"""Told to every training, so that they differ in keep and freeze alone."""


def grid(blocks: int) -> list[tuple[int, int]]:
    """Pairs of keep and freeze; all there are for a short chain.

    Examples
    --------
    >>> len(grid(18)), grid(18)[:4], len(grid(7)), len(grid(3))
    (24, [(3, 0), (3, 1), (3, 2), (3, 3)], 25, 9)
    """
    if blocks < KEEPS:
        return [(keep, freeze) for keep in range(1, blocks + 1) for freeze in range(keep + 1)]
    depths = blocks if blocks <= SHORT else KEEPS
    keeps = [round(blocks * (k + 1) / depths) for k in range(depths)]
    return [(keep, freeze) for keep in keeps for freeze in sorted({round(keep * s) for s in SHARES})]


def trained(
    task: Task, learned: Path, untouched: Path, store: Path, seed: int, **told: Any
) -> dict[str, Any]:
    """One fit: what it chose, what it took, and for each untouched example whether it is right."""
    from topgraft import Store, fit, open_model, read
    from topgraft.predict import Predictor, predicted_classes
    from topgraft.predict import rows_of as inputs_of

    options = {**SAME, "seed": seed, "size": task.size, "epochs": task.epochs, **told}
    with tempfile.TemporaryDirectory(prefix="topgraft-study-") as folder:
        began = time.monotonic()
        run = fit(
            learned,
            Path(folder) / "run",
            test=untouched,
            label="label",
            **{task.column: task.column},
            store=Store(store),
            **options,
        )
        seconds = time.monotonic() - began
        model = open_model(run.folder)
        part = read(untouched, label="label", **{task.column: task.column})
        found = predicted_classes(Predictor(model).predict(inputs_of(part)), part.classes)
    right = np.asarray(found) == np.asarray(part.targets)
    assert abs(float(right.mean()) - run.score) < 1e-9, "fit scored other examples"
    return {
        "keep": run.keep,
        "freeze": run.freeze,
        "epochs": max(0, len(run.result["history"] or []) - 1),
        "seconds": round(seconds, 2),
        "correct": "".join(map(str, right.astype(int))),
    }


def keep_apart(task: Task, learned: Path, untouched: Path) -> None:
    """Take out of a table what is, exactly or nearly, among the untouched examples too."""
    from topgraft import read
    from topgraft.data.sources import overlap

    told = {"label": "label", task.column: task.column}
    pairs = overlap(read(untouched, **told), read(learned, **told))
    if pairs:
        there = {row for _, row in pairs}
        with learned.open(encoding="utf-8", newline="") as file:
            _, *lines = csv.reader(file)
        write_rows(learned, task.column, [row for n, row in enumerate(lines) if n not in there])


def measure(task: Task, build: Path, results: Path, seeds: Sequence[int]) -> None:
    """Everything of a task that is not there yet."""
    from topgraft import load

    file = results / f"{task.name}.json"
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    folder = build / task.name
    rows = rows_of(task, folder)
    told = {"modality": task.modality, "near": task.near, "examples": task.examples}
    told |= {"untouched": task.untouched, "size": task.size, "epochs": task.epochs, "said": task.said}
    if record.get("told") not in (None, told):
        raise SystemExit(f"{file} holds another form of {task.name}; move it away to measure anew.")
    record |= {"told": told, "seeds": record.get("seeds", {})}
    blocks = len(load(modality=task.modality).chain)
    for seed in seeds:
        learned, untouched = tables(task, rows, seed, folder)
        keep_apart(task, learned, untouched)
        one = record["seeds"].setdefault(str(seed), {"grid": [], "version": version("topgraft")})
        done = {(cell["keep"], cell["freeze"]) for cell in one["grid"]}
        for keep, freeze in grid(blocks):
            if (keep, freeze) in done:
                continue
            outcome = trained(
                task,
                learned,
                untouched,
                folder / f"store-{seed}",
                seed,
                keep=keep,
                freeze=freeze,
                budget=3600,
            )
            one["grid"].append(outcome)
            _keep(file, record, f"{task.name} seed {seed}", outcome)
        if "advised" not in one:
            spent = sum(cell["seconds"] for cell in one["grid"])
            with tempfile.TemporaryDirectory(prefix="topgraft-study-") as store:
                outcome = trained(
                    task, learned, untouched, Path(store), seed, budget=max(10.0, 0.9 * SHARE * spent)
                )
            one["advised"] = outcome
            one["cuts"] = cuts_of(task, learned, seed, folder / f"store-{seed}")
            _keep(file, record, f"{task.name} seed {seed}, advised", outcome)


def cuts_of(task: Task, learned: Path, seed: int, store: Path) -> list[dict[str, float]]:
    """What each cut's probe, LogME and nearest neighbours say of the examples learned from."""
    import topgraft as tg
    from topgraft.transferability import secondary

    data = tg.read(learned, label="label", **{task.column: task.column})
    backbone = tg.load(modality=data.modality, size=task.size)
    features, _ = tg.one_pass(backbone, data, tg.Store(store))
    targets = np.asarray(data.targets)
    fold_of, _, _ = tg.assign_folds(targets, data.groups, seed=seed)
    evidence = tg.probe(features, targets, fold_of, len(data.classes), groups=data.groups)
    beside = secondary(features, targets, fold_of, seed=seed)
    return [
        {
            "keep": cut.keep,
            "probe": round(cut.score, 5),
            "logme": round(beside[cut.keep].logme, 5),
            "neighbours": round(beside[cut.keep].neighbours, 5),
        }
        for cut in evidence.cuts
    ]


def _keep(file: Path, record: Mapping[str, Any], what: str, outcome: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    new.replace(file)
    right = outcome["correct"]
    print(
        f"{what}: keep {outcome['keep']}, freeze {outcome['freeze']}: "
        f"{100 * right.count('1') / len(right):.1f} %, {outcome['seconds']:.0f} s",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)), help="draws of examples")
    parser.add_argument("--jobs", type=int, default=1, help="draws at once")
    parser.add_argument("--page", action="store_true", help="only the page, from what is done")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "study", help="data and stores")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "study.md", help="the page")
    asked = parser.parse_args()
    if not asked.page and asked.jobs > 1:
        for name in asked.tasks:
            rows_of(TASKS[name], asked.build / name)
        side_by_side(asked.tasks, asked.seeds, asked.build, asked.results, asked.jobs)
    elif not asked.page:
        for name in asked.tasks:
            measure(TASKS[name], asked.build, asked.results, asked.seeds)
    records = {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name in TASKS
        if (file := asked.results / f"{name}.json").is_file()
    }
    text = document(records)
    asked.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
