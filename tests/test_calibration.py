from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.calibration import (
    Calibration,
    at_temperature,
    calibration_error,
    conformal_threshold,
    fit_temperature,
    log_softmax,
    prediction_set,
    reliability,
)
from topgraft.errors import TopgraftError


def drawn(n: int, classes: int = 4, *, seed: int = 0, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets that are drawn from the very probabilities that they stand for."""
    rng = np.random.default_rng(seed)
    logits = sharp * rng.normal(size=(n, classes))
    chances = np.exp(log_softmax(logits))
    return logits, (rng.random((n, 1)) > chances.cumsum(1)).sum(1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_spoiled_true_probabilities_is_found_again(temperature: float):
    logits, targets = drawn(20_000)
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.05)


def test_true_probabilities_have_hardly_an_error_and_overconfident_ones_have_their_distance():
    logits, targets = drawn(20_000)
    probabilities = np.exp(log_softmax(logits))
    assert calibration_error(probabilities, targets) < 0.015
    spoiled = at_temperature(probabilities, 1 / 4)
    assert calibration_error(spoiled, targets) > 0.1
    mended = at_temperature(spoiled, fit_temperature(np.log(spoiled.clip(1e-300)), targets))
    assert calibration_error(mended, targets) < 0.015


def test_bins_hold_every_prediction_once_with_its_confidence_and_accuracy():
    logits, targets = drawn(3000)
    probabilities = np.exp(log_softmax(logits))
    bins = reliability(probabilities, targets)
    assert sum(b.count for b in bins) == 3000
    assert all(b.low < b.confidence <= b.high for b in bins if b.count)
    right = sum(b.accuracy * b.count for b in bins if b.count)
    assert right == pytest.approx((probabilities.argmax(1) == targets).sum())
    assert [b.count for b in reliability(np.array([[1.0, 0.0]]), np.array([0]))] == [0] * 14 + [1]


def test_nothing_but_right_answers_does_not_make_a_model_infinitely_sure():
    logits = np.array([[3.0, 0.0]] * 5)
    assert 0.5 < fit_temperature(logits, np.zeros(5, dtype=int)) < 5


@given(st.integers(20, 400), st.floats(0.05, 0.95), st.integers(0, 5))
def test_sets_cover_the_calibration_examples_themselves_as_asked(n: int, coverage: float, seed: int):
    logits, targets = drawn(n, seed=seed)
    probabilities = np.exp(log_softmax(logits))
    scores = 1 - probabilities[np.arange(n), targets]
    threshold = conformal_threshold(scores.tolist(), coverage)
    held = [t in prediction_set(p, threshold) for p, t in zip(probabilities.tolist(), targets, strict=True)]
    assert np.mean(held) >= coverage


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_cover_new_examples_as_asked_and_no_more_than_need_be(coverage: float):
    rates = []
    for seed in range(200):
        logits, targets = drawn(200, seed=seed)
        probabilities = np.exp(log_softmax(logits))
        own = 1 - probabilities[np.arange(200), targets]
        threshold = conformal_threshold(own[:100].tolist(), coverage)
        rates.append(np.mean(own[100:] <= threshold))
    assert np.mean(rates) == pytest.approx(coverage + 0.005, abs=0.012)


def test_too_few_examples_for_a_coverage_let_every_class_in():
    threshold = conformal_threshold([0.1, 0.2], 0.95)
    assert threshold == math.inf
    assert prediction_set([0.2, 0.5, 0.3], threshold) == (1, 2, 0)


def test_what_can_not_be_meant_is_refused():
    with pytest.raises(TopgraftError, match=r"0\.9"):
        conformal_threshold([0.1], 90)
    with pytest.raises(TopgraftError, match=r"\(3, 2\) and \(2,\)"):
        calibration_error(np.ones((3, 2)) / 2, np.zeros(2, dtype=int))
    with pytest.raises(TopgraftError, match="at least 1"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=int))


def test_json_brings_it_back():
    made = Calibration(1.25, (0.1, 0.5), "103 examples")
    assert Calibration.from_json(made.to_json()) == made
    assert made.threshold(0.5) == 0.5
