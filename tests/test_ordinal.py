"""Ordered classes, as a user does it: from a table to a saved model, its rows and its score."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import FILLING, Job, called, done, table_of, tiny_job
from exported_runs import said_by_an_export
from sklearn.metrics import cohen_kappa_score, mean_absolute_error
from small_networks import backbone_of, example_maps, maps, material_of

import topgraft as tg
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.files import read_json
from topgraft.linear import fit_head
from topgraft.objective import losses
from topgraft.ordered import class_chances, ranks_of, steps_of
from topgraft.sampling import order_of
from topgraft.search import class_weights, new_graft, recipe_for, source_at
from topgraft.train import evaluate

ORDER = ("low", "middle", "high", "top")


def rows(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Texts whose class is how many of three words they hold; no text twice."""
    stream, found = random.Random(seed), {}
    while len(found) < count:
        level = len(found) % len(ORDER)
        text = [
            *stream.choices(FILLING, k=stream.randint(4, 12)),
            *stream.sample(["good", "film", "book"], level),
        ]
        stream.shuffle(text)
        found[" ".join(text)] = ORDER[level]
    return list(found.items())


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = tiny_job(tmp_path_factory.mktemp("job") / "here")
    return Job(table_of(made.table.parent / "levels.csv", rows(120), ("text", "level")), made.backbone)


