"""Topgraft beside logistic regression and a plain PyTorch loop, on the packaged pictures and glosses.

    python benchmarks/versus.py                                five seeds of both tasks; writes docs/versus.md
    python benchmarks/versus.py --tasks glosses --seeds 1 --budget 60

What is done is kept in ``build/versus``, one file a task, seed and part: a killed run goes on where it was.
The exit status is 1 if Topgraft does not hold its promise.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT, code_digest, machine_lines, markdown_table
from paired import Difference, Judged, compare, mean_score

OURS, LOGISTIC, LOOP = "Topgraft", "logistic regression", "last block, plain loop"
METHODS = (OURS, LOGISTIC, LOOP)
TASKS = ("clipart", "glosses")
PARTS = {"clipart": 5, "glosses": 5}
"""Into how many the examples are dealt for each seed; one is untouched, the rest is for everything else."""
TURNS = {"clipart": 5, "glosses": 1}
"""How many of the parts are untouched in turn."""
BUDGET = 300.0
PACKAGES = ("topgraft", "torch", "timm", "transformers", "scikit-learn", "numpy")
MARGIN = -1.0
"""Points that the interval's lower end must lie above."""
INTRODUCTION = """\
# Topgraft beside two peers

Written by `make versus`. Accuracy in percent on untouched data. Each seed deals the examples into fifths,
stratified, duplicates kept on one side; one fifth is untouched, the rest is for every choice and training,
the same for every method. The pictures are few (129 show no difference under 6 points), so there each fifth
is untouched in turn, with everything done anew; of the texts it is one fifth a seed.
"""
HOW = """\
## How it was done

- **Topgraft**: `topgraft fit` with its defaults and `--budget {budget:g}` (seconds), from reading the data
  to the saved model, which then predicts the untouched part.
- **Logistic regression**: scikit-learn's, on standardised features of the last layer (pictures: average
  over places; texts: mean over real tokens), C from {least:g} to {most:g} by 5-fold cross-validation on the
  development part.
- **Last block, plain loop**: everything before the last old block is frozen and computed once, so that
  there is no augmentation. That block (`blocks.6` and `conv_head` of EfficientNet-Lite0; the last layer of
  MiniLM) and a new linear head are trained by AdamW along a cosine, batch norms held, rates {rates} (the
  head ten times as fast), up to {epochs} epochs, stopped after {patience} without a better score on a fifth
  of the development part. With the best rate and number of epochs it is trained again on the whole
  development part.
- Weights and split are the same for all. The peers read pictures as the weights were made (the middle,
  cropped), and run the networks by their own code. Topgraft measures by itself whether pictures are better
  squashed; how it resized them stands in the table.
- The better peer of a task is the one with the higher mean over all seeds, on the same untouched data,
  which favours it.
- Intervals: 10,000 bootstrap draws of the paired difference. A draw takes seeds with replacement and,
  independently, groups of duplicates from all examples with replacement; a group counts as often as it was
  drawn in every seed that has it, since parts of different seeds share examples (the pigeonhole bootstrap,
  Owen 2007, which errs to the wide side). 95 % of the draws lie inside. Over both tasks: the mean of two
  independent draws.
"""


@dataclass
class Task:
    """One of the packaged data sets, read once."""

    name: str

    @property
    def source(self) -> Path:
        from topgraft import demo

        return demo.pictures() if self.name == "clipart" else demo.glosses()

    @cached_property
    def data(self) -> Any:
        from topgraft.data import read

        return read(self.source)

    @cached_property
    def seen(self) -> Any:
        from peers import see

        from topgraft.backbones import load

        return see(load(None, modality=self.data.modality), self.data)


