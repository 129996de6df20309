from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Job, Watching, content, done, tiny_job

from topgraft.console import Console
from topgraft.data import hold_out, read
from topgraft.errors import RunningError
from topgraft.evidence import Evidence
from topgraft.fit import fit
from topgraft.predict import Predictor, rows_of
from topgraft.saved import open_model
from topgraft.score import score_predictions


@pytest.fixture(autouse=True, scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(folder / "cache"))
        yield folder
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job(place: Path) -> Job:
    return tiny_job(place / "job")


@pytest.fixture(scope="module")
def model(job: Job, place: Path) -> Path:
    outcome = job.fit(place / "model", "--keep", "3", "--freeze", "1", "--epochs", "2")
    assert outcome.status == 0, outcome.err
    return place / "model"


def test_a_finished_folder_holds_everything(model: Path) -> None:
    names = set(content(model))
    assert names >= {
        *("model.safetensors", "graft.json", "labels.json", "evidence.json", "plan.json", "result.json"),
        *("run.json", "README.md", "preprocessing/tokenizer.json"),
    }
    assert not [n for n in names if n.startswith("work") or "part" in n]
    assert json.loads((model / "labels.json").read_text()) == ["blame", "neither", "praise"]
    assert json.loads((model / "run.json").read_text())["status"] == "finished"


def test_the_optimism_of_choosing_is_the_searchs_score_less_the_untouched_one(job: Job, place: Path) -> None:
    outcome = job.fit(place / "frozen", "--keep", "3", "--freeze", "all")
    assert outcome.status == 0, outcome.err
    result = json.loads((place / "frozen" / "result.json").read_text())
    evidence = Evidence.from_json(json.loads((place / "frozen" / "evidence.json").read_text())["evidence"])
    told = result["optimism"]
    assert told["searched"] == evidence[3].score
    assert told["n"] == len(evidence.targets)
    assert told["untouched"] == result["score"]["value"]
    assert told["difference"] == told["searched"] - told["untouched"]


def test_every_score_is_exactly_that_of_predict_on_the_untouched_part(job: Job, model: Path) -> None:
    data = read(job.table)
    untouched = data.subset(hold_out(data, share=0.2, seed=1)[1])
    answers = list(Predictor(open_model(model)).predict(rows_of(untouched)))
    found = np.array([data.classes.index(str(a.label)) for a in answers])
    assert untouched.targets is not None
    scores = score_predictions(untouched.targets, found, groups=untouched.groups)
    said = json.loads((model / "result.json").read_text())["scores"]
    assert [(s["metric"], s["value"], s["low"], s["high"]) for s in said] == [
        (s.metric, s.value, s.low, s.high) for s in scores
    ]


def test_how_long_one_prediction_takes_and_which_untouched_examples_belong_together_is_kept(
    job: Job, model: Path
) -> None:
    assert json.loads((model / "result.json").read_text())["prediction"]["seconds"] > 0
    data = read(job.table)
    untouched = data.subset(hold_out(data, share=0.2, seed=1)[1])
    kept = json.loads((model / "untouched.json").read_text())
    assert kept["groups"] == untouched.groups.tolist()
    assert kept["names"] == list(untouched.names)


def test_what_is_not_a_number_is_null(model: Path) -> None:
    history = json.loads((model / "result.json").read_text())["history"]
    assert history[0]["loss"] is None  # nothing was trained before the first epoch
    assert history[1]["loss"] > 0


def test_an_untouched_picture_that_is_gone_is_a_failure_while_running(photos: Path, tmp_path: Path) -> None:
    own = tmp_path / "photos"
    shutil.copytree(photos, own)
    out = Watching("Trained", lambda: shutil.rmtree(own / "food"))
    with pytest.raises(RunningError, match=r"food.*can't be read any more"):
        fit(
            own,
            tmp_path / "model",
            backbone="timm/test_efficientnet",
            weights="none",
            keep=1,
            freeze="all",
            console=Console(out),
        )
    assert json.loads((tmp_path / "model" / "run.json").read_text())["status"] == "unfinished"
    assert not (tmp_path / "model" / "result.json").exists()


def test_people_read_what_was_trained_scored_and_saved(job: Job, tmp_path: Path) -> None:
    outcome = done("fit", job.table, "-o", tmp_path / "m", "--backbone", job.backbone, "--freeze", "all")
    lines = {line[:10].strip(): line[10:] for line in outcome.out.splitlines()}
    assert lines["Trained"].endswith("parameters: the head")
    assert "accuracy" in lines["Score"]
    assert "of 10 min" in lines["Time"]
    assert lines["Saved"].startswith(str(tmp_path / "m"))
    assert "topgraft predict" in lines["Saved"]