@pytest.fixture(scope="module", autouse=True)
def _one_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="module")
def run(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("run") / "run"
    more = ("--keep", "3", "--freeze", "1", "--epochs", "3", "--score", "neg_mean_absolute_error", "--json")
    outcome = job.fit(out, "--order", ",".join(ORDER), *more)
    assert outcome.status == 0, outcome.err
    assert "4 ordered classes, low < middle < high < top" in outcome.err
    return out, outcome.json


def test_a_fit_tells_how_far_off_it_is(run: tuple[Path, dict]) -> None:
    out, result = run
    assert result["task"] == "ordinal"
    assert [s["metric"] for s in result["scores"]] == [
        "weighted agreement",
        "mean absolute error in classes",
        "quadratic weighted kappa",
        "accuracy",
    ]
    assert all(s["low"] <= s["value"] <= s["high"] for s in result["scores"])
    assert read_json(out / "labels.json") == list(ORDER)
    assert "always answering the median class gives" in (out / "README.md").read_text(encoding="utf-8")
    off = result["scores"][1]["value"]
    assert result["score"]["value"] == pytest.approx(1 - off / 3)
    assert result["scorers"][0]["value"] == pytest.approx(-off)
    assert result["score"]["value"] > result["majority"]  # it learned something


def test_the_score_comes_from_what_predict_says_of_the_untouched_rows(run: tuple[Path, dict]) -> None:
    out, result = run
    untouched = read_json(out / "untouched.json")
    texts = {str(i): text for i, (text, _) in enumerate(rows(120))}
    said = tg.predict(out, [texts[name] for name in untouched["names"]])
    targets, found = np.array(untouched["targets"]), np.array([ORDER.index(p.label) for p in said])
    assert found.tolist() == untouched["predictions"]
    for metric, value in (
        ("mean absolute error in classes", mean_absolute_error(targets, found)),
        ("quadratic weighted kappa", cohen_kappa_score(targets, found, weights="quadratic")),
        ("accuracy", (targets == found).mean()),
    ):
        assert next(s["value"] for s in result["scores"] if s["metric"] == metric) == pytest.approx(value)
    for p in said:
        assert sum(p.probabilities) == pytest.approx(1)
        assert p.confidence == p.probabilities[ORDER.index(p.label)]
        below = np.cumsum(p.probabilities)[ORDER.index(p.label)]
        assert below >= 0.5 - 1e-6
        assert below - p.confidence <= 0.5 + 1e-6


def test_rows_of_predict_and_sets(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    table = table_of(tmp_path / "new.csv", [(text,) for text, _ in rows(6, seed=9)], ("text",))
    plain = list(csv.DictReader(io.StringIO(done("predict", out, table).out)))
    assert list(plain[0]) == ["input", "label", "confidence", *(f"p_{name}" for name in ORDER), "error"]
    assert all(len(row["set"]) > 0 for row in done("predict", out, table, "--coverage", "0.8", "--json").json)
    model = tg.open_model(out)
    assert (model.task, model.graft.head.linear.out_features) == ("ordinal", 3)
    assert model.calibration is not None
    scores = np.array(model.calibration.scores)
    assert np.mean(scores <= model.calibration.threshold(0.8)) >= 0.8


def test_evaluate_on_new_rows_and_a_report(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    new = rows(40, seed=3)
    told = done("evaluate", out, table_of(tmp_path / "more.csv", new, ("text", "level")), "--json").json
    found = np.array([ORDER.index(p.label) for p in tg.predict(out, [text for text, _ in new])])
    targets = np.array([ORDER.index(level) for _, level in new])
    off = float(np.abs(found - targets).mean())
    assert told["scores"][1]["value"] == pytest.approx(off)
    assert [one["support"] for one in told["classes"]] == np.bincount(targets).tolist()
    done("report", out, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Weighted agreement" in page
    assert "<tr><td>neg_mean_absolute_error</td>" in page
    assert "the median class alone gives" in page


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("--task", "ordinal"), '"high" is no number. Give them from the first to the last: --order'),
        (("--order", "low,midle,high,top"), '"midle", which no example has. Nearest: middle'),
        (("--order", "low,middle,high"), 'label "top" is none of the 3 classes'),
        (("--order", "low"), "give two names of classes or more"),
        (("--order", "low,low,high"), 'names "low" more than once'),
        (("--order", "low,high", "--task", "regression"), "not for --task regression"),
        (("--order", "low,high", "--separator", "|"), "Give one"),
    ],
)
def test_what_cannot_be_meant_is_refused(job: Job, tmp_path: Path, command: tuple, words: str) -> None:
    outcome = job.fit(tmp_path / "run", *command)
    assert outcome.status == 2
    assert words in " ".join(outcome.err.split())
    assert not (tmp_path / "run").exists()


def test_an_export_gives_the_rows_of_predict_and_tells_what_8_bits_cost(
    job: Job, run: tuple[Path, dict], tmp_path: Path
) -> None:
    scored = said_by_an_export(run[0], job, tmp_path)
    assert scored["metric"] == "weighted agreement"


def test_what_is_not_there_yet_says_so(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    outcome = called("report", out, out, "-o", tmp_path / "two.html")
    assert outcome.status == 2


def test_an_order_comes_from_numbers_from_names_or_from_a_categorical() -> None:
    texts, levels = [text for text, _ in rows(40)], [level for _, level in rows(40)]
    named = read(texts, targets=levels, order=ORDER)
    assert (named.task, named.classes, named.logits) == ("ordinal", ORDER, 3)
    kind = pd.Categorical(levels, ORDER, ordered=True)
    assert read(texts, targets=pd.Series(kind), task="ordinal").fingerprint == named.fingerprint
    frame = pd.DataFrame({"text": texts, "level": kind})
    assert read(frame, label="level", task="ordinal").fingerprint == named.fingerprint
    plain = read(frame, label="level")
    assert plain.task == "classification"
    assert any("--task ordinal for ordered ones" in note for note in plain.notes)
    assert plain.fingerprint != named.fingerprint
    numbers = read(texts, targets=[10 * ORDER.index(level) for level in levels], task="ordinal")
    assert numbers.classes == ("0", "10", "20", "30")
    assert (numbers.targets == named.targets).all()
    with pytest.raises(TopgraftError, match="written in several ways"):
        read(texts, targets=["1", "1.0"] * 20, task="ordinal")


@pytest.fixture
def data() -> Data:
    """Maps whose class rises with the mean of a channel; the last one is rare."""
    values = example_maps(60).numpy() + np.linspace(-1, 1, 60, dtype=np.float32)[:, None, None, None]
    level = np.searchsorted([-0.4, 0.3, 0.9], values.mean((1, 2, 3)))
    return read(values, targets=level, task="ordinal", near_duplicates=False)


def test_before_the_first_step_the_loss_is_the_probes(data: Data, tmp_path: Path) -> None:
    material = material_of(backbone_of(maps(), example_maps()), data, tmp_path)
    assert material.targets.dtype == torch.uint8
    assert ranks_of(material.targets).tolist() == data.targets.tolist()
    graft = new_graft(material, 3, 1, material.rows)
    source, _ = source_at(material, 3, 1)
    loss, score, found = evaluate(graft, source, material.targets, material.rows)
    wanted = material.targets[material.rows]
    head = fit_head(material.features.cuts[3][material.rows], wanted, 3)
    logits = head.logits(material.features.cuts[3][material.rows])
    assert loss == pytest.approx(float(losses(logits, wanted).mean()), rel=1e-4)
    off = ((logits > 0).sum(1) - ranks_of(wanted)).abs().double()
    assert score == pytest.approx(1 - float(off.mean()) / 3, abs=1e-6)
    assert score == pytest.approx(float(found.mean()))
    assert score > 0.8


def test_balanced_weights_and_balanced_draws_go_by_the_classes(data: Data, tmp_path: Path) -> None:
    plain = material_of(backbone_of(maps(), example_maps()), data, tmp_path)
    weighted = replace(plain, settings=replace(plain.settings, class_weights="balanced"))
    counts = np.bincount(data.targets[plain.rows], minlength=4)
    weights = class_weights(weighted, plain.rows)
    assert weights is not None
    assert weights.tolist() == pytest.approx((len(plain.rows) / (4 * counts)).tolist())
    assert recipe_for(weighted, 3, 1, plain.rows).class_weights == tuple(weights.tolist())
    many = steps_of(torch.tensor([0] * 900 + [2] * 100), 3)
    picked = ranks_of(many[order_of(many, balanced=True)])
    assert 400 < int((picked == 2).sum()) < 600


def test_the_finished_head_gives_the_probabilities_of_the_classes(data: Data, tmp_path: Path) -> None:
    material = material_of(backbone_of(maps(), example_maps()), data, tmp_path)
    head = new_graft(material, 3, 3, material.rows).head
    features = material.features.cuts[3]
    with torch.no_grad():
        steps = head(features).double().numpy()
        finished = head.finished(2.0, None, is_ordered=True)(features)
    expected = class_chances(steps / 2)
    assert torch.softmax(finished.double(), 1).numpy() == pytest.approx(expected, abs=1e-5)
    assert (expected > 0).all()
