"""Every task on every kind of data by the command line: from a table to a score on rows that nothing saw.

Real weights, real pictures, texts and rows; the sounds are made. `make test` runs a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import called, done
from every_task import LEVELS, MADE, SEPARATOR, TASKS, Examples, cases, limits_of, names_of, options_of, table
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

import topgraft as tg

SOURCES = {
    "picture": "timm/tf_efficientnet_lite0",
    "text": "hf/all-MiniLM-L6-v2",
    "sound": "sound/resemblyzer",
    "row": "rows/resnet",
}
SAMPLE = {("row", "multilabel")}
CASES = cases(SOURCES, TASKS, SAMPLE)
pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Examples]]:
    """Examples by modality, made when they are first asked for."""

    class Made(dict[str, Examples]):
        def __missing__(self, modality: str) -> Examples:
            self[modality] = MADE[modality](tmp_path_factory.mktemp(modality))
            return self[modality]

    return Made()


def score_of(task: str, cells: list[str], rows: list[dict[str, Any]]) -> tuple[str, float]:
    """A metric that ``evaluate`` tells, computed by scikit-learn from the rows of ``predict``."""
    if task == "regression":
        return "R2", r2_score([float(cell) for cell in cells], [row["prediction"] for row in rows])
    said = [row["label"] for row in rows]
    if task == "classification":
        return "accuracy", accuracy_score(cells, said)
    if task == "ordinal":
        true, found = ([LEVELS.index(name) for name in names] for names in (cells, said))
        return "mean absolute error in classes", mean_absolute_error(true, found)
    true, found = (np.array([[name in one.split(SEPARATOR) for name in ("first", "large")] for one in names])
                   for names in (cells, said))  # fmt: skip
    return "micro F1", f1_score(true, found, average="micro")


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_from_a_table_to_a_score_on_new_rows(made, modality: str, task: str, tmp_path: Path) -> None:
    limits = limits_of(made[modality])
    known, new = made[modality].parted()
    told = table(task, known, limits, tmp_path / "known.csv")
    asked = table(task, new, limits, tmp_path / "new.csv")
    more = {
        "picture": ("--freeze", "all", "--resize", "pretrained"),
        "row": ("--columns", "all", "--epochs", "10"),
    }.get(modality, ("--freeze", "all"))
    arguments = ("--label", "said", *options_of(task), *more, "--seed", "1", "--json")
    result = done("fit", told, "-o", tmp_path / "run", *arguments).json
    assert result["task"] == task
    model = tg.open_model(tmp_path / "run")
    assert (model.modality, model.task) == (modality, task)
    assert model.description["backbone"]["source"] == SOURCES[modality]

    rows = done("predict", tmp_path / "run", asked, "--json").json
    scored = done("evaluate", tmp_path / "run", asked, "--json").json
    name, value = score_of(task, names_of(task, new, limits), rows)
    assert {one["metric"]: one["value"] for one in scored["scores"]}[name] == pytest.approx(value)
    known_least = scored["majority"]  # of two labels their order alone may be right for every example
    assert scored["score"]["value"] > known_least or scored["score"]["value"] == known_least == 1.0
    report = done("report", tmp_path / "run", "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file(), report.err


def test_a_file_of_arrays_is_refused_with_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    outcome = called("fit", tmp_path / "x.npy", "-o", tmp_path / "run")
    assert outcome.status == 2
    assert "x.npy holds arrays, which are given from Python: tg.read((X, y))" in outcome.err
    assert "--columns all" in outcome.err


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["picture", "text", "sound"])
def test_compare_by_real_weights(made, modality: str, tmp_path: Path) -> None:
    told = table("classification", made[modality], limits_of(made[modality]), tmp_path / "all.csv")
    found = done("compare", told, "--label", "said", "--budget", "5", "--json").json
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert {"pretrained", "scratch", "baseline"} <= arms.keys()


@pytest.mark.parametrize("modality", ["sound", "picture"])
def test_compare_is_refused_for_other_tasks(made, modality: str, tmp_path: Path) -> None:
    for task, said in (
        ("multilabel", "No such option: --separator"),
        ("ordinal", "No such option: --order"),
        ("regression", "compare is for classes so far; these labels are numbers to be predicted"),
    ):
        told = table(task, made[modality], limits_of(made[modality]), tmp_path / f"{task}.csv")
        more = [] if task == "regression" else options_of(task)
        outcome = called("compare", told, "--label", "said", *more, "--json")
        assert outcome.status == 2
        assert said in " ".join(outcome.err.split())
