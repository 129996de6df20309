"""Scores of ordered classes against scikit-learn, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from topgraft.errors import TopgraftError
from topgraft.rank_scores import median_score, quadratic_kappa, score_ranks


@pytest.fixture
def said() -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    targets = stream.integers(0, 5, 200)
    return targets, np.clip(targets + stream.choice([-1, 0, 0, 1, 2], 200), 0, 4)


def test_scores_are_those_of_scikit_learn(said: tuple[np.ndarray, np.ndarray]) -> None:
    targets, found = said
    agreement, off, kappa, accuracy = score_ranks(targets, found, 5)
    assert off.value == pytest.approx(mean_absolute_error(targets, found))
    assert agreement.value == pytest.approx(1 - off.value / 4)
    assert kappa.value == pytest.approx(cohen_kappa_score(targets, found, weights="quadratic"))
    assert kappa.value == pytest.approx(quadratic_kappa(targets, found))
    assert accuracy.value == pytest.approx(float((targets == found).mean()))


def test_intervals_hold_the_value_and_are_wider_by_groups(said: tuple[np.ndarray, np.ndarray]) -> None:
    targets, found = said
    alone = score_ranks(targets, found, 5)
    grouped = score_ranks(np.repeat(targets, 4), np.repeat(found, 4), 5, groups=np.repeat(np.arange(200), 4))
    for one, many in zip(alone, grouped, strict=True):
        assert one.low < one.value < one.high
        assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_flawless_sample_has_no_interval_without_width() -> None:
    targets = np.arange(30) % 3
    agreement, off, kappa, accuracy = score_ranks(targets, targets, 3)
    assert (off.value, off.low) == (0, 0)
    assert 0.05 < off.high < 0.2
    assert accuracy.low == pytest.approx(1 - off.high)
    assert agreement.low == pytest.approx(1 - off.high / 2)
    assert kappa.low < kappa.value == kappa.high == 1


def test_the_median_class_alone_lies_least_far_off() -> None:
    targets = np.array([0, 0, 1, 2, 4])
    every = [1 - np.abs(targets - constant).mean() / 4 for constant in range(5)]
    assert median_score(targets, 5) == pytest.approx(max(every))


def test_shapes_must_fit() -> None:
    with pytest.raises(TopgraftError, match="two arrays of one length"):
        score_ranks(np.arange(3), np.arange(2), 3)
