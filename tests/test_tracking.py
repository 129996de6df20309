"""Trackers, each read back by its own library's reader."""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Job, called, tiny_job

from topgraft.console import Console
from topgraft.errors import TopgraftWarning
from topgraft.tracking import Asked, Tracking, tracking

pytestmark = [
    pytest.mark.usefixtures("own_store_one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of SQLAlchemy, by MLflow
]
Points = dict[str, list[tuple[int, float]]]
BOTH = ("--track", "tensorboard", "--track", "mlflow")


def in_tensorboard(folder: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(p.step, p.value) for p in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def in_mlflow(folder: Path) -> tuple[Points, dict[str, str], str]:
    """Metrics, parameters and the status of the one run there."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    history = {n: client.get_metric_history(run.info.run_id, n) for n in run.data.metrics}
    points = {n: sorted((p.step, p.value) for p in h) for n, h in history.items()}
    return points, run.data.params, run.info.status


def in_wandb(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What was logged, in order, and the configuration, from the one offline file there."""
    from wandb.proto import wandb_internal_pb2 as records

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    logged, configuration = [], {}
    for raw in offline_records(file.read_bytes()):
        record = records.Record()
        record.ParseFromString(raw)
        if record.WhichOneof("record_type") == "history":
            logged.append(by_key(record.history.item))
        configuration |= by_key(record.run.config.update) | by_key(record.config.update)
    return logged, configuration


def by_key(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def offline_records(whole: bytes) -> Iterator[bytes]:
    """The records of an offline file: LevelDB's log format after a header of 7 bytes."""
    at, block, parts = 7, 32_768, b""
    while at + 7 <= len(whole):
        if block - at % block < 7:
            at += block - at % block
        length, kind = int.from_bytes(whole[at + 4 : at + 6], "little"), whole[at + 6]
        parts += whole[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


def expected(model: Path) -> Points:
    """What must be there of a finished run, once each."""
    from topgraft.evidence import Evidence

    result = json.loads((model / "result.json").read_text())
    evidence = Evidence.from_json(json.loads((model / "evidence.json").read_text())["evidence"])
    epochs = result["history"]
    return {
        "evidence/score": [(cut.keep, cut.score) for cut in evidence.cuts],
        "evidence/loss": [(cut.keep, cut.loss) for cut in evidence.cuts],
        "training/loss": [(e["number"], e["loss"]) for e in epochs if e["number"]],
        "training/rate": [(e["number"], e["rate"]) for e in epochs if e["number"]],
        "training/validation_loss": [(e["number"], e["validation_loss"]) for e in epochs],
        "training/validation_score": [(e["number"], e["validation_score"]) for e in epochs],
        "score/accuracy": [(0, result["score"]["value"])],
        "score/accuracy_low": [(0, result["score"]["low"])],
        "decided/keep": [(0, result["keep"])],
        "decided/freeze": [(0, result["freeze"])],
    }


def same(found: Points, wanted: Points) -> None:
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in points], rel=1e-6), name


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job"))


@pytest.mark.exhaustive
def test_a_stopped_fit_goes_on_with_each_point_once_and_the_model_is_that_of_an_untracked_one(
    job: Job, tmp_path: Path
) -> None:
    told = ("--freeze", "1", "--epochs", "3")
    also = (*BOTH, "--track-to", tmp_path / "runs")
    stopped = job.interrupted("Refit", tmp_path / "a", *told, *also)
    assert stopped.status == 130, stopped.err
    before, _, status = in_mlflow(tmp_path / "runs")
    assert "training/loss" in before, "else the test proves nothing"
    assert status == "KILLED"
    done = job.fit(tmp_path / "a", *told, *also)
    assert done.status == 0, done.err
    assert f"tensorboard --logdir {tmp_path / 'runs'}" in done.out
    (logged,) = (tmp_path / "runs").glob("a-*")
    same(in_tensorboard(logged), expected(tmp_path / "a"))
    points, parameters, status = in_mlflow(tmp_path / "runs")
    same(points, expected(tmp_path / "a"))
    assert parameters["freeze"] == "1"
    assert parameters["examples"] == "45"
    assert status == "FINISHED"
    assert not any(math.isnan(v) for series in points.values() for _, v in series)
    assert any(name.startswith("refit/1/") for name in points)
    assert job.fit(tmp_path / "b", *told).status == 0
    model = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert model[0] == model[1]


def test_short_trainings_are_told_too(job: Job, tmp_path: Path) -> None:
    done = job.fit(tmp_path / "a", "--track", "tensorboard", "--track-to", tmp_path / "runs", "--keep", "3")
    assert done.status == 0, done.err
    (logged,) = (tmp_path / "runs").glob("a-*")
    found = in_tensorboard(logged)
    search = json.loads((tmp_path / "a" / "result.json").read_text())["search"]
    names = {
        f"search/short_{s['keep']}_{s['freeze']}_{s['epochs']}" + (f"_{s['seed']}" if s["seed"] else "")
        for s in search
    }
    assert names, "else the test proves nothing"
    assert {name.rpartition("/")[0] for name in found if name.startswith("search/")} == names


def told_twice(tracker: str, folder: Path) -> Path:
    """A run that was killed after two epochs (its process forgot to say so), and went on."""
    work, where = folder / "run" / "work", folder / "runs"
    work.mkdir(parents=True)
    asked = Asked.of([tracker], where)
    parameters = {"rate": 0.1, "hidden": [8, 4], "plan": None, "refit": True, "engine": "torch"}
    for epochs in (2, 4):
        with tracking(asked, work, parameters, Console()) as told:
            for epoch in range(epochs):
                told.point(
                    "training", "epoch", epoch, {"loss": 1 / (1 + epoch), "rate": math.nan, "no": None}
                )
    return where


def test_tensorboard_has_each_point_once(tmp_path: Path) -> None:
    (tmp_path / "runs" / "run-of-another").mkdir(parents=True)
    where = told_twice("tensorboard", tmp_path)
    (logged,) = where.glob("run-????????")
    assert in_tensorboard(logged) == {
        "training/loss": [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3)), (3, 0.25)]
    }
    assert (where / "run-of-another").is_dir()
    (parameters,) = logged.glob("*/hparams.yml")
    assert "hidden: '[8, 4]'" in parameters.read_text()
    assert "plan" not in parameters.read_text()


