"""Losses, marks and scales of classes and of numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.objective import (
    Scale,
    are_numbers,
    encoded,
    loss_of_guessing,
    losses,
    marks,
    mean_loss,
    scale_of,
)


def test_mean_loss_is_the_mean_of_losses_and_knows_class_weights() -> None:
    logits, wanted = torch.randn(9, 3), torch.arange(9) % 3
    assert torch.allclose(mean_loss(logits, wanted), losses(logits, wanted).mean())
    weight = torch.tensor([1.0, 5.0, 0.5])
    share = weight[wanted] / weight[wanted].sum()
    assert torch.allclose(mean_loss(logits, wanted, weight), (losses(logits, wanted) * share).sum())
    numbers = torch.randn(9, 2, dtype=torch.float64)
    assert torch.allclose(mean_loss(logits[:, :2], numbers), losses(logits[:, :2], numbers).mean())


def test_smoothing_mixes_each_label_with_all_classes_alike() -> None:
    logits, wanted = torch.randn(9, 4), torch.arange(9) % 4
    even = -logits.log_softmax(1).mean()
    for share in (0.0, 0.25, 1.0):
        expected = (1 - share) * mean_loss(logits, wanted) + share * even
        assert torch.allclose(mean_loss(logits, wanted, smoothing=share), expected)


@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(1e-3, 1e5), st.floats(-1e5, 1e5))
@settings(max_examples=50, deadline=None)
def test_marks_of_standardised_numbers_average_to_r2(
    seed: int, outputs: int, spread: float, mean: float
) -> None:
    rng = np.random.default_rng(seed)
    targets = mean + spread * rng.normal(size=(40, outputs))
    predictions = targets + spread * rng.normal(size=(40, outputs))
    scale = Scale.of(targets)
    standard, said = scale.standardised(targets), scale.standardised(predictions)
    assert np.allclose(standard.mean(0), 0, atol=1e-6)
    assert np.allclose(standard.std(0, correction=0), 1)
    assert float(marks(said, standard).mean()) == pytest.approx(r2_score(targets, predictions), abs=1e-6)


def test_what_guessing_loses() -> None:
    assert loss_of_guessing(4, torch.tensor([0, 3])) == pytest.approx(math.log(4))
    numbers = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    assert loss_of_guessing(1, numbers) == pytest.approx(float(losses(0 * numbers, numbers).mean()), abs=0.1)


def test_an_output_that_never_changes_is_refused_by_name() -> None:
    with pytest.raises(TopgraftError, match=r'All 3 numbers of "width" are 7'):
        Scale.of(np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]]), ("height", "width"))


def test_targets_of_data_are_indices_or_standardised_numbers() -> None:
    texts = [f"text number {i}" for i in range(30)]
    classes = read(texts, targets=["a", "b"] * 15)
    assert scale_of(classes) is None
    assert not are_numbers(encoded(classes, None))
    numbers = read(texts, targets=np.arange(30) / 7, task="regression")
    scale = scale_of(numbers)
    assert scale is not None
    assert scale.mean[0] == pytest.approx(14.5 / 7)
    assert are_numbers(encoded(numbers, scale))
    assert encoded(numbers, scale).shape == (30, 1)
