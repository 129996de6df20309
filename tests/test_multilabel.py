"""Several labels an example, as a user does it: from a table to a saved model, its rows and its score."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import FILLING, Job, called, done, table_of, tiny_job
from exported_runs import said_by_an_export
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    label_ranking_average_precision_score,
)
from small_networks import backbone_of, example_maps, maps, material_of

import topgraft as tg
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.evaluating import evaluate
from topgraft.files import read_json
from topgraft.linear import fit_head
from topgraft.objective import losses
from topgraft.search import class_weights, new_graft, recipe_for, source_at

WORDS = {"good": "praise", "bad": "blame", "film": "cinema", "book": "print"}
LABELS = sorted(WORDS.values())


def rows(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Texts and the labels of the words in them, none to four, with ``|`` between them; no text twice."""
    stream, found = random.Random(seed), {}
    while len(found) < count:
        words = [word for word in WORDS if stream.random() < 0.4]
        text = [*stream.choices(FILLING, k=stream.randint(4, 12)), *words]
        stream.shuffle(text)
        found[" ".join(text)] = "|".join(WORDS[word] for word in words)
    return list(found.items())


def matrix_of(cells: list[str]) -> np.ndarray:
    return np.array([[name in cell.split("|") for name in LABELS] for cell in cells])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = tiny_job(tmp_path_factory.mktemp("job") / "here")
    return Job(table_of(made.table.parent / "tags.csv", rows(120), ("text", "tags")), made.backbone)


