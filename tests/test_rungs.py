from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Job, tiny_job
from hypothesis import given
from hypothesis import strategies as st

from topgraft.cost import Candidate
from topgraft.report.figures import figures
from topgraft.report.ink import PAPER
from topgraft.report.numbers import gather
from topgraft.rungs import (
    EPOCHS,
    LONGEST,
    SEEDS,
    choices,
    seconds_of_search,
    seeds_for,
    winner_of,
    worth_trying,
)
from topgraft.short_trainings import shorts

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
    assert "keep  freeze  epochs" in outcome.out
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
    every = shorts(plan_of(fitted))
    tried = [one for one in every if not one["seed"]]
    rungs = {
        e: [one for one in tried if one["epochs"] == e] for e in sorted({one["epochs"] for one in tried})
    }
    assert next(iter(rungs)) == EPOCHS
    assert {one["freeze"] for one in rungs[EPOCHS]} == set(choices(3))
    for short, longer in zip(list(rungs.values())[:-1], list(rungs.values())[1:], strict=True):
        best = sorted(short, key=lambda one: one["lowest"])[: math.ceil(len(short) / 2)]
        assert {one["freeze"] for one in longer} == {one["freeze"] for one in best}
        assert longer[0]["epochs"] == 2 * short[0]["epochs"] <= LONGEST
    last = sorted(list(rungs.values())[-1], key=lambda one: one["lowest"])
    last = last[: max(2, math.ceil(len(last) / 2))]
    decisions = plan_of(fitted)
    assert decisions["seeds"]["value"] == SEEDS
    again = [one for one in every if one["seed"]]
    assert {(one["freeze"], one["epochs"], one["seed"]) for one in again} == {
        (one["freeze"], one["epochs"], seed) for one in last for seed in range(1, SEEDS)
    }
    assert len({one["loss"] for one in [*last, *again]}) > len(last)  # another seed is another training
    assert f"{SEEDS} seeds each" in decisions["candidate"]["reason"]
    keep, freeze = decisions["candidate"]["value"]
    assert keep == 3
    assert freeze in {one["freeze"] for one in last}
    assert decisions["freeze"]["value"] in (freeze, 3)
    assert json.loads((fitted / "result.json").read_text())["search"] == every


def test_a_plan_of_before_there_were_two_losses_is_read() -> None:
    value = {"keep": 3, "freeze": 1, "epochs": 2, "loss": 0.7, "score": 0.5, "seconds": 1.0}
    (one,) = shorts({"short_3_1_2": {"value": value, "reason": ""}})
    assert (one["loss"], one["lowest"], one["seed"]) == (0.7, 0.7, 0)


