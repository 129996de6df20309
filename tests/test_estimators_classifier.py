"""TransferClassifier: scikit-learn's own checks, and what it promises beside them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from packaged_data import glosses_of
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from small_networks import backbone_of, data_of_maps, differing, example_maps, kept, maps

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.errors import TopgraftError
from topgraft.estimators.base import FitError
from topgraft.estimators.classifier import TransferClassifier
from topgraft.estimators.features import TransferFeatures
from topgraft.estimators.on_all import NotMeasuredWarning
from topgraft.probe import fit_head

Array = np.ndarray


@parametrize_with_checks([TransferClassifier(), TransferFeatures()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def numbers(count: int = 60, seed: int = 0) -> tuple[Array, Array]:
    """Numbers of three classes whose means differ."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % 3
    return rng.normal(size=(count, 4)) + codes[:, None], codes


def arrays(count: int = 36) -> tuple[Array, Array]:
    """Inputs of the small network of maps, and their labels."""
    data = data_of_maps(count)
    return np.asarray(data.inputs), np.array(data.classes)[data.targets]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(), example_maps(2))


@pytest.mark.parametrize("labels", [["b", "a", "c"], [7, -1, 3], [2.0, 1.0, 4.0]])
def test_predictions_are_labels_as_they_were_given(labels):
    X, codes = numbers()
    y = np.array(labels)[codes]
    model = TransferClassifier().fit(X, y)
    assert model.classes_.tolist() == sorted(labels)
    assert model.classes_.dtype == model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.6
    assert (model.predict_proba(X).argmax(1) == np.searchsorted(model.classes_, model.predict(X))).all()


def test_labels_may_be_booleans():
    X, codes = numbers()
    model = TransferClassifier().fit(X, codes == 2)
    assert model.predict(X).dtype == bool
    assert ((model.decision_function(X) > 0) == model.predict(X)).all()


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_on_numbers_it_is_the_probes_head(class_weights):
    X, codes = numbers()
    X, codes = X[10:], np.minimum(codes[10:], 1)
    model = TransferClassifier(class_weights=class_weights).fit(X, codes)
    counts = torch.bincount(torch.from_numpy(codes)).double()
    weights = None if class_weights == "none" else len(codes) / (2 * counts)
    head = fit_head(torch.from_numpy(X), torch.from_numpy(codes), 2, class_weights=weights)
    wanted = torch.softmax(head.logits(torch.from_numpy(X)), 1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), wanted, rtol=1e-12)
    assert (model.keep_, model.freeze_, model.modality_) == (1, 1, "numbers")


def test_balanced_sampling_weighs_what_is_fitted_in_closed_form():
    X, codes = numbers()
    sampled = TransferClassifier(sampling="balanced").fit(X[:40], codes[:40])
    weighed = TransferClassifier(class_weights="balanced").fit(X[:40], codes[:40])
    assert np.array_equal(sampled.predict_proba(X), weighed.predict_proba(X))
    with pytest.raises(TopgraftError, match="together they would overdo it"):
        TransferClassifier(sampling="balanced", class_weights="balanced").fit(X, codes)


@pytest.mark.parametrize("on_network", [False, True])
def test_an_order_makes_the_answer_the_median_class(on_network, backbone, tmp_path):
    names = np.array(["small", "large", "medium"])
    order = ["small", "medium", "large"]
    if on_network:
        X, labels = arrays()
        y = names[np.unique(labels, return_inverse=True)[1] % 3]
        model = TransferClassifier(backbone, order=order, freeze="all", keep=3, store=tmp_path / "store")
    else:
        X, codes = numbers()
        y, model = names[codes], TransferClassifier(order=order)
    known = model.fit(X, y)
    assert known.classes_.tolist() == order
    chances = known.predict_proba(X)
    assert chances.sum(1) == pytest.approx(1)
    assert known.predict(X).tolist() == [order[i] for i in (chances.cumsum(1)[:, :-1] < 0.5).sum(1)]
    assert known.predict(X).tolist() == pickle.loads(pickle.dumps(known)).predict(X).tolist()
    assert known.score(X, y) > 0.5
    if on_network:
        known.save(tmp_path / "saved")
        model = tg.open_model(tmp_path / "saved", module=maps())
        assert model.task == "ordinal"
        said = [p.probabilities for p in tg.predict(model, list(X))]
        assert np.array(said) == pytest.approx(chances, abs=1e-5)
    with pytest.raises(FitError, match="Name each of them once"):
        TransferClassifier(order=order[:2]).fit(X.reshape(len(X), -1), y)


