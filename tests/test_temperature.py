from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from topgraft.objective import losses
from topgraft.temperature import fit_temperature


@given(st.integers(0, 10_000), st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_temperature_minimises_the_loss(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(30, 3, generator=generator).double() * 10**size
    y = torch.randint(3, (30,), generator=generator)
    offsets, weights = torch.randn(3, generator=generator).double(), torch.ones(30).double()
    temperature, loss = fit_temperature(scores, offsets, y, weights)
    smooth = (30 * torch.eye(3).double()[y] + 1 / 3) / 31

    def objective(log_inverse: float) -> float:
        logits = np.exp(log_inverse) * scores + offsets
        return float(-(smooth * logits.log_softmax(1)).sum())

    reference = minimize_scalar(
        objective, bounds=(np.log(1e-3), np.log(1e5)), method="bounded", options={"xatol": 1e-9}
    )
    assert 1e-5 <= temperature <= 1e3
    assert objective(-np.log(temperature)) <= reference.fun + 1e-7
    logits = scores / temperature + offsets
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y)))


def test_a_flawless_sample_does_not_ask_for_endless_confidence() -> None:
    y = torch.tensor([0, 1] * 10)
    scores = torch.eye(2).double()[y]
    temperature, _ = fit_temperature(scores, torch.zeros(2).double(), y, torch.ones(20).double())
    assert float((scores / temperature).softmax(1).max(1).values.mean()) == pytest.approx(1 - 0.5 / 21)


def test_of_labels_the_temperature_minimises_the_loss_of_each_by_itself() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = 4 * torch.randn(80, 3, generator=generator).double()
    y = torch.rand(80, 3, generator=generator) < torch.sigmoid(scores / 3 - 1)
    offsets = torch.full((3,), -1.0).double()
    temperature, loss = fit_temperature(scores, offsets, y, torch.ones(80).double())
    smooth = (80 * y.double() + 0.5) / 81

    def objective(log_inverse: float) -> float:
        logits = np.exp(log_inverse) * scores + offsets
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth))

    reference = minimize_scalar(objective, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    assert np.log(1 / temperature) == pytest.approx(reference.x, abs=1e-5)
    assert loss == pytest.approx(float(losses(scores / temperature + offsets, y).mean()))
