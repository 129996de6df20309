"""End to end: what reports the final score has no say in any choice; the same plan gives the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import data_of_rows, small_rows

from topgraft.data import hold_out
from topgraft.data.types import Data
from topgraft.features.store import Store
from topgraft.fit import Run, fit
from topgraft.predict import Predictor, rows_of
from topgraft.saved import open_model

DATA = data_of_rows(72)
FORCED = {"keep": "all", "freeze": "1", "epochs": 2}


@pytest.fixture(autouse=True)
def other_random_numbers() -> None:
    """The global stream of random numbers is another each time; no choice may depend on it."""
    torch.manual_seed(int.from_bytes(np.random.default_rng().bytes(4), "little"))


def fitted(data: Data, folder: Path, **options: Any) -> Run:
    given = {
        "backbone": "small_networks:small_rows",
        "folds": 3,
        "budget": 300,
        "store": Store(folder / "store"),
    }
    return fit(data, folder / "run", **{**given, **options})


def decided(run: Run) -> dict[str, Any]:
    """What was chosen, without what was measured in seconds."""
    plan = json.loads((run.folder / "plan.json").read_text())["decisions"]
    return {name: plan[name]["value"] for name in ("keep", "freeze")}


def saved_bits(run: Run) -> dict[str, bytes]:
    names = ["model.safetensors", "evidence.json", "preprocessing/preprocess.json"]
    return {name: (run.folder / name).read_bytes() for name in names}


def test_no_features_of_untouched_examples_are_ever_made(tmp_path):
    run = fitted(DATA, tmp_path, **FORCED)
    _, away = hold_out(DATA, share=0.2, seed=0)
    assert len(away) >= 12
    untouched = {DATA.digests[i] for i in away}
    store = Store(tmp_path / "store")
    stored: set[str] = set()
    for file in store.root.rglob("description.json"):
        description = json.loads(file.read_text())
        if description["what"] != "evidence":  # it is one entry, made of the development part: see below
            stored |= store.shelf(description).known()
    assert stored == set(DATA.digests) - untouched
    evidence = json.loads((run.folder / "evidence.json").read_text())
    assert len(evidence["made_from"]["folds"]) == len(DATA) - len(away)


@pytest.mark.parametrize("options", [FORCED, {"epochs": 2}], ids=["forced", "auto"])
def test_labels_and_inputs_of_a_test_set_change_no_bit_of_the_model(tmp_path, options):
    development, test = DATA.subset(range(48)), DATA.subset(range(48, 72))
    inputs, targets = np.array(test.inputs), np.array(test.targets)
    labels, turned = ([DATA.classes[t % 3] for t in more] for more in (targets, targets + 1))
    others = {
        "as it is": (inputs, labels),
        "other labels": (inputs, turned),
        "other inputs": (3 * inputs + 1, labels),
        "fewer": (inputs[:9], labels[:9]),
    }
    runs = {
        name: fitted(development, tmp_path / name, test=given, **options) for name, given in others.items()
    }
    first = runs["as it is"]
    for run in runs.values():
        assert saved_bits(run) == saved_bits(first)
        assert decided(run) == decided(first)
    scores = {name: run.score for name, run in runs.items()}
    assert scores["other labels"] < scores["as it is"]  # else nothing was really changed


def test_the_score_is_that_of_predicts_rows_on_the_untouched_part(tmp_path):
    run = fitted(DATA, tmp_path, **FORCED)
    _, away = hold_out(DATA, share=0.2, seed=0)
    model = open_model(run.folder, module=small_rows())
    untouched = DATA.subset(away)
    labels = [p.label for p in Predictor(model).predict(rows_of(untouched))]
    assert untouched.targets is not None
    right = sum(label == DATA.classes[t] for label, t in zip(labels, untouched.targets, strict=True))
    assert run.score == right / len(untouched)


@pytest.mark.parametrize("options", [FORCED, {}], ids=["forced", "auto"])
def test_the_same_seed_and_plan_give_the_same_model_bit_for_bit(tmp_path, options):
    first = fitted(DATA, tmp_path / "a", **options)
    again = fitted(DATA, tmp_path / "b", plan=first.folder / "plan.json")
    assert saved_bits(again) == saved_bits(first)
    assert decided(again) == decided(first)
    assert again.score == first.score


def test_another_seed_gives_another_model(tmp_path):
    first, other = (fitted(DATA, tmp_path / str(seed), seed=seed, **FORCED) for seed in (0, 1))
    assert saved_bits(first)["model.safetensors"] != saved_bits(other)["model.safetensors"]