def test_the_report_shows_each_short_training_the_winner_on_top(fitted: Path) -> None:
    document, every = gather(fitted), shorts(plan_of(fitted))
    (drawn,) = (one for one in figures(document) if one.name == "search")
    assert [row[:3] for row in drawn.rows] == [(one["keep"], one["freeze"], one["epochs"]) for one in every]
    assert [row[4] for row in drawn.rows] == [one["loss"] for one in every]
    keep, freeze = plan_of(fitted)["candidate"]["value"]
    assert f"keep {keep} with {freeze} frozen won" in drawn.title
    taken = plan_of(fitted)["freeze"]["value"] == freeze
    assert ("no better than all frozen" in drawn.title) is not taken
    untrained = {**document, "training": None, "search": {**document["search"], "taken": False}}
    assert "then it was not trained for want of time" in figures(untrained)[2].title
    axes = drawn.draw(PAPER).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == f"keep {keep}, freeze {freeze}"
    assert len(names) == len(choices(3))
    rings = [(line.get_ydata()[0], line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert sorted(loss for _, loss in rings) == sorted(one["loss"] for one in every)
    won = [one["loss"] for one in every if (one["keep"], one["freeze"]) == (keep, freeze)]
    assert sorted(loss for row, loss in rings if row == 0) == sorted(won)
    bars = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"}
    most = max(one["epochs"] for one in every)
    last = [one["loss"] for one in every if one["freeze"] == freeze and one["epochs"] == most]
    assert bars[0] == pytest.approx(np.mean(last))


PAIRS = [(18, 12), (18, 4), (18, 0)]
LOSSES = np.random.default_rng(0).normal(1.0, 0.3, (200, 1)) + np.zeros((1, 3))


@pytest.mark.parametrize(
    ("worse", "prefer", "winner", "said"),
    [
        ([0, 0, 0], "small", 12, "within noise"),
        ([0.01, 0, 0.005], "small", 12, "as good as the best"),
        ([0.5, 0, 0.4], "small", 4, "measurably the best"),
        ([0.05, 0, 0.0], "small", 4, "within noise"),  # not measurably worse, and over 0.02 nats all the same
        ([0.01, 0, 0.005], "accuracy", 4, "lowest loss"),
    ],
)
def test_the_winner_trains_least_of_those_that_are_as_good(
    worse: list[float], prefer: str, winner: int, said: str
) -> None:
    noise = np.random.default_rng(1).normal(0, 0.6, (200, 3))
    losses = LOSSES + np.array(worse) + noise - noise.mean(0)
    found = np.tile(np.arange(200)[:, None] % 4 > 0, (1, 3)).astype(float)
    (_, freeze), reason = winner_of(PAIRS, losses, found, np.arange(200), prefer=prefer)
    assert freeze == winner
    assert said in reason


def test_validation_examples_of_one_group_leave_the_lowest_loss() -> None:
    noise = np.random.default_rng(1).normal(0, 0.6, (200, 3))
    losses = LOSSES - np.array([0, 0, 0.01]) + noise - noise.mean(0)
    assert winner_of(PAIRS, losses, None, np.zeros(200))[0] == (18, 0)
    assert winner_of(PAIRS, losses, None, np.arange(200) // 2)[0] == (18, 12)  # of numbers


@pytest.mark.parametrize(
    ("seconds", "left", "seeds"),
    [(10, 19, 2), (10, 1000, SEEDS), (10, 9, 1), (0, 0, 1)],
)
def test_seeds_are_as_many_as_there_is_time_for(seconds: float, left: float, seeds: int) -> None:
    assert seeds_for(seconds, left)[0] == seeds


def test_a_killed_search_trains_nothing_twice_and_chooses_by_what_each_example_lost(
    job: Job, fitted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    assert job.interrupted("Training", folder, *DEEP).status == 130
    decisions, before = plan_of(folder), shorts(plan_of(folder))
    assert len(before) > 2 * SEEDS
    last = sorted({one["freeze"] for one in shorts(decisions) if one["seed"]}, reverse=True)
    outcomes = {
        freeze: [
            json.loads(path.read_text()) for path in sorted(folder.glob(f"work/short_3_{freeze}_4*.json"))
        ]
        for freeze in last
    }
    assert [len(outcomes[freeze]) for freeze in last] == [SEEDS] * len(last)
    losses, found = (
        np.column_stack([np.mean([one[what] for one in outcomes[freeze]], axis=0) for freeze in last])
        for what in ("losses", "marks")
    )
    winner, _ = winner_of([(3, freeze) for freeze in last], losses, found, np.arange(len(losses)), seed=1)
    assert decisions["candidate"]["value"] == list(winner)
    told = {(one["freeze"], one["seed"]): one["loss"] for one in shorts(decisions) if one["epochs"] == 4}
    every = {
        (freeze, seed): np.mean(one["losses"]) for freeze in last for seed, one in enumerate(outcomes[freeze])
    }
    assert {which: told[which] for which in every} == pytest.approx(every)  # what is shown is what decided
    # as if killed before the choice was written, with files that are gone or damaged
    del decisions["candidate"]
    (folder / "plan.json").write_text(json.dumps({"form": 1, "decisions": decisions}))
    files = sorted(folder.glob("work/short_3_*_4*.json"))
    files[0].unlink()
    files[-1].write_text("{")
    assert job.fit(folder, *DEEP).status == 0
    assert plan_of(folder)["candidate"] == plan_of(fitted)["candidate"]
    assert shorts(plan_of(folder)) == before  # their seconds too: they were read, not run
    weights = [(each / "model.safetensors").read_bytes() for each in (fitted, folder)]
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


def costs_of(epochs: dict[int, float], storing: float = 10.0, keep: int = 18) -> list[Candidate]:
    """Choices of freeze with the seconds of an epoch each; what nothing is frozen in stores nothing."""
    rest = {"keep": keep, "asked": False, "stored": 0.0, "training": 0.0, "epochs": 10, "affordable": 10}
    rest |= {"trained_parameters": 1, "optimizer": 0.0, "model": 0.0}
    return [
        Candidate(freeze=freeze, epoch=epoch, storing=storing if freeze else 0.0, **rest)
        for freeze, epoch in epochs.items()
    ]


COSTS = costs_of({16: 1.0, 14: 2.0, 12: 4.0, 4: 15.0, 0: 30.0})


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=8), st.floats(1, 5_000))
def test_the_whole_search_is_foretold_within_what_it_may_take(epochs: list[float], allowed: float) -> None:
    field = costs_of(dict(enumerate(epochs)))
    first = sum(one.storing + EPOCHS * one.epoch for one in field)
    told = seconds_of_search(field, allowed)
    assert told >= first * (1 - 1e-9)
    assert told <= max(first, allowed) * (1 + 1e-9)
    assert seconds_of_search(field, 1e9) >= told * (1 - 1e-9)


@pytest.mark.parametrize(
    ("choices", "epochs"),
    [(2, 2 * 2 + 2 * 2 * 2), (3, 3 * 2 + 2 * 4 + 2 * 2 * 4), (6, 6 * 2 + 3 * 4 + 2 * 8 + 2 * 2 * 8)],
)
def test_with_time_for_all_it_is_foretold_with_each_rung_and_every_seed(choices: int, epochs: int) -> None:
    field = costs_of(dict.fromkeys(range(choices), 3.0))
    storing = sum(one.storing for one in field)
    assert seconds_of_search(field, 1e9) == pytest.approx(storing + 3.0 * epochs)


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
    field = worth_trying(COSTS, left)
    assert [one.freeze for one in field] == tried
    assert sum(one.storing + 2 * one.epoch for one in field) <= left / 2
    assert all(6 * 2 * one.epoch <= left for one in field)


def test_a_winner_needs_no_more_time_than_for_the_epochs_that_are_asked_for() -> None:
    assert [one.freeze for one in worth_trying(COSTS, 60, 2)] == [12]
    assert [one.freeze for one in worth_trying(COSTS, 300, 2)] == [12, 16, 14, 4]


@pytest.mark.parametrize(
    ("left", "tried"),
    [
        (10_000, [12, 16, 14, 4, 0, 10, 13, 0]),
        (300, [12, 16, 14, 10, 13]),  # with 0 the first rung would take more than half of the search's time
        (200, [12, 16, 14]),
    ],
)
def test_other_depths_are_tried_as_far_as_there_is_time_for_further_rungs(
    left: float, tried: list[int]
) -> None:
    other = costs_of({13: 0.8, 10: 2.0, 0: 20.0}, keep=15)
    field = worth_trying([*COSTS, *other], left)
    assert [one.freeze for one in field] == tried
    assert [one.keep for one in field] == sorted((one.keep for one in field), reverse=True)