def table_of(data: Any, file: Path) -> Path:
    """Labelled examples as a table of texts, or of paths of pictures, and labels."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["text" if data.modality == "text" else "path", "label"])
        rows.writerows((str(i), data.classes[t]) for i, t in zip(data.inputs, data.targets, strict=True))
    return file


def run_topgraft(
    task: Task, seed: int, budget: float, development: Any, untouched: Any
) -> tuple[Any, dict[str, Any]]:
    """``fit`` from its source to the saved model, with an empty store; what that model predicts."""
    from topgraft.features.store import Store
    from topgraft.fit import fit
    from topgraft.predict import Predictor, predicted_classes, rows_of
    from topgraft.saved import open_model

    part = task.data.subset(untouched)
    column = "text" if part.modality == "text" else "path"
    with tempfile.TemporaryDirectory(prefix="topgraft-versus-") as folder:
        run = fit(
            table_of(task.data.subset(development), Path(folder) / "development.csv"),
            Path(folder) / "run",
            test=table_of(part, Path(folder) / "untouched.csv"),
            label="label",
            **{column: column},
            store=Store(Path(folder) / "store"),
            budget=budget,
            seed=seed,
        )
        model = open_model(run.folder)
        found = predicted_classes(Predictor(model).predict(rows_of(part)), model.classes)
    right = float((found == part.targets).mean())
    assert abs(right - run.score) < 1e-9, "fit scored other examples than those compared here"
    history = run.result["history"] or []
    told = {
        "keep": run.keep,
        "freeze": run.freeze,
        "blocks": len(run.result["blocks"]["all"]),
        "resize": run.result["resize"],
        "epochs": max(0, len(history) - 1),
        "reasons": run.result["reasons"],
        "skipped": run.result["skipped"],
    }
    return found, told


def run_method(
    method: str, task: Task, seed: int, budget: float, parts: tuple[Any, Any]
) -> tuple[Any, dict[str, Any]]:
    """Predictions of one method for the untouched part, and what it chose."""
    from peers import fine_tune, logistic

    data, (development, untouched) = task.data, parts
    if method == OURS:
        return run_topgraft(task, seed, budget, development, untouched)
    if method == LOGISTIC:
        features = task.seen.features.numpy()
        return logistic(features, data.targets, data.groups, development, untouched, seed=seed)
    return fine_tune(task.seen, data.targets, data.groups, development, untouched, seed=seed)


def measure(
    task: Task, seed: int, turn: int, budget: float, file: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Results of every method for one task, seed and part; read from ``file`` where they are there."""
    from topgraft.data import assign_folds

    made_from = {
        "data": task.data.fingerprint,
        "task": task.name,
        "seed": seed,
        "parts": PARTS[task.name],
        "turn": turn,
    }
    record: dict[str, Any] = {"made_from": made_from, "methods": {}}
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        record = found if found["made_from"] == made_from else record
    part_of, _, _ = assign_folds(task.data.targets, task.data.groups, folds=PARTS[task.name], seed=seed)
    parts = (np.flatnonzero(part_of != turn), np.flatnonzero(part_of == turn))
    record["groups"] = task.data.groups[parts[1]].tolist()
    for method in METHODS:
        code = code_digest("src/topgraft") if method == OURS else code_digest("benchmarks/peers.py")
        key = {"code": code, "budget": budget if method == OURS else None}
        if record["methods"].get(method, {}).get("key") == key:
            continue
        if method != OURS:
            _ = task.seen  # made once for all seeds; its time is told by itself
        began = time.monotonic()
        predictions, told = run_method(method, task, seed, budget, parts)
        seconds = time.monotonic() - began
        if method != OURS:
            told["frozen_seconds"] = task.seen.seconds
        correct = predictions == task.data.targets[parts[1]]
        record["methods"][method] = {
            "key": key,
            "correct": correct.astype(int).tolist(),
            "seconds": seconds,
            "told": told,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(record), encoding="utf-8")
        new.replace(file)
        right = f"{100 * correct.mean():.1f} % in {seconds:.0f} s"
        say(f"{task.name} seed {seed}, part {turn + 1}: {method} {right}")
    return record


def judged_of(turns: Sequence[Mapping[str, Any]]) -> Judged:
    """What the statistics need of the records of one seed: all its untouched examples together."""
    correct = {
        method: np.concatenate([np.array(r["methods"][method]["correct"], dtype=bool) for r in turns])
        for method in METHODS
    }
    groups = np.concatenate([np.array(r["groups"]) for r in turns])
    return Judged(turns[0]["made_from"]["seed"], groups, correct)