def test_a_head_on_numbers_is_pickled_but_has_no_network_to_save(tmp_path):
    X, codes = numbers()
    model = TransferClassifier().fit(X, codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    with pytest.raises(TopgraftError, match="Keep the estimator with joblib"):
        model.save(tmp_path / "saved")


def test_names_of_columns_are_checked_by_scikit_learn():
    X, codes = numbers()
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler().set_output(transform="pandas"), TransferClassifier())
    model.fit(frame, codes)
    assert model[-1].feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        model[-1].predict(frame[list("dcba")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 2}, "keep=2: numbers without a backbone are a chain of one block"),
        ({"freeze": 0}, "freeze=0: numbers without a backbone"),
        ({"hidden": (8,)}, "hidden and dropout need a backbone"),
        ({"prefer": "cheap"}, "--prefer cheap: give one of small, fast, accuracy"),
    ],
)
def test_what_can_not_be_meant_is_refused(options, said):
    with pytest.raises(TopgraftError, match=said):
        TransferClassifier(**options).fit(*numbers())


def test_one_class_is_refused_as_scikit_learn_expects():
    with pytest.raises(FitError, match="y has 1 class, 'a'") as caught:
        TransferClassifier().fit(["one text", "another text"], ["a", "a"])
    assert isinstance(caught.value, ValueError)


@pytest.mark.usefixtures("one_thread")
def test_a_grid_search_runs_each_block_once_for_each_example(tmp_path):
    network = maps()
    X, y = arrays()
    runs = {"stem": 0, "blocks.2": 0}
    backbone = backbone_of(network, example_maps(2))
    for name in runs:
        count_runs(backbone.network.get_submodule(name), runs, name)
    search = GridSearchCV(
        TransferClassifier(backbone, freeze="all", store=tmp_path),
        {"keep": [1, 2, 3, "all", "auto"]},
        cv=3,
    )
    search.fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 5
    assert search.best_score_ > 0.6
    assert runs == {"stem": len(X), "blocks.2": len(X)}
    search.predict(X)
    assert runs["stem"] == len(X)


