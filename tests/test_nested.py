"""Nested cross-validation: no example's score comes from a model that learned from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import Job, done, table_of, tiny_job, word_texts

import topgraft as tg
from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.nested import Nested, must_be_nestable, parts_of
from topgraft.score import cross_validated_interval

ENGINE = (
    "--engine",
    "torch",
    "--precision",
    "fp32",
)  # not the faster one, which another run may find another
NESTED = ("--nested", "3", "--keep", "2", "--freeze", "1", "--epochs", "2", *ENGINE)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


@pytest.fixture(scope="module")
def nested(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("nested") / "run"
    outcome = job.fit(out, "--json", *NESTED)
    assert outcome.status == 0, outcome.err
    assert "all are learned from; the score is by nested cross-validation in 3 parts" in outcome.err
    assert outcome.err.count("Nested ") == 3
    assert "on 45 examples, each by a model that had not seen it" in outcome.err
    return out, dict(outcome.json)


def test_the_score_of_each_part_is_that_of_a_fit_of_the_others(
    job: Job, nested: tuple[Path, dict], tmp_path: Path
) -> None:
    out, result = nested
    data = read(job.table)
    part_of, notes = parts_of(data, 3, 1)
    assert notes == ()
    said = np.array(json.loads((out / "untouched.json").read_text())["predictions"])
    names = json.loads((out / "labels.json").read_text())
    rows = list(word_texts(45))
    for part in range(3):
        known = table_of(
            tmp_path / f"known-{part}.csv", [r for r, p in zip(rows, part_of, strict=True) if p != part]
        )
        new = table_of(
            tmp_path / f"new-{part}.csv", [r for r, p in zip(rows, part_of, strict=True) if p == part]
        )
        alone = tmp_path / f"alone-{part}"
        done("fit", known, "--test", new, "-o", alone, "--backbone", job.backbone, "--seed", "1", *NESTED[2:])
        found = [prediction.label for prediction in tg.predict(alone, new)]
        assert [names[k] for k in said[part_of == part]] == found
    right = said == np.asarray(data.targets)
    assert result["score"]["value"] == right.mean()
    interval = cross_validated_interval(right, part_of, data.groups)
    assert (result["score"]["low"], result["score"]["high"]) == interval
    assert result["score"]["n"] == 45
    assert result["nested"] == 3


def test_the_saved_model_learned_from_every_example(nested: tuple[Path, dict], tmp_path: Path) -> None:
    out, result = nested
    run = json.loads((out / "run.json").read_text())
    assert run["command"]["development"] == run["command"]["data"]
    assert not (out / "work").exists()
    assert result["forecast"]  # told and compared for the model that is saved
    card = " ".join((out / "README.md").read_text().split())
    assert (
        "on 45 examples, each by a model that had not seen it, in nested cross-validation of 3 parts" in card
    )
    done("report", out, "-o", tmp_path / "page.html")
    assert "in nested cross-validation of 3 parts" in (tmp_path / "page.html").read_text()


def test_a_killed_one_goes_on_and_ends_with_the_same_bits(
    job: Job, nested: tuple[Path, dict], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "topgraft", *map(str, job.arguments(out, *NESTED))]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "work" / "part-0.json").is_file() and started.poll() is None:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    first = (out / "work" / "part-0.json").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert first  # it was there
    bits = [(folder / "model.safetensors").read_bytes() for folder in (out, nested[0])]
    assert bits[0] == bits[1]
    assert json.loads((out / "result.json").read_text())["score"] == nested[1]["score"]


def test_numbers_have_the_interval_of_a_cross_validated_score() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(5, 3, (200, 2)) * [1, 100]
    data = read(rng.normal(size=(200, 3)).astype(np.float32), targets=y)
    found = Nested(np.arange(200) % 5, y + rng.normal(0, 1, (200, 2)) * [1, 100])
    r2, *errors = found.scores(data, tg.nested.scale_of(data))
    assert r2.metric == "R2"
    assert r2.low < r2.value < r2.high
    assert 0.8 < r2.value < 0.95
    assert r2.high - r2.low < 0.15
    assert [round(e.value / unit) for e, unit in zip(errors, (1, 1, 100, 100), strict=True)] == [1, 1, 1, 1]


def test_a_class_that_is_too_small_is_refused(tmp_path: Path) -> None:
    rows = [*word_texts(30), ("the only one", "rare"), ("the other one", "rare")]
    data = read(table_of(tmp_path / "rare.csv", rows))
    with pytest.raises(TopgraftError, match="--nested 5: a class has only 2 examples or groups"):
        parts_of(data, 5, 0)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"test": "new.csv"}, "--test"),
        ({"backbones": 2}, "--backbone more than once"),
        ({"plan": "plan.json"}, "--plan"),
        ({"refit_all": True}, "--refit-all"),
    ],
)
def test_what_it_does_not_go_with_is_refused(job: Job, told: dict, says: str) -> None:
    usual = {"test": None, "backbones": 1, "plan": None, "refit_all": False}
    data = read(job.table)
    must_be_nestable(data, 0, **(usual | told))
    must_be_nestable(data, 5, **usual)
    with pytest.raises(TopgraftError, match=f"--nested 5 does not go with {says}"):
        must_be_nestable(data, 5, **(usual | told))
