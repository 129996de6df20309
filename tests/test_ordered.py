"""Ordered classes as steps: exact probabilities, whatever the order of the logits."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topgraft.objective import marks, mean_loss
from topgraft.ordered import (
    agreement,
    chances_at,
    class_chances,
    class_logits,
    middle_class,
    ranks_of,
    smoothed,
    steps_of,
)

LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


@given(LOGITS)
def test_probabilities_are_differences_of_the_sorted_steps(logits: list[float]) -> None:
    above = [1.0, *(1 / (1 + math.exp(-z)) for z in sorted(logits, reverse=True)), 0.0]
    expected = [a - b for a, b in pairwise(above)]
    found = class_chances(np.array([logits]))[0]
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.sum() == pytest.approx(1)
    assert (found > 0).all()


@given(LOGITS)
def test_the_median_is_the_number_of_steps_that_are_likelier_than_not(logits: list[float]) -> None:
    distinct = np.unique(np.round(logits, 3))
    distinct = distinct[np.abs(distinct) > 0.01][None]
    if distinct.size:
        assert middle_class(class_chances(distinct)).tolist() == [int((distinct > 0).sum())]


def test_extreme_logits_give_finite_logits_and_gradients() -> None:
    logits = torch.tensor([[80.0, 80.0], [-80.0, 80.0]], requires_grad=True)
    found = class_logits(logits)
    assert bool(found.isfinite().all())
    found.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_a_temperature_divides_the_logits_of_the_steps() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(50, 4))
    assert chances_at(class_chances(logits), 3.0) == pytest.approx(class_chances(logits / 3), abs=1e-4)


def test_agreement_is_one_less_the_share_of_the_way() -> None:
    targets = torch.tensor([0, 1, 2, 3])
    steps = steps_of(targets, 4)
    assert ranks_of(steps).tolist() == targets.tolist()
    said = steps_of(torch.tensor([3, 1, 1, 3]), 4).float() - 0.5
    assert agreement(said, steps).tolist() == pytest.approx([0, 1, 2 / 3, 1])
    assert torch.equal(marks(said, steps), agreement(said, steps))


def test_smoothing_spreads_the_target_over_the_classes() -> None:
    spread = torch.full((4,), 0.1 / 4, dtype=torch.float64)
    spread[2] += 0.9
    above = 1 - spread.cumsum(0)[:-1]
    assert smoothed(steps_of(torch.tensor([2]), 4), 0.1)[0].tolist() == pytest.approx(above.tolist())


def test_weights_are_of_the_classes() -> None:
    logits, steps = torch.tensor([[1.0, -1.0], [0.5, 0.2]]), steps_of(torch.tensor([0, 2]), 3)
    weights = torch.tensor([3.0, 9.0, 1.0])
    each = [float(mean_loss(logits[i : i + 1], steps[i : i + 1])) for i in range(2)]
    assert float(mean_loss(logits, steps, weights)) == pytest.approx((3 * each[0] + each[1]) / 4)
