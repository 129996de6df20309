from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from command_line import Job, tiny_job
from hypothesis import given
from hypothesis import strategies as st

from topgraft.cost import Candidate
from topgraft.rungs import EPOCHS, LONGEST, choices, shorts, worth_trying

pytestmark = pytest.mark.usefixtures("own_store_one_thread")
DEEP = ("--keep", "3", "--epochs", "2")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


@pytest.fixture(scope="module")
def fitted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "model"
    outcome = job.fit(folder, *DEEP)
    assert outcome.status == 0, outcome.err
    assert "freeze  epochs" in outcome.out
    return folder


def plan_of(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((folder / "plan.json").read_text())["decisions"]
    return found


@given(st.integers(1, 200))
def test_choices_are_whole_and_descend_to_nothing_frozen(keep: int) -> None:
    found = choices(keep)
    assert found == sorted(set(found), reverse=True)
    assert found[-1] == 0
    assert all(0 <= freeze < keep for freeze in found)
    assert keep - math.ceil(keep / 3) in found


def test_each_rung_keeps_the_better_half_by_loss(fitted: Path) -> None:
    tried = shorts(plan_of(fitted))
    rungs = {
        e: [one for one in tried if one["epochs"] == e] for e in sorted({one["epochs"] for one in tried})
    }
    assert next(iter(rungs)) == EPOCHS
    assert {one["freeze"] for one in rungs[EPOCHS]} == set(choices(3))
    for short, longer in zip(list(rungs.values())[:-1], list(rungs.values())[1:], strict=True):
        best = sorted(short, key=lambda one: one["loss"])[: math.ceil(len(short) / 2)]
        assert {one["freeze"] for one in longer} == {one["freeze"] for one in best}
        assert longer[0]["epochs"] == 2 * short[0]["epochs"] <= LONGEST
    last = list(rungs.values())[-1]
    winner = min(last, key=lambda one: one["loss"])["freeze"]
    decisions = plan_of(fitted)
    assert decisions["candidate"]["value"] == winner
    assert decisions["freeze"]["value"] in (winner, 3)
    assert json.loads((fitted / "result.json").read_text())["search"] == tried


def test_a_killed_search_trains_nothing_twice(job: Job, fitted: Path, tmp_path: Path) -> None:
    assert job.interrupted("Training", tmp_path / "model", *DEEP).status == 130
    before = shorts(plan_of(tmp_path / "model"))
    assert len(before) > 2
    assert job.fit(tmp_path / "model", *DEEP).status == 0
    assert shorts(plan_of(tmp_path / "model")) == before  # their seconds too: they were read, not run
    weights = [(folder / "model.safetensors").read_bytes() for folder in (fitted, tmp_path / "model")]
    assert weights[0] == weights[1]


def test_what_was_asked_for_is_not_searched(job: Job, tmp_path: Path) -> None:
    assert job.fit(tmp_path / "model", *DEEP, "--freeze", "1").status == 0
    assert shorts(plan_of(tmp_path / "model")) == []
    assert "candidate" not in plan_of(tmp_path / "model")


def test_a_plan_repeats_what_was_chosen_without_a_search(job: Job, fitted: Path, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "again", "--plan", fitted / "plan.json")
    assert outcome.status == 0, outcome.err
    assert "freeze  epochs" not in outcome.out
    weights = [(folder / "model.safetensors").read_bytes() for folder in (fitted, tmp_path / "again")]
    assert weights[0] == weights[1]


def costs_of(epochs: dict[int, float], storing: float = 10.0) -> list[Candidate]:
    """Choices of freeze with the seconds of an epoch each; what nothing is frozen in stores nothing."""
    rest = {"keep": 18, "asked": False, "stored": 0.0, "training": 0.0, "epochs": 10, "affordable": 10}
    rest |= {"trained_parameters": 1, "optimizer": 0.0, "model": 0.0}
    return [
        Candidate(freeze=freeze, epoch=epoch, storing=storing if freeze else 0.0, **rest)
        for freeze, epoch in epochs.items()
    ]


COSTS = costs_of({16: 1.0, 14: 2.0, 12: 4.0, 4: 15.0, 0: 30.0})


@pytest.mark.parametrize(
    ("left", "tried"),
    [
        (10_000, [12, 16, 14, 4, 0]),
        (300, [12, 16, 14]),  # an epoch of all blocks takes 30 s: it could win, and then not train
        (60, [16]),  # the usual one has no time for six epochs and the refit
        (20, []),
    ],
)
def test_what_is_tried_could_also_train(left: float, tried: list[int]) -> None:
    field = worth_trying(COSTS, 12, left)
    assert [one.freeze for one in field] == tried
    assert sum(one.storing + 2 * one.epoch for one in field) <= left / 2
    assert all(6 * 2 * one.epoch <= left for one in field)