def test_a_grid_search_may_train_blocks_and_says_what_it_does(backbone, tmp_path, capsys):
    X, y = arrays()
    model = TransferClassifier(backbone, keep=3, epochs=1, store=tmp_path, verbose=True)
    search = GridSearchCV(model, {"freeze": [2, "all"]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.freeze_ == {2: 2, "all": 3}[search.best_params_["freeze"]]
    assert "4 cuts of 36 examples" in capsys.readouterr().out


def count_runs(module: torch.nn.Module, runs: dict[str, int], name: str) -> None:
    """Count the examples that run through a module and its copies."""

    def count(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        runs[name] += len(inputs[0])

    module.register_forward_pre_hook(count)


def test_the_same_seed_gives_the_same_bits_and_scores_with_and_without_a_store(backbone, tmp_path):
    X, y = arrays()
    options = {"keep": 3, "freeze": 1, "epochs": 2}
    a = TransferClassifier(backbone, **options, store=tmp_path).fit(X, y)
    b = clone(a).set_params(store=False).fit(X, y)
    assert differing(kept(a.model_.graft), kept(b.model_.graft)) == set()
    other = clone(a).set_params(random_state=np.random.RandomState(5)).fit(X, y)
    assert differing(kept(a.model_.graft), kept(other.model_.graft))
    assert a.freeze_ == 1
    assert "as asked" in a.reasons_["freeze"]


def test_frozen_blocks_do_not_change_and_the_others_train(backbone, tmp_path):
    X, y = arrays()
    before = kept(backbone.network)
    model = TransferClassifier(backbone, keep=3, freeze=2, epochs=2, store=tmp_path).fit(X, y)
    graft = model.model_.graft
    frozen = {name for name in graft.kept_weights() if name.startswith(("stem", "blocks.0"))}
    now = {name: tensor for name, tensor in graft.kept_weights().items() if name in before}
    changed = differing(now, {name: before[name] for name in now})
    assert frozen
    assert changed
    assert changed.isdisjoint(frozen)
    assert differing(kept(backbone.network), before) == set()


@pytest.mark.parametrize("options", [{"keep": 2, "freeze": "all"}, {"keep": 3, "freeze": 1, "epochs": 1}])
def test_a_pickled_model_and_a_saved_one_predict_the_same(backbone, tmp_path, options):
    X, y = arrays()
    model = TransferClassifier(backbone, **options, store=tmp_path / "store").fit(X[:30], y[:30])
    wanted = model.predict_proba(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.predict_proba(X), wanted, atol=1e-5)
    model.save(tmp_path / "saved")
    with pytest.raises(TopgraftError, match="saved"):
        model.save(tmp_path / "saved")
    opened = tg.open_model(tmp_path / "saved", module=maps(seed=9))
    told = tg.predict(opened, list(X))
    np.testing.assert_allclose([p.probabilities for p in told], wanted, atol=1e-5)
    assert [p.label for p in told] == model.predict(X).tolist()


def test_depth_is_advised_on_the_examples_that_are_given(backbone, tmp_path):
    X, y = arrays()
    model = TransferClassifier(backbone, freeze="all", store=tmp_path).fit(X, y)
    assert model.keep_ == model.advice_.keep
    assert [cut.keep for cut in model.evidence_.cuts] == [1, 2, 3, 4]
    assert len(model.evidence_.targets) == len(X)
    assert model.reasons_["keep"] == model.advice_.reason
    assert len(model.model_.calibration.scores) == len(X)


def test_a_class_with_one_example_is_learned_without_folds_and_that_is_said(backbone, tmp_path):
    X, y = arrays(31)
    y[30] = "lonely"
    with pytest.warns(NotMeasuredWarning, match='"lonely" has only 1 example.*4 of 4 blocks are kept'):
        model = TransferClassifier(backbone, store=tmp_path).fit(X, y)
    assert (model.keep_, model.freeze_, model.evidence_) == (4, 4, None)
    assert "lonely" in model.classes_
    with pytest.raises(TopgraftError, match='"lonely" has only 1 example'):
        TransferClassifier(backbone, freeze=1, store=tmp_path).fit(X, y)


def test_hidden_layers_train_on_frozen_features(backbone, tmp_path):
    X, y = arrays()
    model = TransferClassifier(backbone, keep=2, freeze="all", hidden=[5], epochs=3, store=tmp_path).fit(X, y)
    assert model.freeze_ == 2
    assert model.model_.graft.head.hidden is not None
    assert model.score(X, y) > 0.6


def test_numbers_may_go_through_a_network_and_a_fit_forgets_the_one_before(tmp_path):
    X, codes = numbers()
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    )
    model = TransferClassifier(network, keep=1, freeze="all", store=tmp_path).fit(X, codes)
    assert (model.n_features_in_, model.modality_) == (4, "array")
    with pytest.raises(ValueError, match="X has 3 features"):
        model.predict(X[:, :3])
    model.set_params(backbone=backbone_of(maps(), example_maps(2))).fit(*arrays())
    assert not hasattr(model, "n_features_in_")
    with pytest.raises(TopgraftError, match="table of numbers; this TransferClassifier was fitted on arrays"):
        model.predict(X)


def test_texts_of_every_container_through_real_weights(tmp_path):
    rows = list(glosses_of(("animal", "food", "person"), 16))
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    model = TransferClassifier(keep="50%", freeze="all", store=tmp_path)
    scores = cross_val_score(model, texts, labels, cv=3)
    assert scores.mean() > 0.6  # one third by chance
    model.fit(pd.Series(texts, name="gloss"), pd.Series(labels))
    wanted = model.predict_proba(texts[:6])
    frame = pd.DataFrame({"gloss": texts[:6]}, index=range(6, 0, -1))
    for given in (frame, np.array(texts[:6]), frame.to_numpy(), tuple(texts[:6])):
        np.testing.assert_array_equal(model.predict_proba(given), wanted)
    upper = make_pipeline(FunctionTransformer(np.char.upper), model).fit(np.array(texts), labels)
    assert upper.predict(np.array(texts[:2])).shape == (2,)


def test_paths_of_pictures_through_real_weights(photos: Path, tmp_path):
    paths = sorted(photos.glob("*/*.webp"))[::3]
    labels = [path.parent.name for path in paths]
    model = TransferClassifier(keep="60%", freeze="all", store=tmp_path).fit(paths, labels)
    assert model.modality_ == "picture"
    assert model.score(paths, labels) > 0.9
    with pytest.raises(TopgraftError, match="no-such"):
        model.predict([paths[0], tmp_path / "no-such.webp"])
