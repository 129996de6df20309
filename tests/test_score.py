from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support

from topgraft.errors import TopgraftError
from topgraft.score import (
    accuracy,
    accuracy_interval,
    balanced_accuracy,
    class_scores,
    cross_validated_interval,
    macro_f1,
    majority_score,
    score_predictions,
    wilson_interval,
)


@pytest.fixture(params=range(4))
def answers(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(request.param)
    targets = rng.choice(5, 60, p=[0.5, 0.3, 0.1, 0.1, 0.0])
    return targets, np.where(rng.random(60) < 0.6, targets, rng.integers(0, 4 + request.param % 2, 60))


def test_scores_are_those_of_scikit_learn(answers: tuple[np.ndarray, np.ndarray]) -> None:
    targets, predictions = answers
    assert accuracy(targets, predictions) == np.mean(targets == predictions)
    assert macro_f1(targets, predictions) == pytest.approx(f1_score(targets, predictions, average="macro"))
    known = np.isin(predictions, targets)  # scikit-learn warns about others
    assert balanced_accuracy(targets[known], predictions[known]) == pytest.approx(
        balanced_accuracy_score(targets[known], predictions[known])
    )
    theirs = precision_recall_fscore_support(targets, predictions, labels=range(5), zero_division=0)
    ours = class_scores(targets, predictions, 5)
    np.testing.assert_allclose(np.array([(c.precision, c.recall, c.f1, c.support) for c in ours]).T, theirs)


def test_majority_score_is_the_share_of_the_largest_class() -> None:
    assert majority_score(np.array([3, 3, 0, 1, 3])) == 0.6


@pytest.mark.parametrize(("right", "n"), [(0, 9), (7, 9), (9, 9), (300, 1000)])
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_few_degrees_of_freedom_widen() -> None:
    low, high = wilson_interval(0.6, 50, freedom=4)
    plain = wilson_interval(0.6, 50)
    assert low < plain[0]
    assert high > plain[1]


def test_copies_of_an_example_are_worth_one() -> None:
    correct = np.random.default_rng(0).random(400) < 0.7
    copied, groups = np.repeat(correct, 5), np.repeat(np.arange(400), 5)
    low, high = accuracy_interval(copied, groups)
    once = accuracy_interval(correct)
    assert high - low == pytest.approx(once[1] - once[0], rel=0.01)
    assert accuracy_interval(copied)[1] - accuracy_interval(copied)[0] < 0.5 * (high - low)


def test_groups_of_one_change_nothing() -> None:
    correct = np.arange(50) % 3 > 0
    assert accuracy_interval(correct, np.arange(50)[::-1]) == accuracy_interval(correct)


def test_flawless_groups_are_counted_by_group() -> None:
    assert (
        accuracy_interval(np.ones(60, bool), np.arange(60) // 6)[0] < accuracy_interval(np.ones(10, bool))[0]
    )


def test_cross_validation_is_worth_what_its_probes_were_trained_on() -> None:
    correct, fold_of = np.arange(100) % 4 > 0, np.arange(100) % 5
    assert cross_validated_interval(correct, fold_of) == wilson_interval(0.75, 100 / (1.25 + 0.2))
    many = np.tile(correct, 1000), np.tile(fold_of, 1000)
    assert cross_validated_interval(*many) == pytest.approx(wilson_interval(0.75, 80_000), abs=1e-6)


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    table = rng.random((4, 4)) + 3 * np.eye(4)
    table = table / table.sum(1, keepdims=True)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    precision = shares * np.diag(table) / (shares @ table)
    truths = (
        shares @ np.diag(table),
        np.diag(table).mean(),
        (2 * precision * np.diag(table) / (precision + np.diag(table))).mean(),
    )
    hits = np.zeros(3)
    for seed in range(100):
        targets = rng.choice(4, 300, p=shares)
        predictions = (rng.random(300)[:, None] > table[targets].cumsum(1)).sum(1)
        scores = score_predictions(targets, predictions, seed=seed)
        hits += [s.low <= truth <= s.high for s, truth in zip(scores, truths, strict=True)]
    assert (hits >= 88).all()  # 95 expected; 88 is three standard errors below
    assert (hits <= 99).any()


def test_the_bootstrap_of_groups_draws_them_whole() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 3, 150)
    predictions = np.where(rng.random(150) < 0.7, targets, 0)
    copied = [np.repeat(a, 4) for a in (targets, predictions)]
    groups = np.repeat(np.arange(150), 4)
    for whole, once in zip(
        score_predictions(*copied, groups=groups), score_predictions(targets, predictions), strict=True
    ):
        assert whole.value == pytest.approx(once.value)
        assert whole.high - whole.low == pytest.approx(once.high - once.low, rel=0.12)


def test_a_flawless_sample_is_not_certain() -> None:
    targets = np.arange(40) % 4
    for score in score_predictions(targets, targets):
        assert score.value == score.high == 1
        assert 0.85 < score.low < 0.97


def test_the_same_seed_gives_the_same_interval(answers: tuple[np.ndarray, np.ndarray]) -> None:
    assert score_predictions(*answers, seed=3) == score_predictions(*answers, seed=3)
    assert score_predictions(*answers, seed=3) != score_predictions(*answers, seed=4)


def test_bad_input_is_refused() -> None:
    with pytest.raises(TopgraftError, match="one length"):
        accuracy(np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(TopgraftError, match="one group"):
        accuracy_interval(np.array([True, False]), np.array([1, 1]))
    with pytest.raises(TopgraftError, match="no example"):
        accuracy_interval(np.zeros(0, bool))
