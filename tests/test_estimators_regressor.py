"""TransferRegressor: scikit-learn's own checks, and what it promises beside them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from packaged_data import glosses_of
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from small_networks import backbone_of, data_of_maps, differing, example_maps, kept, maps

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.estimators.base import FitError
from topgraft.estimators.on_all import NotMeasuredWarning
from topgraft.estimators.regressor import TransferRegressor

Array = np.ndarray


@parametrize_with_checks([TransferRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def arrays(count: int = 48) -> tuple[Array, Array]:
    """Inputs of the small network of maps, and a number of each."""
    X = np.asarray(data_of_maps(count).inputs)
    return X, 500 + 40 * X.mean((1, 2, 3)) + X[:, 0, 0, 0]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(), example_maps(2))


def test_on_numbers_it_is_the_ridge_of_scikit_learn_on_standardised_columns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) * [1, 10, 100, 1, 1] + 7
    y = 1e4 + X @ [3, 0.2, -0.01, 0, 0] + rng.normal(size=200)
    model = TransferRegressor().fit(X, y)
    peer = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 57))).fit(X, y)
    assert np.abs(model.predict(X) - peer.predict(X)).max() < 0.05
    assert model.score(X, y) == pytest.approx(peer.score(X, y), abs=1e-3)
    assert model.predict(X).dtype == np.float64


@pytest.mark.parametrize("on_numbers", [True, False])
def test_several_outputs_and_one_keep_their_shape(on_numbers, backbone, tmp_path):
    X, y = arrays()
    if on_numbers:
        X, backbone = X.reshape(len(X), -1)[:, :6], None
    both = np.stack([y, -2 * y + 3], 1)
    model = TransferRegressor(backbone, freeze="all", store=tmp_path)
    assert model.fit(X, y).predict(X).shape == (48,)
    assert model.fit(X, both).predict(X).shape == (48, 2)
    frame = pd.DataFrame(both, columns=["a", "b"])
    assert np.array_equal(clone(model).fit(X, frame).predict(X), model.predict(X))
    twice = model.predict(X)
    assert np.allclose(twice[:, 1], -2 * twice[:, 0] + 3, rtol=1e-4)


def test_depth_is_chosen_and_what_is_not_frozen_trains(backbone, tmp_path):
    X, y = arrays()
    model = TransferRegressor(backbone, keep=3, freeze=1, epochs=2, store=tmp_path).fit(X, y)
    assert (model.keep_, model.freeze_) == (3, 1)
    assert model.evidence_ is not None
    before, now = kept(backbone.network), kept_of(model)
    changed = differing(now, {name: before[name] for name in now})
    assert changed
    assert not any(name.startswith("stem") for name in changed)
    auto = TransferRegressor(backbone, freeze="all", store=tmp_path).fit(X, y)
    assert auto.keep_ == auto.advice_.keep


def kept_of(model: TransferRegressor) -> dict[str, torch.Tensor]:
    return dict(model.model_.backbone_weights())


def test_search_pickle_and_saving(backbone, tmp_path):
    X, y = arrays()
    search = GridSearchCV(
        TransferRegressor(backbone, freeze="all", store=tmp_path / "store"), {"keep": [1, 3]}, cv=3
    ).fit(X, y)
    model = search.best_estimator_
    said = model.predict(X)
    assert np.allclose(pickle.loads(pickle.dumps(model)).predict(X), said, rtol=1e-6)
    model.save(tmp_path / "saved")
    opened = tg.open_model(tmp_path / "saved", module=maps())
    rows = np.array([p.values[0] for p in tg.predict(opened, list(X))])
    assert np.allclose(rows, said, rtol=1e-5)
    assert cross_val_score(clone(model), X, y, cv=3).shape == (3,)


def test_texts_by_the_packaged_network(tmp_path: Path):
    texts = [text for text, _ in glosses_of(["animal", "food"], 30)]
    lengths = np.array([len(text) for text in texts], dtype=float)
    model = TransferRegressor(keep=2, freeze="all", store=tmp_path).fit(texts[:40], lengths[:40])
    assert model.modality_ == "text"
    apart = np.abs(model.predict(texts[40:]) - lengths[40:]).mean()
    assert apart < np.abs(lengths[40:] - lengths[:40].mean()).mean()


def test_what_can_not_be_learned_is_refused():
    X = np.random.default_rng(0).normal(size=(12, 3))
    with pytest.raises(FitError, match='All 12 numbers of "y" are 3'):
        TransferRegressor().fit(X, np.full(12, 3.0))
    with pytest.raises(ValueError, match="requires y to be passed"):
        TransferRegressor().fit(X, None)
    with pytest.raises(FitError, match="hidden and dropout need a backbone"):
        TransferRegressor(hidden=(8,)).fit(X, X[:, 0])


def test_too_few_examples_for_folds_are_said(backbone, tmp_path):
    X, y = arrays(6)
    with pytest.warns(NotMeasuredWarning, match="at least 10 are needed"):
        model = TransferRegressor(backbone, store=tmp_path).fit(X, y)
    assert model.keep_ == model.freeze_ == len(backbone.chain)
