"""Numbers predicted, as a user does it: from a table to a saved model, its rows and its score."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Job, called, done, table_of, tiny_job, word_texts
from exported_runs import said_by_an_export
from packaged_data import pictures_of
from PIL import Image
from sklearn.metrics import mean_absolute_error, r2_score
from small_networks import backbone_of, data_of_maps, example_maps, maps, material_of

import topgraft as tg
from topgraft.data import read
from topgraft.evaluating import evaluate
from topgraft.evidence import Evidence
from topgraft.files import read_json, read_tensors
from topgraft.head import Head
from topgraft.linear import fit_head
from topgraft.objective import Scale, losses
from topgraft.search import new_graft, source_at
from topgraft.show import in_unit

WORTH = {"praise": 40.5, "blame": -20.25, "neither": 3.0}


def rows(count: int, *, seed: int = 0) -> list[tuple[str, str, str]]:
    """Texts, each with what its word is worth less its length, and with its length."""
    return [
        (text, repr(WORTH[label] - len(text.split()) / 4), str(len(text.split())))
        for text, label in word_texts(count, seed=seed)
    ]


HEADER = ("text", "worth", "words")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = tiny_job(tmp_path_factory.mktemp("job") / "here")
    return Job(table_of(made.table.parent / "numbers.csv", rows(90), HEADER), made.backbone)


@pytest.fixture(scope="module", autouse=True)
def _one_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="module")
def run(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("run") / "run"
    outcome = job.fit(out, "--label", "worth", "--keep", "3", "--freeze", "1", "--epochs", "4", "--json")
    assert outcome.status == 0, outcome.err
    return out, outcome.json


def test_a_fit_tells_what_it_predicts_and_how_well(run: tuple[Path, dict]) -> None:
    out, result = run
    assert result["task"] == "regression"
    assert [s["metric"] for s in result["scores"]] == [
        "R2",
        "mean absolute error",
        "root mean squared error",
    ]
    assert result["score"]["low"] < result["score"]["value"] < result["score"]["high"]
    assert result["majority"] <= 0
    assert result["calibration"] is None
    assert result["intervals"]["coverage"] == 0.9
    assert result["trained_parameters"] > 0
    assert read_json(out / "labels.json") == ["worth"]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "always answering the mean gives" in card
    assert f"mean absolute error {in_unit(result['scores'][1]['value'])}" in card


def test_the_score_comes_from_what_predict_says_of_the_untouched_rows(run: tuple[Path, dict]) -> None:
    out, result = run
    untouched = read_json(out / "untouched.json")
    texts = {str(i): text for i, (text, _, _) in enumerate(rows(90))}
    said = tg.predict(out, [texts[name] for name in untouched["names"]])
    numbers, targets = np.array([p.values for p in said]), np.array(untouched["targets"])
    assert numbers.tolist() == untouched["predictions"]
    assert result["score"]["value"] == pytest.approx(r2_score(targets, numbers), abs=1e-12)
    assert result["scores"][1]["value"] == pytest.approx(mean_absolute_error(targets, numbers), abs=1e-12)
    worst = np.abs(numbers - targets)[:, 0].argmax()
    assert untouched["mistakes"][0]["input"] == untouched["names"][worst]


def test_rows_of_predict_in_every_form(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    table = table_of(tmp_path / "new.csv", [(text,) for text, _, _ in rows(5, seed=9)], ("text",))
    plain = list(csv.DictReader(io.StringIO(done("predict", out, table).out)))
    assert list(plain[0]) == ["input", "prediction", "error"]
    wide = list(csv.DictReader(io.StringIO(done("predict", out, table, "--coverage", "0.8").out)))
    assert list(wide[0]) == ["input", "prediction", "error", "prediction_low", "prediction_high"]
    document = done("predict", out, table, "--coverage", "0.8", "--json").json
    for a, b, c in zip(plain, wide, document, strict=True):
        assert float(a["prediction"]) == float(b["prediction"]) == c["prediction"]
        assert float(b["prediction_low"]) < c["prediction"] < float(b["prediction_high"])
        assert c["prediction_high"] - c["prediction"] == pytest.approx(c["prediction"] - c["prediction_low"])


def test_intervals_hold_the_share_that_was_asked_for_of_the_examples_behind_them(
    run: tuple[Path, dict],
) -> None:
    model = tg.open_model(run[0])
    assert model.calibration is not None
    scores = np.array(model.calibration.scores)
    for coverage in (0.5, 0.8):
        assert (scores <= model.calibration.threshold(coverage)).mean() >= coverage
    assert model.calibration.threshold(0.999) == math.inf


def test_evaluate_gives_the_score_again(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, result = run
    names = set(read_json(out / "untouched.json")["names"])
    again = table_of(tmp_path / "again.csv", [r for i, r in enumerate(rows(90)) if str(i) in names], HEADER)
    found = done("evaluate", out, again, "--json").json
    assert found["score"]["value"] == pytest.approx(result["score"]["value"], abs=1e-9)
    assert [s["metric"] for s in found["scores"]] == [s["metric"] for s in result["scores"]]
    refused = called("evaluate", out, again, "--label", "worth,words")
    assert refused.status == 2
    assert "The model predicts worth; the data have worth, words." in refused.err


def test_the_same_plan_gives_the_same_bits_and_the_frozen_block_keeps_its_own(
    job: Job, run: tuple[Path, dict], tmp_path: Path
) -> None:
    out, _ = run
    again = job.fit(tmp_path / "again", "--label", "worth", "--plan", out / "plan.json")
    assert again.status == 0, again.err
    assert (tmp_path / "again/model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    before, _ = read_tensors(Path(job.backbone.removeprefix("hf/")) / "model.safetensors")
    after = tg.open_model(out).backbone_weights()
    same = {name: torch.equal(before[name], tensor) for name, tensor in after.items() if name in before}
    assert all(equal for name, equal in same.items() if name.startswith("embeddings"))
    assert not all(same.values())


def test_several_numbers_at_once(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "two", "--label", "worth,words", "--freeze", "all", "--json")
    assert outcome.status == 0, outcome.err
    assert [s["metric"] for s in outcome.json["scores"]][1:3] == [
        "mean absolute error of worth",
        "root mean squared error of worth",
    ]
    row = done("predict", tmp_path / "two", job.table, "--json").json[0]
    assert list(row) == ["input", "prediction_worth", "prediction_words", "error"]


def test_what_is_for_classes_alone_is_refused(job: Job, tmp_path: Path) -> None:
    for more, words in (
        (("--class-weights", "balanced"), "--class-weights balanced is for classes"),
        (("--label-smoothing", "0.1"), "--label-smoothing 0.1 is for classes"),
        (("--task", "regresion"), "Nearest: regression"),
    ):
        outcome = job.fit(tmp_path / "none", "--label", "worth", *more)
        assert outcome.status == 2
        assert words in outcome.err
        assert not (tmp_path / "none").exists()
    outcome = called("compare", job.table, "--label", "worth", "--backbone", job.backbone)
    assert outcome.status == 2
    assert "compare is for classes so far" in outcome.err


def test_an_export_gives_the_rows_of_predict_and_tells_what_8_bits_cost(
    job: Job, run: tuple[Path, dict], tmp_path: Path
) -> None:
    scored = said_by_an_export(run[0], job, tmp_path)
    assert scored["metric"] == "R2"


def numbers_of_maps(count: int = 60):
    """Inputs of the small network of maps, with two numbers each."""
    X = np.asarray(data_of_maps(count).inputs)
    y = np.stack([1000 + 30 * X.mean((1, 2, 3)), -X[:, 0].std((1, 2))], 1)
    return read((X, y))


def test_before_the_first_step_the_loss_is_the_probes(tmp_path: Path) -> None:
    backbone, data = backbone_of(maps(), example_maps(2)), numbers_of_maps()
    material = material_of(backbone, data, tmp_path)
    graft = new_graft(material, 3, 1, material.rows)
    fit = fit_head(material.features.cuts[3][material.rows], material.targets[material.rows])
    wanted = material.targets[material.validation]
    probed = float(losses(fit.logits(material.features.cuts[3][material.validation]), wanted).mean())
    source, _ = source_at(material, 3, 1)
    loss, score, _ = evaluate(graft, source, material.targets, material.validation)
    assert loss == pytest.approx(probed, abs=1e-4)
    assert score == pytest.approx(1 - loss, abs=1e-5)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_head_in_units_gives_the_numbers_that_it_gave_standardised(hidden: tuple[int, ...]) -> None:
    head = Head("vector", 5, 2, hidden=hidden).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    x, scale = torch.randn(7, 5, dtype=torch.float64), Scale((1000.0, -3.0), (25.0, 0.5))
    standard = head(x).detach()
    expected = standard * torch.tensor(scale.spread) + torch.tensor(scale.mean)
    assert torch.allclose(head.in_units(scale)(x), expected, rtol=1e-6)
    assert torch.equal(head.in_units(None)(x), head(x))


@pytest.mark.slow
def test_pictures_through_real_weights(tmp_path: Path) -> None:
    """How bright each packaged picture is on average, by the packaged network."""
    pictures = [p for name in ("animals", "food") for p in pictures_of(name, 0, 40)]
    bright = [float(np.asarray(Image.open(p).convert("L")).mean()) for p in pictures]
    table = table_of(
        tmp_path / "bright.csv",
        [(str(p), repr(b)) for p, b in zip(pictures, bright, strict=True)],
        ("path", "brightness"),
    )
    result = done(
        *("fit", table, "-o", tmp_path / "run", "--label", "brightness", "--freeze", "all", "--json"),
        *("--resize", "pretrained"),
    ).json
    assert result["task"] == "regression"
    assert result["score"]["value"] > 0.3
    rows = done("predict", tmp_path / "run", pictures[0], "--json").json
    assert abs(rows[0]["prediction"] - bright[0]) < 60


def test_numbers_of_a_test_set_change_no_bit_of_the_model(job: Job, tmp_path: Path) -> None:
    """Nor do they say by which scale numbers are standardised."""
    others = rows(12, seed=5)
    for name, factor in (("as they are", 1.0), ("larger", 9.0)):
        test = table_of(
            tmp_path / f"{name}.csv", [(t, repr(factor * float(w)), n) for t, w, n in others], HEADER
        )
        more = ("--keep", "3", "--freeze", "1", "--epochs", "2", "--test", test, "--allow-overlap")
        outcome = job.fit(tmp_path / name, "--label", "worth", *more)
        assert outcome.status == 0, outcome.err
    first, second = (tmp_path / name / "model.safetensors" for name in ("as they are", "larger"))
    assert first.read_bytes() == second.read_bytes()


def test_the_report_shows_numbers(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, result = run
    told = done("report", out, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures", "--json").json
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert told["report"] == str(tmp_path / "page.html")
    assert f"R2 {100 * result['score']['value']:.1f} %" in page
    assert "the mean alone gives" in page
    assert "The largest mistakes" in page
    table = (tmp_path / "figures/predicted.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    untouched = read_json(out / "untouched.json")
    assert [[float(r["predicted worth"])] for r in rows] == untouched["predictions"]
    assert [[float(r["true worth"])] for r in rows] == untouched["targets"]
    numbers = read_json(tmp_path / "figures/numbers.json")
    evidence = Evidence.from_json(read_json(out / "evidence.json")["evidence"])
    assert [c["score"] for c in numbers["depth"]["cuts"]] == [c.score for c in evidence.cuts]
    assert numbers["depth"]["chance"] < 0
    beside = called("report", out, out.parent, "-o", tmp_path / "none.html")
    assert beside.status == 2
    assert "predicts numbers" in beside.err
