from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from command_line import Job, Watching, tiny_job

pytestmark = pytest.mark.usefixtures("own_store_one_thread")
DEEP = ("--keep", "3")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


def slow() -> Watching:
    """Standard error on which the first word of the pass takes longer than a budget of one second."""
    return Watching("One pass", lambda: time.sleep(1.1))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--keep", "1"), "no training: an epoch takes about"),
        (DEEP, "no training: storing what training reads takes about"),
    ],
    ids=["training takes too long", "storing takes too long"],
)
def test_training_that_the_budget_does_not_allow_is_left_out_and_said(
    job: Job, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    outcome = job.fit(tmp_path / "model", *options, "--budget", "1", err=slow())
    assert outcome.status == 0, outcome.err
    assert "Budget    1 s for the whole" in outcome.out
    for label in ("Freeze", "Time"):
        assert why in next(line for line in outcome.out.splitlines() if line.startswith(label))
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    assert result["keep"] == result["freeze"]
    assert result["history"] is None
    left_out = [s for s in result["skipped"] if "reads earlier cuts" not in s]
    assert [why in s for s in left_out] == [True]


def test_a_run_without_time_repeats_by_its_plan(job: Job, tmp_path: Path) -> None:
    assert job.fit(tmp_path / "a", *DEEP, "--budget", "1", err=slow()).status == 0
    assert job.fit(tmp_path / "b", "--plan", tmp_path / "a" / "plan.json").status == 0
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in "ab"]
    assert weights[0] == weights[1]


def test_training_that_was_asked_for_is_done_in_any_case(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "model", *DEEP, "--freeze", "1", "--budget", "1", "--json", err=slow())
    assert outcome.status == 0, outcome.err
    assert outcome.json["freeze"] == 1
    assert len(outcome.json["history"]) >= 2


def test_every_decision_stands_in_the_plan_with_its_reason(job: Job, tmp_path: Path) -> None:
    assert job.fit(tmp_path / "model", *DEEP).status == 0
    decisions = json.loads((tmp_path / "model" / "plan.json").read_text())["decisions"]
    assert decisions.keys() >= {"keep", "freeze", "epochs", "threads", "precision", "batch_size"}
    assert decisions["keep"] == {"value": 3, "reason": "as asked"}
    assert all(d["reason"] for d in decisions.values())
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    assert result["reasons"]["freeze"] == decisions["freeze"]["reason"]


def test_going_on_keeps_to_the_epochs_that_were_done_when_time_had_run_out(job: Job, tmp_path: Path) -> None:
    options = (*DEEP, "--freeze", "1", "--epochs", "3")
    assert job.interrupted("Refit", tmp_path / "model", *options).status == 130
    plan = json.loads((tmp_path / "model" / "plan.json").read_text())
    assert plan["decisions"]["epochs_done_at_3_1"]["value"] == 3
    # As if the budget had ended the training after 3 of 9 epochs.
    plan["decisions"]["epochs"] = {"value": 9, "reason": "there was time for 9"}
    (tmp_path / "model" / "plan.json").write_text(json.dumps(plan))
    outcome = job.fit(tmp_path / "model", *options, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["reasons"]["epochs"] == "there was time for 9"
    assert len(outcome.json["history"]) == 1 + 3
    resumed = {entry["stage"]: entry["items_reused"] for entry in outcome.json["resumed"]}
    assert resumed["training"] == 3


def test_where_training_blocks_gains_nothing_the_layers_of_the_head_train_alone(
    job: Job, tmp_path: Path
) -> None:
    options = (*DEEP, "--hidden", "8", "--rate", "1e-8", "--epochs", "2")
    outcome = job.fit(tmp_path / "model", *options, "--json")
    assert outcome.status == 0, outcome.err
    result = outcome.json
    assert (result["keep"], result["freeze"]) == (3, 3)
    assert all(name.startswith("head.") for name in result["trained_names"])
    assert "so nothing but the head is trained" in result["reasons"]["freeze"]
    assert outcome.err.count("\nTraining  2 epochs") == 2


def test_the_cost_is_told_before_training(job: Job, tmp_path: Path) -> None:
    out = job.fit(tmp_path / "model", *DEEP, "--freeze", "2", "--epochs", "1").out
    before, cost = (line for line in out.splitlines() if line.startswith("Cost"))
    assert "the pass about" in before
    assert "training block 3 and the head" in cost
    assert "up to 1 epoch: about" in cost
    assert "stored" in cost
    assert "full fine-tuning would take about" in out
    assert out.index("\nCost") < out.index("\nOne pass") < out.index(cost) < out.index("\nTraining")
