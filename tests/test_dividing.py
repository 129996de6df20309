"""Among how many workers a training is divided is decided once, told, and repeated by a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Job, Outcome, tiny_job
from one_by_one import OneByOne

from topgraft.errors import TopgraftError
from topgraft.features import sources
from topgraft.plan import Plan
from topgraft.settings import Settings
from topgraft.workers import led

pytestmark = pytest.mark.usefixtures("own_store_one_thread")
TRAINED = ("--keep", "3", "--freeze", "1", "--epochs", "2", "--engine", "torch", "--precision", "fp32")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


@pytest.fixture(scope="module")
def two(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A fit whose training is divided in two, in this process."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    outcome = job.fit(folder, *TRAINED, "--training-workers", "2")
    assert outcome.status == 0, outcome.err
    return folder, outcome


def decided(folder: Path) -> Any:
    return json.loads((folder / "plan.json").read_text())["decisions"].get("training_workers")


def model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_as_asked_it_is_said_and_another_training(
    job: Job, two: tuple[Path, Outcome], tmp_path: Path
) -> None:
    folder, outcome = two
    said = "Workers   training on 2 workers, all in this process: as asked (--training-workers)"
    assert said in outcome.out
    assert decided(folder) == {"value": 2, "reason": "as asked (--training-workers)"}
    assert job.fit(tmp_path / "plain", *TRAINED).status == 0
    assert decided(tmp_path / "plain") is None
    assert model(tmp_path / "plain") != model(folder)


def test_a_plan_repeats_it_and_something_else_is_refused(
    job: Job, two: tuple[Path, Outcome], tmp_path: Path
) -> None:
    plan = two[0] / "plan.json"
    assert job.fit(tmp_path / "again", "--plan", plan).status == 0
    assert model(tmp_path / "again") == model(two[0])
    refused = job.fit(tmp_path / "other", "--plan", plan, "--training-workers", "3")
    assert refused.status == 2
    assert "training-workers=3, but the plan says training-workers=2" in refused.err


def test_workers_elsewhere_are_one_a_machine_and_give_the_same_bits(
    job: Job, two: tuple[Path, Outcome], tmp_path: Path
) -> None:
    workers = OneByOne()
    with led(workers):
        outcome = job.fit(tmp_path / "away", *TRAINED)
    assert outcome.status == 0, outcome.err
    assert decided(tmp_path / "away")["reason"] == "one a machine of the cluster (--training-workers)"
    assert model(tmp_path / "away") == model(two[0])
    told = [then for item in workers.items if isinstance(item, tuple) for then in item[1:]]
    assert "the training goes on from its last checkpoint, the start" in told
    assert not list((tmp_path / "away").glob("work*"))


def test_a_lost_stretch_is_done_again_and_after_some_times_it_is_an_error(
    job: Job, two: tuple[Path, Outcome], tmp_path: Path
) -> None:
    with led(OneByOne(losses=3)):
        assert job.fit(tmp_path / "some", *TRAINED).status == 0
    assert model(tmp_path / "some") == model(two[0])
    with led(OneByOne(losses=4)):
        outcome = job.fit(tmp_path / "many", *TRAINED)
    assert outcome.status == 1
    assert "Workers died 4 times over this training after step 0." in outcome.err
    assert job.fit(tmp_path / "many", *TRAINED).status == 0  # the same command, in this process
    assert model(tmp_path / "many") == model(two[0])


@pytest.mark.filterwarnings("always:This training runs in this process")
def test_what_cannot_be_sent_is_trained_here_to_the_same_bits(
    job: Job, two: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    workers = OneByOne()
    with led(workers):
        outcome = job.fit(tmp_path / "large", *TRAINED)
    assert outcome.status == 0, outcome.err
    assert "runs in this process, not on the cluster: the activations that it reads" in outcome.err
    assert not any(isinstance(item, tuple) for item in workers.items)
    assert model(tmp_path / "large") == model(two[0])


@pytest.mark.filterwarnings("always:This training runs in this process")
def test_candidates_that_cannot_be_sent_are_trained_here(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = ("--keep", "2", "--epochs", "1", "--engine", "torch", "--precision", "fp32")
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    with led(OneByOne()):
        outcome = job.fit(tmp_path / "large", *deep)
    assert outcome.status == 0, outcome.err
    assert "trained here, not on the cluster: the activations that it reads are more than" in outcome.out
    assert json.loads((tmp_path / "large" / "result.json").read_text())["search"]


def test_batch_norms_that_learn_want_whole_batches(job: Job, tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match=r"--training-workers 2 divides each batch, and --tune-norms"):
        Settings.of({"training_workers": 2, "tune_norms": True})
    assert Settings.of({"training_workers": 1, "tune_norms": True}).tune_norms
    with led(OneByOne()):
        assert job.fit(tmp_path / "norms", *TRAINED, "--tune-norms").status == 0
    assert decided(tmp_path / "norms") == {
        "value": 1,
        "reason": "batch norms renew their statistics from whole batches (--tune-norms)",
    }


@pytest.mark.parametrize("value", [0, 1025, "2", True])
def test_a_number_of_workers_that_cannot_be_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match="training"):
        Settings.of({"training_workers": value if isinstance(value, int) and value != 1 else 0})
    document = {"form": 1, "decisions": {"training_workers": {"value": value, "reason": "x"}}}
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(TopgraftError, match=r"training_workers is .*, not a number of workers from 1"):
        Plan.read(tmp_path / "plan.json")