def by_seed(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The records of each seed, seeds in order."""
    seeds = sorted({r["made_from"]["seed"] for r in records})
    return [[r for r in records if r["made_from"]["seed"] == seed] for seed in seeds]


def verdicts(
    by_task: Mapping[str, tuple[str, Difference]], together: Difference
) -> list[tuple[str, bool, str]]:
    """Each promise: what it says, whether it holds, and the numbers."""
    found = [
        (
            f"{task}: the interval of the difference to the better peer lies above {MARGIN:g} point",
            difference.low > MARGIN,
            f"{said(difference)} to {peer}",
        )
        for task, (peer, difference) in by_task.items()
    ]
    return [*found, ("the mean over the tasks is at least 0", together.mean >= 0, said(together))]


def said(difference: Difference) -> str:
    return f"{difference.mean:+.1f} points ({difference.low:+.1f} to {difference.high:+.1f})"


def how_topgraft(told: Mapping[str, Any]) -> str:
    how = f"{told['keep']} of {told['blocks']}, {told['freeze']}, {told['epochs']}"
    return how if told["resize"] == "pretrained" else f"{how}, {told['resize']}"


def document(records: Mapping[str, Sequence[Mapping[str, Any]]], budget: float) -> tuple[str, bool]:
    """The page, and whether every promise holds."""
    tasks = {task: [judged_of(turns) for turns in by_seed(some)] for task, some in records.items()}
    by_task, together = compare(tasks, OURS, (LOGISTIC, LOOP))
    promises = verdicts(by_task, together)
    lines = [
        INTRODUCTION,
        "## Verdicts",
        "",
        *(f"- {'holds' if holds else 'FAILS'}: {text}: {numbers}" for text, holds, numbers in promises),
        "",
    ]
    for task, some in records.items():
        lines += [f"## {task}", "", *_task_lines(some), ""]
    lines += [_method_text(budget), "## Machine", "", *machine_lines(PACKAGES)]
    if not all_of_one_version(records):
        lines.append("- rows were measured with different versions of the code")
    return "\n".join(lines) + "\n", all(holds for _, holds, _ in promises)


def _task_lines(some: Sequence[Mapping[str, Any]]) -> list[str]:
    header = ["seed", "part", *METHODS, "keep, freeze, epochs", "untouched", *(f"s: {m}" for m in METHODS)]
    rows = []
    for record in some:
        methods = record["methods"]
        rows.append(
            [
                str(record["made_from"]["seed"]),
                str(record["made_from"]["turn"] + 1),
                *(f"{100 * np.mean(methods[m]['correct']):.1f}" for m in METHODS),
                how_topgraft(methods[OURS]["told"]),
                str(len(record["groups"])),
                *(f"{methods[m]['seconds']:.0f}" for m in METHODS),
            ]
        )
    judged = [judged_of(turns) for turns in by_seed(some)]
    seconds = [np.mean([record["methods"][m]["seconds"] for record in some]) for m in METHODS]
    means = [f"**{mean_score(judged, m):.1f}**" for m in METHODS]
    rows.append(["mean", "", *means, "", "", *(f"{s:.0f}" for s in seconds)])
    frozen = max(record["methods"][m]["told"]["frozen_seconds"] for record in some for m in METHODS[1:])
    text = (
        f"Both peers also need {frozen:.0f} s for the frozen part of the network over all examples, done "
        "once for all seeds. Topgraft's seconds hold everything: each row starts with an empty store."
    )
    return [*markdown_table(header, rows), "", text]


def _method_text(budget: float) -> str:
    from peers import EPOCHS, PATIENCE, PENALTIES, RATES

    return HOW.format(
        budget=budget,
        least=PENALTIES[0],
        most=PENALTIES[-1],
        rates=", ".join(f"{rate:g}" for rate in RATES),
        epochs=EPOCHS,
        patience=PATIENCE,
    )


def all_of_one_version(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether every row was measured with the same code."""
    return all(
        len({json.dumps(r["methods"][m]["key"]) for some in records.values() for r in some}) == 1
        for m in METHODS
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many; 0 is the first")
    parser.add_argument("--turns", type=int, default=max(TURNS.values()), help="parts a seed at most")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for each of Topgraft's fits")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "versus", help="where results are kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "versus.md", help="the page")
    parser.add_argument("--anew", action="store_true", help="forget what was done before")
    asked = parser.parse_args()
    if asked.anew:
        shutil.rmtree(asked.build, ignore_errors=True)
    records: dict[str, list[dict[str, Any]]] = {}
    for name in asked.tasks:
        task = Task(name)
        records[name] = [
            measure(
                task,
                seed,
                turn,
                asked.budget,
                asked.build / f"{name}-{seed}-{turn}.json",
                lambda line: print(line, flush=True),
            )
            for seed in range(asked.seeds)
            for turn in range(min(asked.turns, TURNS[name]))
        ]
    page, holds = document(records, asked.budget)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(page, encoding="utf-8")
    print(page)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
