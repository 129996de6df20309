from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, mean_absolute_error, roc_auc_score

from topgraft.errors import TopgraftError
from topgraft.score import score_predictions
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
