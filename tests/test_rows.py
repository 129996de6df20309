"""Rows from end to end: a network for one's own table, and its graft as the backbone of a related one."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from command_line import called, done
from made_rows import table, written
from sklearn.model_selection import cross_val_score

import topgraft as tg
from topgraft.backbones import RowPreprocess
from topgraft.console import Console
from topgraft.errors import TopgraftError
from topgraft.estimators.base import ColumnsWarning
from topgraft.estimators.classifier import TransferClassifier
from topgraft.estimators.features import TransferFeatures
from topgraft.estimators.regressor import TransferRegressor
from topgraft.files import read_json
from topgraft.fit import begin
from topgraft.saved import open_model

pytestmark = pytest.mark.usefixtures("own_store_one_thread")

SHORT = ("--epochs", "3", "--engine", "torch", "--precision", "fp32")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graft of a table of 400 rows, every block trained for three epochs."""
    folder = tmp_path_factory.mktemp("rows")
    source = written(table(400).drop(columns="spent"), folder / "big.csv")
    out = done(
        "fit", source, "--label", "bought", "--backbone", "rows", "-o", folder / "big.topgraft", *SHORT
    )
    assert "Keep 7 (to blocks.5): the network has random values" in out.out
    return folder / "big.topgraft"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A related table: other order, another town, one column less and one more."""
    frame = table(80, seed=7).drop(columns=["kids", "spent"]).assign(garden=1.0)
    frame.loc[:2, "town"] = "Kiel"
    frame = frame[["town", "bought", "garden", "income", "age"]]
    return written(frame, tmp_path_factory.mktemp("rows") / "small.csv")


def test_every_block_of_a_network_from_random_values_is_trained_and_the_reason_is_kept(big: Path):
    plan = read_json(big / "plan.json")["decisions"]
    assert (plan["keep"]["value"], plan["freeze"]["value"]) == (7, 0)
    assert plan["keep"]["reason"] == "the network has random values, so that every block is trained"
    assert open_model(big).graft.freeze == 0


def test_its_graft_is_the_backbone_of_a_table_whose_columns_differ(big: Path, small: Path, tmp_path: Path):
    out = tmp_path / "small.topgraft"
    told = done(
        "fit", small, "--label", "bought", "--backbone", big, "-o", out, "--freeze", "all", *SHORT
    ).out
    assert "3 of 4 columns were found by name." in told
    assert "lacks kids: missing in every row." in told
    assert "left out: garden." in told
    assert '"town": 3 of 80 rows have a category without an entry of its own (Kiel)' in told
    first, second = open_model(big), open_model(out)
    assert second.preprocess == first.preprocess
    kept = second.graft.kept_weights()
    assert kept
    assert all(torch.equal(tensor, first.graft.kept_weights()[name]) for name, tensor in kept.items())


def test_predictions_go_by_names_of_columns(big: Path, tmp_path: Path):
    new = table(20, seed=3).drop(columns="spent")
    model = open_model(big)
    plain = tg.predict(model, written(new, tmp_path / "new.csv"))
    turned = new[["bought", "town", "kids", "income", "age"]].assign(more="x")
    ways = [
        written(turned, tmp_path / "turned.parquet"),
        turned,
        pl.from_pandas(turned),
        turned.astype(object).where(turned.notna(), None).to_dict("records"),
    ]
    for way in ways:
        assert [p.probabilities for p in tg.predict(model, way)] == [p.probabilities for p in plain]
    lacking = new.drop(columns=["income", "town"])
    empty = new.assign(income=np.nan, town=None)
    assert [p.probabilities for p in tg.predict(model, lacking)] == [
        p.probabilities for p in tg.predict(model, empty)
    ]


def test_a_bad_cell_is_the_error_of_its_row_alone(big: Path, tmp_path: Path):
    text = "age,town,kids\n31,Ulm,1\nold,Rom,2\n50,Oslo\n"
    (tmp_path / "new.csv").write_text("age,town,kids\n31,Ulm,1\nold,Rom,2\n50,Oslo,\n")
    by_file, by_stream = (
        list(csv.DictReader(io.StringIO(done("predict", big, given, stdin=text).out)))
        for given in (tmp_path / "new.csv", "-")
    )
    assert by_file == by_stream
    assert [row["error"] for row in by_file] == ["", "column \"age\" holds numbers, and 'old' is none", ""]
    told = done("predict", big, tmp_path / "new.csv").err
    assert "lacks income: missing in every row" in told


def test_evaluate_is_what_predict_says(big: Path, tmp_path: Path):
    new = table(50, seed=4).drop(columns="spent")[["town", "kids", "bought", "age", "income"]]
    path = written(new, tmp_path / "new.csv")
    found = tg.predict(open_model(big), path)
    right = np.mean([p.label == label for p, label in zip(found, new["bought"], strict=True)])
    assert done("evaluate", big, path, "--json").json["score"]["value"] == pytest.approx(right)
    told = done("evaluate", big, written(new.drop(columns="age"), tmp_path / "less.csv"))
    assert "lacks age: missing in every row" in told.out
    refused = called("evaluate", big, written(new.assign(age="old"), tmp_path / "odd.csv"))
    assert refused.status == 2
    assert 'Column "age" held numbers' in refused.err


def test_numbers_are_predicted_too(tmp_path: Path):
    source = written(table(150).drop(columns="bought"), tmp_path / "spent.parquet")
    out = done("fit", source, "--label", "spent", "--columns", "all", "-o", tmp_path / "m.topgraft", *SHORT)
    assert "R2" in out.out
    model = open_model(tmp_path / "m.topgraft")
    assert model.outputs == ("spent",)
    values = [p.values[0] for p in tg.predict(model, table(9, seed=2))]
    assert all(-200 < value < 300 for value in values)


def test_rows_of_the_untouched_part_change_nothing_that_is_learned():
    frame = table(120).drop(columns="spent")

    def begun(given: pd.DataFrame) -> tuple[RowPreprocess, set[int]]:
        start = begin(given, label="bought", backbone="rows", console=Console())
        known = start.ready.backbone.preprocess
        assert isinstance(known, RowPreprocess)
        return known, {int(name) for name in start.ready.untouched.names}

    learned, away = begun(frame)
    assert 20 <= len(away) <= 28
    changed = frame.copy()
    changed.loc[sorted(away), "age"] += 1000.0
    changed.loc[sorted(away), "town"] = "Kiel"
    assert begun(changed) == (learned, away)
    changed.loc[:, "age"] += 1000.0
    assert begun(changed)[0] != learned


def test_a_test_set_that_could_not_be_scored_is_refused_before_anything_is_learned(tmp_path: Path):
    source = written(table(60).drop(columns="spent"), tmp_path / "a.csv")
    odd = written(table(30, seed=9).drop(columns="spent").assign(age="old"), tmp_path / "b.csv")
    refused = called(
        "fit", source, "--label", "bought", "--columns", "all", "--test", odd, "-o", tmp_path / "m"
    )
    assert refused.status == 2
    assert 'Column "age" held numbers' in refused.err
    assert not (tmp_path / "m").exists()


def test_a_damaged_description_of_columns_is_refused(big: Path, tmp_path: Path):
    import json
    import shutil

    broken = tmp_path / "broken.topgraft"
    shutil.copytree(big, broken)
    path = broken / "preprocessing" / "preprocess.json"
    document = json.loads(path.read_text())
    document["columns"].pop()
    path.write_text(json.dumps(document))
    for opened in (open_model, lambda folder: tg.load(str(folder))):
        with pytest.raises(TopgraftError, match="not those of its network"):
            opened(broken)


def test_estimators_take_frames(big: Path):
    frame = table(90, seed=5)
    X, y = frame.drop(columns=["bought", "spent"]), frame["bought"]
    options = {"keep": "all", "freeze": "all", "store": False}
    model = TransferClassifier(str(big), **options).fit(X, y)
    assert model.modality_ == "row"
    turned = pl.from_pandas(X[["town", "kids", "income", "age"]])
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(turned))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    with pytest.warns(ColumnsWarning, match="lacks kids"):
        model.predict(X.drop(columns="kids"))
    with pytest.raises(TopgraftError, match="give a data frame"):
        model.predict(np.zeros((3, 4)))
    scores = cross_val_score(TransferClassifier(str(big), **options), X, y, cv=3)
    assert scores.mean() > 0.6
    assert TransferFeatures(str(big), store=False).fit(X).transform(X).shape == (90, 128)
    numbers = TransferRegressor("rows", epochs=2, store=False).fit(X, frame["spent"])
    assert (numbers.keep_, numbers.freeze_) == (7, 0)
    assert numbers.predict(X).shape == (90,)
    with pytest.raises(TopgraftError, match='backbone="rows"'):
        TransferClassifier().fit(X, y)


@pytest.mark.exhaustive
def test_the_simple_baseline_and_random_values_stand_beside_it(big: Path, tmp_path: Path):
    source = written(table(80, seed=8).drop(columns="spent"), tmp_path / "c.csv")
    told = done("compare", source, "--label", "bought", "--backbone", big, "--budget", "4", "--json").json
    assert {arm["name"] for arm in told["arms"]} >= {"pretrained", "scratch", "baseline"}
    assert any("one-hot" in arm["told"] for arm in told["arms"])


def test_probe_measures_every_depth(big: Path, small: Path):
    cuts = done("probe", small, "--label", "bought", "--backbone", big, "--json").json["cuts"]
    assert [cut["block"] for cut in cuts] == ["embedding", *(f"blocks.{i}" for i in range(6))]


@pytest.mark.parametrize(
    "to",
    [
        "onnx",
        "state-dict",
        "huggingface",
        *[pytest.param(to, marks=pytest.mark.exhaustive) for to in ("torch", "openvino")],
    ],
)
def test_an_export_computes_the_same(to: str, big: Path, tmp_path: Path):
    told = done("export", big, "--to", to, "-o", tmp_path / "out", "--json").json
    assert told["checked_on"] == "6 made-up rows"
    assert told["inputs"][0]["shape"] == ["batch", told["inputs"][0]["shape"][1]]
    assert told["difference"]["probabilities"] < 1e-5


def test_mixtures_of_rows_are_refused(small: Path, tmp_path: Path):
    refused = called(
        "fit", small, "--label", "bought", "--backbone", "rows", "--mixup", "1", "-o", tmp_path / "m"
    )
    assert refused.status == 2
    assert "categories of rows have no mixture" in refused.err
