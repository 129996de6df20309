"""Every task on every kind of data with scikit-learn's estimators.

Real weights where there are some; `make test` runs a sample.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from every_task import LEVELS, MADE, TASKS, Examples, cases, limits_of, names_of, network_for
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.model_selection import GridSearchCV

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.data import Sound, open_sound
from topgraft.estimators.base import FitError
from topgraft.estimators.classifier import TransferClassifier
from topgraft.estimators.features import TransferFeatures
from topgraft.estimators.regressor import TransferRegressor
from topgraft.probe import fit_head

KEPT = {"picture": 6, "text": 2, "sound": 3, "row": "all", "array": 2, "numbers": "auto"}
SAMPLE = {("numbers", "multilabel"), ("array", "multilabel"), ("sound", "features")}
WITH_FEATURES = ("features", *(task for task in TASKS if task != "ordinal"))
pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory):
    """Examples and a backbone by modality; numbers are arrays without a backbone."""

    class Given(dict[str, tuple[Examples, Backbone | None]]):
        def __missing__(self, modality: str) -> tuple[Examples, Backbone | None]:
            name = "array" if modality == "numbers" else modality
            examples = MADE[name](tmp_path_factory.mktemp(modality))
            backbone = None if modality == "numbers" else network_for(name, examples)
            self[modality] = examples, backbone
            return self[modality]

    return Given()


def labels_of(task: str, examples: Examples, limits: tuple[float, float, float]) -> np.ndarray:
    """Labels as users of scikit-learn give them: ``(n,)``, of several ``(n, 2)`` zeros and ones."""
    cells = names_of(task, examples, limits)
    if task == "regression":
        return np.array([float(cell) for cell in cells])
    if task == "multilabel":
        return np.array([[int(name in cell) for name in ("first", "large")] for cell in cells])
    return np.array(cells)


@pytest.mark.parametrize(("modality", "task"), cases(KEPT, TASKS, SAMPLE))
def test_it_learns_predicts_and_is_kept(given, modality: str, task: str, tmp_path: Path) -> None:
    examples, backbone = given[modality]
    (known, new), limits = examples.parted(), limits_of(examples)
    y, wanted = (labels_of(task, part, limits) for part in (known, new))
    options: dict[str, Any] = {"keep": KEPT[modality], "freeze": "auto" if backbone is None else "all"}
    if task == "regression":
        model: Any = TransferRegressor(backbone, **options)
    else:
        model = TransferClassifier(backbone, order=LEVELS if task == "ordinal" else None, **options)
    model.fit(known.inputs, y)
    assert model.modality_ == modality
    said = model.predict(new.inputs)
    assert said.shape == wanted.shape
    assert said.dtype.kind == wanted.dtype.kind
    again = pickle.loads(pickle.dumps(model)).predict(new.inputs)
    near = 0.01 * examples.values.std()  # other batches have other last digits, which a head multiplies
    assert np.allclose(again, said, atol=near) if task == "regression" else (again == said).all()
    every = labels_of(task, examples, limits)
    _, counts = np.unique(every, axis=0, return_counts=True)
    assert model.score(examples.inputs, every) > (0.3 if task == "regression" else counts.max() / len(every))
    if backbone is None:
        return
    model.save(tmp_path / "saved")
    own = {"module": network_for(modality, examples).network} if modality == "array" else {}
    rows = tg.predict(tg.open_model(tmp_path / "saved", **own), new.inputs)
    if task == "regression":
        assert np.allclose([p.values[0] for p in rows], said, atol=near)
    elif task == "multilabel":
        assert np.allclose([p.probabilities for p in rows], model.predict_proba(new.inputs), atol=1e-3)
    else:
        assert [p.label for p in rows] == said.tolist()


@pytest.mark.parametrize(("modality", "task"), cases(KEPT, WITH_FEATURES, SAMPLE))
def test_features_are_those_of_the_cut_and_auto_goes_by_any_labels(given, modality: str, task: str) -> None:
    examples, backbone = given[modality]
    if backbone is None:
        found = TransferFeatures().fit(examples.inputs).transform(examples.inputs)
        assert np.array_equal(found, examples.inputs)
        return
    if task == "features":
        found = TransferFeatures(backbone, keep=2, store=False).fit_transform(examples.inputs)
        part = examples.part(np.array([3, 0]))
        alone = TransferFeatures(backbone, keep=2).fit(part.inputs).transform(part.inputs)
        assert np.allclose(found[[3, 0]], alone, atol=1e-4)
        assert np.abs(found[3] - found[0]).max() > 0.01
        return
    features = TransferFeatures(backbone, keep="auto", folds=3)
    features.fit(examples.inputs, labels_of(task, examples, limits_of(examples)))
    assert features.keep_ == features.advice_.keep
    assert len(features.evidence_.cuts) == len(backbone.chain)
    assert max(cut.score for cut in features.evidence_.cuts) > 0.2


def test_several_labels_are_told_apart_each_for_itself() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4))
    y = np.stack([X[:, 0] > 0.3, X[:, 1] + 0.3 * rng.normal(size=120) > 0, X[:, 2] < -0.5], 1)
    model = TransferClassifier().fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict(X).dtype == bool
    assert model.score(X, y) > 0.6
    assert np.allclose(model.predict_proba(X), expit(model.decision_function(X)))
    assert np.allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    assert np.array_equal(model.predict_proba(X) > 0.5, model.predict(X))
    head = fit_head(torch.from_numpy(X), torch.from_numpy(y), 3)
    assert np.allclose(model.decision_function(X), head.logits(torch.from_numpy(X)).numpy())
    frame = pd.DataFrame(y.astype(int), columns=["red", "round", "small"])
    named = TransferClassifier().fit(X, frame)
    assert named.classes_.tolist() == ["red", "round", "small"]
    assert np.array_equal(named.predict(X), model.predict(X).astype(int))
    sparse = TransferClassifier().fit(X, csr_matrix(y.astype(int)))
    assert np.array_equal(sparse.predict(X), named.predict(X))
    balanced = TransferClassifier(class_weights="balanced").fit(X, y)
    assert balanced.predict(X)[:, 2].sum() > model.predict(X)[:, 2].sum()
    search = GridSearchCV(TransferClassifier(), {"class_weights": ["none", "balanced"]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.5


@pytest.mark.parametrize(
    ("y", "options", "said"),
    [
        (np.eye(12, 3), {"order": [0, 1, 2]}, "order is for one class an example"),
        (np.eye(12, 3), {"sampling": "balanced"}, "For several labels: class_weights='balanced'"),
        (np.c_[np.eye(12, 2), np.ones(12)], {}, "All of the 12 examples have the label 2"),
        (pd.DataFrame(np.eye(12, 2), columns=["a", "b"]).assign(c=0.0), {}, "None of the .* the label 'c'"),
        (pd.DataFrame(np.eye(12, 2), columns=["a|b", "c"]), {}, 'has "|" in its name'),
    ],
)
def test_several_labels_that_can_not_be_meant_are_refused(y, options, said) -> None:
    with pytest.raises(FitError, match=said.replace("|", r"\|")):
        TransferClassifier(**options).fit(np.random.default_rng(0).normal(size=(12, 3)), y)


def test_decoded_sounds_are_examples_as_their_files_are(given) -> None:
    examples, backbone = given["sound"]
    files = examples.inputs[:24]
    sounds = [open_sound(path) for path in files]
    assert all(isinstance(sound, Sound) for sound in sounds)
    found = TransferFeatures(backbone, keep=2, store=False).fit(sounds).transform(sounds)
    wanted = TransferFeatures(backbone, keep=2, store=False).fit(files).transform(files)
    assert np.allclose(found, wanted, atol=1e-5)
