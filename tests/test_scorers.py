from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, mean_absolute_error, roc_auc_score

from topgraft.errors import TopgraftError
from topgraft.score import score_predictions, wilson_interval
from topgraft.scorers import must_be_scorers, score_by


def drawn(n: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    said = rng.dirichlet(np.ones(3), n)
    return np.array([rng.choice(3, p=share) for share in said]), said


def test_classes_by_answers_and_by_probabilities() -> None:
    targets, said = drawn()
    balanced = score_by("balanced_accuracy", "classification", targets, said)
    assert balanced.value == pytest.approx(balanced_accuracy_score(targets, said.argmax(1)))
    own = score_predictions(targets, said.argmax(1))[1]
    assert (balanced.low, balanced.high) == pytest.approx((own.low, own.high), abs=0.03)
    area = score_by("roc_auc_ovr", "classification", targets, said)
    assert area.value == pytest.approx(roc_auc_score(targets, said, multi_class="ovr"))
    assert area.low < area.value < area.high


def test_labels_and_numbers() -> None:
    rng = np.random.default_rng(0)
    chances = rng.random((100, 3))
    has = rng.random((100, 3)) < chances
    labels = score_by("f1_samples", "multilabel", has, chances)
    assert labels.value == pytest.approx(f1_score(has, chances > 0.5, average="samples", zero_division=0))
    numbers = rng.normal(size=(100, 1))
    error = score_by("neg_mean_absolute_error", "regression", numbers + 0.5, numbers)
    assert error.value == pytest.approx(-mean_absolute_error(numbers + 0.5, numbers))


def test_groups_are_drawn_whole() -> None:
    targets, said = drawn(40)
    targets, said = np.repeat(targets, 4), np.repeat(said, 4, axis=0)
    apart = score_by("f1_macro", "classification", targets, said)
    together = score_by("f1_macro", "classification", targets, said, groups=np.repeat(np.arange(40), 4))
    assert together.high - together.low > 1.4 * (apart.high - apart.low)


def test_a_score_that_most_samples_lack_has_no_interval() -> None:
    targets = np.array([0] * 12 + [1])
    said = np.column_stack([np.linspace(0.9, 0.1, 13), np.linspace(0.1, 0.9, 13)])
    found = score_by("roc_auc", "classification", targets, said)
    assert found.value == 1
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    ("name", "task", "targets", "words"),
    [
        ("f1_makro", "classification", None, "Nearest: f1_macro"),
        ("r2", "classification", None, "scores predicted numbers"),
        ("precision", "classification", np.array([0, 1, 2]), "can't score this classification"),
        ("accuracy", "regression", np.array([[0.5], [1.5]]), "can't score this regression"),
    ],
)
def test_what_can_not_be_told_is_refused(name: str, task: str, targets: np.ndarray, words: str) -> None:
    with pytest.raises(TopgraftError, match=words):
        must_be_scorers([name], task, targets)


def test_a_scorer_of_two_classes_is_refused_for_three_whatever_the_data_hold() -> None:
    two_of_three = np.array([0, 1, 0, 1])
    must_be_scorers(["f1"], "classification", two_of_three, classes=2)
    with pytest.raises(TopgraftError, match="--score f1 can't score this classification"):
        must_be_scorers(["f1"], "classification", two_of_three, classes=3)


def test_clusterings_are_not_scored() -> None:
    with pytest.raises(TopgraftError, match="--score adjusted_rand_score compares clusterings"):
        must_be_scorers(["adjusted_rand_score"], "classification")


@pytest.mark.parametrize(
    ("name", "classes", "near"),
    [
        ("f1", 3, "f1_macro"),
        ("precison", 3, "precision_macro"),
        ("precison", 2, "precision"),
        ("roc_auc", 3, "roc_auc_ovr"),
    ],
)
def test_a_refusal_names_the_nearest_that_works(name: str, classes: int, near: str) -> None:
    with pytest.raises(TopgraftError) as refused:
        must_be_scorers([name], "classification", classes=classes)
    named = str(refused.value).rpartition("Nearest: ")[2].rstrip(".").split(", ")
    assert near in named
    for one in named:
        must_be_scorers([one], "classification", classes=classes)
    with pytest.raises(TopgraftError, match=r"Nearest: .*neg_mean_squared_error"):
        must_be_scorers(["mean_squared_error"], "regression")


def test_what_the_untouched_examples_can_not_tell_is_refused_before_the_training() -> None:
    known, untouched = np.array([0, 1, 2] * 4), np.array([0, 1, 0, 1])
    must_be_scorers(["f1_macro"], "classification", known, classes=3, untouched=untouched)
    with pytest.raises(TopgraftError, match="1 of the classes has no untouched example"):
        must_be_scorers(["roc_auc_ovr"], "classification", known, classes=3, untouched=untouched)
    must_be_scorers(["roc_auc_ovr"], "classification", known, classes=3, untouched=known)


def test_where_nothing_is_wrong_the_interval_is_that_of_a_share() -> None:
    targets = np.array([0, 1] * 20)
    found = score_by("balanced_accuracy", "classification", targets, np.eye(2)[targets])
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(wilson_interval(1.0, 40)[0])
    grouped = score_by(
        "f1", "classification", targets, np.eye(2)[targets], groups=np.repeat(np.arange(10), 4)
    )
    assert grouped.low < found.low
    error = score_by("neg_mean_absolute_error", "regression", np.zeros((9, 1)), np.zeros((9, 1)))
    assert error.value == 0
    assert math.isnan(error.low)