@pytest.fixture(scope="module", autouse=True)
def _one_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="module")
def run(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("run") / "run"
    outcome = job.fit(out, "--separator", "|", "--keep", "3", "--freeze", "1", "--epochs", "4", "--json")
    assert outcome.status == 0, outcome.err
    assert 'Labels of the column "tags" are parted by "|"' in outcome.err
    return out, outcome.json


def test_a_fit_tells_what_it_predicts_and_how_well(run: tuple[Path, dict]) -> None:
    out, result = run
    assert result["task"] == "multilabel"
    assert [s["metric"] for s in result["scores"]] == [
        "label ranking average precision",
        "micro F1",
        "macro F1",
        "mean average precision",
        "share of labels right",
    ]
    assert all(s["low"] <= s["value"] <= s["high"] for s in result["scores"])
    assert 0 < result["majority"] < 1
    assert result["intervals"] is None
    assert 0 <= result["calibration"]["error"] <= 1
    assert result["trained_parameters"] > 0
    assert read_json(out / "labels.json") == LABELS
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "knowing only how frequent each label is gives" in card


def test_the_score_comes_from_what_predict_says_of_the_untouched_rows(run: tuple[Path, dict]) -> None:
    out, result = run
    untouched = read_json(out / "untouched.json")
    texts = {str(i): text for i, (text, _) in enumerate(rows(120))}
    said = tg.predict(out, [texts[name] for name in untouched["names"]])
    chances, targets = np.array([p.probabilities for p in said]), np.array(untouched["targets"])
    assert chances.tolist() == untouched["probabilities"]
    for metric, value in (
        ("label ranking average precision", label_ranking_average_precision_score(targets, chances)),
        ("micro F1", f1_score(targets, chances > 0.5, average="micro", zero_division=0)),
        ("mean average precision", average_precision_score(targets, chances, average="macro")),
        ("share of labels right", ((chances > 0.5) == targets).mean()),
    ):
        assert next(s["value"] for s in result["scores"] if s["metric"] == metric) == pytest.approx(value)
    for p in said:
        given = [name for name, share in zip(LABELS, p.probabilities, strict=True) if share > 0.5]
        assert p.label == "|".join(given)
        assert p.confidence == min(max(share, 1 - share) for share in p.probabilities)


def test_rows_of_predict_in_every_form(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    table = table_of(tmp_path / "new.csv", [(text,) for text, _ in rows(6, seed=9)], ("text",))
    plain = list(csv.DictReader(io.StringIO(done("predict", out, table).out)))
    assert list(plain[0]) == ["input", "label", "confidence", *(f"p_{name}" for name in LABELS), "error"]
    document = done("predict", out, table, "--coverage", "0.8", "--json").json
    for a, b in zip(plain, document, strict=True):
        assert a["label"] == b["label"]
        assert set(b["set"]) <= set(LABELS)
        assert [b[f"p_{name}"] for name in b["set"]] == sorted(
            (b[f"p_{name}"] for name in b["set"]), reverse=True
        )


def test_sets_hold_all_labels_of_the_share_that_was_asked_for(run: tuple[Path, dict]) -> None:
    model = tg.open_model(run[0])
    assert (model.task, model.separator) == ("multilabel", "|")
    assert model.calibration is not None
    scores = np.array(model.calibration.scores)
    for coverage in (0.5, 0.8):
        assert (scores <= model.calibration.threshold(coverage)).mean() >= coverage


def test_evaluate_gives_each_label_its_row(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    new = rows(40, seed=3)
    table = table_of(
        tmp_path / "more.csv", [*new, ("a book about people", "print|strange")], ("text", "tags")
    )
    outcome = done("evaluate", out, table, "--json")
    assert "1 label that is none of the 4 known is left out: strange" in outcome.err
    told = outcome.json
    targets = matrix_of([cell for _, cell in new] + ["print"])
    assert [one["label"] for one in told["labels"]] == LABELS
    assert [one["support"] for one in told["labels"]] == targets.sum(0).tolist()
    said = tg.predict(out, [text for text, _ in new] + ["a book about people"])
    given = np.array([p.probabilities for p in said]) > 0.5
    expected = f1_score(targets, given, average=None, zero_division=0)
    assert [one["f1"] for one in told["labels"]] == pytest.approx(expected.tolist())


def test_columns_of_zeros_and_ones_are_the_same_labels(job: Job, tmp_path: Path) -> None:
    known = read(job.table, task="multilabel")
    table = tmp_path / "wide.csv"
    cells = [[text, *(str(int(name in tags.split("|"))) for name in LABELS)] for text, tags in rows(120)]
    table_of(table, cells, ("text", *LABELS))
    wide = read(table, label=",".join(LABELS), task="multilabel")
    assert (wide.targets == known.targets).all()
    assert wide.classes == known.classes
    assert wide.fingerprint == known.fingerprint
    numbers = read(table, label=",".join(LABELS))
    assert numbers.task == "regression"
    assert any("hold 0 and 1 only" in note for note in numbers.notes)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("--separator", ";"), 'Some hold "|": --separator "|"?'),
        (("--separator", "|", "--task", "regression"), "parts several labels of one example"),
        (("--label", "tags,text", "--task", "multilabel", "--max-unreadable", "0.5"), "neither 0 nor 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(job: Job, tmp_path: Path, command: tuple, words: str) -> None:
    outcome = job.fit(tmp_path / "run", *command)
    assert outcome.status == 2
    assert words in outcome.err.replace("\n", " ")


def test_an_export_gives_the_rows_of_predict_and_tells_what_8_bits_cost(
    job: Job, run: tuple[Path, dict], tmp_path: Path
) -> None:
    scored = said_by_an_export(run[0], job, tmp_path)
    assert scored["metric"] == "label ranking average precision"


def test_what_is_not_there_yet_says_so(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    outcome = called("report", out, out, "-o", tmp_path / "two.html")
    assert outcome.status == 2


def test_a_report_has_a_row_a_label(run: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = run
    done("report", out, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    written = (tmp_path / "figures" / "labels.csv").read_text(encoding="utf-8")
    table = list(csv.DictReader(io.StringIO(written)))
    assert [row["label"] for row in table] == LABELS
    assert "label told worst" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def data() -> Data:
    """Maps with two labels: the mean of either channel is high; a third that few have."""
    values = example_maps(60).numpy() + np.linspace(-1, 1, 60, dtype=np.float32)[:, None, None, None]
    means = values.mean((2, 3))
    has = np.stack([means[:, 0] > 0.2, means[:, 1] > -0.2, np.arange(60) % 12 == 0], 1)
    return read(values, targets=has, near_duplicates=False)


def test_before_the_first_step_the_loss_is_the_probes(data: Data, tmp_path: Path) -> None:
    backbone = backbone_of(maps(), example_maps())
    material = material_of(backbone, data, tmp_path)
    graft = new_graft(material, 3, 1, material.rows)
    source, _ = source_at(material, 3, 1)
    loss, score, found = evaluate(graft, source, material.targets, material.rows)
    head = fit_head(material.features.cuts[3][material.rows], material.targets[material.rows], 3)
    logits = head.logits(material.features.cuts[3][material.rows])
    wanted = material.targets[material.rows]
    assert loss == pytest.approx(float(losses(logits, wanted).mean()), rel=1e-4)
    assert score == pytest.approx(
        label_ranking_average_precision_score(wanted.numpy(), logits.numpy()), abs=1e-6
    )
    assert score == pytest.approx(float(found.mean()))


def test_balanced_weights_move_the_log_odds_of_rare_labels_and_count_in_training(
    data: Data, tmp_path: Path
) -> None:
    backbone = backbone_of(maps(), example_maps())
    plain = material_of(backbone, data, tmp_path)
    weighted = replace(plain, settings=replace(plain.settings, class_weights="balanced"))
    weights = class_weights(weighted, plain.rows)
    held = plain.targets[plain.rows].double().sum(0)
    assert weights is not None
    assert torch.allclose(weights, (len(plain.rows) - held) / held)
    assert recipe_for(weighted, 3, 1, plain.rows).class_weights == tuple(weights.tolist())
    heads = [
        new_graft(m, 3, 3, m.rows, class_weights=w).head.linear
        for m, w in ((plain, None), (weighted, weights))
    ]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.allclose((heads[1].bias - heads[0].bias).double(), weights.log(), atol=1e-5)


def test_lists_of_names_indicators_and_cells_are_the_same_data() -> None:
    texts, cells = [text for text, _ in rows(40)], [cell for _, cell in rows(40)]
    has = matrix_of(cells)
    lists = [cell.split("|") if cell else [] for cell in cells]
    known = read(texts, targets=lists)
    assert known.task == "multilabel"
    assert (known.targets == has).all()
    assert (read(texts, targets=cells, task="multilabel").targets == has).all()
    named = read(texts, targets=has, classes=LABELS)
    assert named.fingerprint == known.fingerprint
    assert read(texts, targets=has).classes == ("label_1", "label_2", "label_3", "label_4")


def test_lists_of_names_are_labels_also_where_no_example_has_two() -> None:
    texts = [text for text, _ in rows(30)]
    known = read(texts, targets=[["red"], ["round"], []] * 10)
    assert (known.task, known.classes) == ("multilabel", ("red", "round"))
    assert known.targets.tolist() == [[True, False], [False, True], [False, False]] * 10