def test_weights_and_biases_has_each_point_once_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="its present release needs a pre-release: not among the dev packages")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    logged, configuration = in_wandb(told_twice("wandb", tmp_path))
    losses = [(row["training/epoch"], row["training/loss"]) for row in logged if "training/loss" in row]
    assert losses == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3)), (3, 0.25)]
    assert configuration["rate"] == 0.1
    assert configuration["hidden"] == "[8, 4]"


def test_a_point_is_kept_before_it_is_told_and_a_lost_journal_begins_another_run(tmp_path: Path) -> None:
    work = tmp_path / "run" / "work"
    where = told_twice("tensorboard", tmp_path)
    points = json.loads((work / "tracked.json").read_text())["points"]
    assert [(p["series"], p["step"]) for p in points] == [("training", n) for n in range(4)]
    (work / "tracked.json").write_text("{")
    with tracking(Asked.of(["tensorboard"], where), work, {}, Console()) as told:
        told.point("training", "epoch", 0, {"loss": 2.0})
    found = [len(in_tensorboard(folder)["training/loss"]) for folder in where.glob("run-????????")]
    assert sorted(found) == [1, 4]


@pytest.mark.parametrize("name", ["pictures of #1 (50%) ä.topgraft", "…", "x" * 200])
def test_a_run_has_a_name_that_every_tracker_takes(name: str) -> None:
    from topgraft.tracking import _run_name

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", _run_name(name))
    assert _run_name(name) != _run_name(name)


def test_mlflow_goes_where_its_own_variable_says_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}")
    with tracking(Asked.of(["mlflow"], None), tmp_path, {}, Console()) as told:
        told.point("training", "epoch", 0, {"loss": 0.5})
    assert in_mlflow(tmp_path / "there")[0] == {"training/loss": [(0, 0.5)]}
    assert not (tmp_path / "runs").exists()
    with tracking(Asked.of(["mlflow"], "here"), tmp_path, {}, Console()):
        assert (tmp_path / "here" / "mlflow.db").is_file()


def test_a_tracker_that_fails_is_told_no_more_and_the_others_are() -> None:
    class Unreachable:
        def log(self, *_: object, **__: object) -> None:
            raise ConnectionError("the server is gone")

    class Told(Unreachable):
        def __init__(self) -> None:
            self.steps: list[int | None] = []

        def log(self, _values: object, step: int | None = None) -> None:
            self.steps.append(step)

    works = Told()
    both = Tracking({"mlflow": Unreachable(), "tensorboard": works})
    with pytest.warns(TopgraftWarning, match="mlflow failed and is told nothing more.*the server is gone"):
        both.point("training", "epoch", 0, {"loss": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both.point("training", "epoch", 1, {"loss": 1.0})
    assert works.steps == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--track", "tensorbord"), "give tensorboard, wandb or mlflow. Nearest: tensorboard."),
        (("--track-to", "logs"), "--track-to logs needs a tracker"),
        ((*BOTH, "--track-to", "http://localhost:1"), "--track tensorboard writes to a folder"),
        (("--track", "tensorboard", "--track-to", "{table}"), "is a file; give a folder"),
        (("--track", "mlflow", "--track-to", "nowhere://x"), "--track mlflow --track-to nowhere://x: "),
        (("--track", "mlflow", "--dry-run"), "--dry-run finds nothing to track"),
    ],
)
def test_what_can_not_be_tracked_is_said_before_anything_starts(
    job: Job, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = job.fit(tmp_path / "a", *(a.format(table=job.table) for a in arguments))
    assert refused.status == 2
    assert said in refused.err
    assert "One pass" not in refused.out


@pytest.mark.parametrize(("tracker", "module"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy")])
def test_a_missing_package_is_named_with_its_extra(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    refused = called(*job.arguments(tmp_path / "a", "--track", tracker))
    assert refused.status == 2
    assert (
        f"--track {tracker} needs {module}, an optional extra: pip install 'topgraft[{tracker}]'"
        in refused.err
    )
    assert not (tmp_path / "a").exists()


def test_a_run_whose_tracker_could_not_be_opened_goes_on_with_another(job: Job, tmp_path: Path) -> None:
    refused = job.fit(tmp_path / "a", "--freeze", "all", "--track", "mlflow", "--track-to", "nowhere://x")
    assert refused.status == 2
    done = job.fit(tmp_path / "a", "--freeze", "all", "--track", "mlflow", "--track-to", tmp_path / "runs")
    assert done.status == 0, done.err
    points, _, _ = in_mlflow(tmp_path / "runs")
    assert points["decided/freeze"] == points["decided/keep"]
