"""Scores of predicted numbers beside scikit-learn's, and what their intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from topgraft.errors import TopgraftError
from topgraft.number_scores import cross_validated_r2_interval, r2, score_numbers


def drawn(n: int, *, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = 50 + 5 * rng.normal(size=(n, 2))
    return targets, targets + noise * rng.normal(size=(n, 2))


def test_values_are_those_of_scikit_learn() -> None:
    targets, found = drawn(80, noise=3)
    scores = score_numbers(targets, found, ("width", "height"))
    assert [s.metric for s in scores] == [
        "R2",
        "mean absolute error of width",
        "root mean squared error of width",
        "mean absolute error of height",
        "root mean squared error of height",
    ]
    expected = [r2_score(targets, found)]
    for place in range(2):
        pair = targets[:, place], found[:, place]
        expected += [mean_absolute_error(*pair), root_mean_squared_error(*pair)]
    assert [s.value for s in scores] == pytest.approx(expected)
    assert all(s.low < s.value < s.high and s.n == 80 for s in scores)


def test_groups_that_err_together_widen_the_interval() -> None:
    targets, found = drawn(40, noise=3)
    plain = score_numbers(targets, found, ("a", "b"))
    five = [np.repeat(a, 5, axis=0) for a in (targets, found)]
    together = score_numbers(*five, ("a", "b"), groups=np.repeat(np.arange(40), 5))
    apart = score_numbers(*five, ("a", "b"))
    for one, grouped, free in zip(plain, together, apart, strict=True):
        assert grouped.high - grouped.low == pytest.approx(one.high - one.low, rel=0.1)
        assert free.high - free.low < 0.7 * (grouped.high - grouped.low)


def test_targets_that_are_all_the_same_have_no_r2_but_errors() -> None:
    score, mae, _ = score_numbers(np.full((9, 1), 3.0), np.full((9, 1), 5.0), ("age",))
    assert np.isnan(score.value)
    assert mae.value == mae.low == mae.high == 2.0


@pytest.mark.parametrize(("n", "noise"), [(100, 0.5), (100, 2.0), (400, 1.0)])
def test_intervals_of_r2_hold_the_truth(n: int, noise: float) -> None:
    """Of 400 samples between 91 and 99 % hold the R² of the population, known here."""
    rng, truth, held = np.random.default_rng(1), 1 / (1 + noise**2), 0
    for _ in range(400):
        signal, error = rng.normal(size=n), noise * rng.normal(size=n)
        y = signal + error
        low, high = cross_validated_r2_interval(error**2, (y - y.mean()) ** 2, np.arange(n) % 5)
        held += low <= truth <= high
    assert 0.91 <= held / 400 <= 0.995


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TopgraftError, match=r"\(4, 1\) and \(4,\)"):
        r2(np.zeros((4, 1)), np.zeros(4))
