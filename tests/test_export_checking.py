"""How far is far: the difference between two runtimes, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from exported_grafts import arrays, expected
from torch import Tensor

from topgraft.errors import RunningError
from topgraft.export.checking import TOLERANCE, Difference, apart, measured, must_hold
from topgraft.export.examples import examples_of


def test_the_largest_difference_of_all_batches_is_told():
    model = arrays()
    batches = examples_of(model).checked
    off = {1: 0.0, 5: 0.25}

    def run(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = expected(model, batch).clone()
        logits[-1, 0] += off[len(logits)]
        return logits, torch.softmax(logits, 1)

    last = expected(model, dict(batches[1]))
    moved = last.clone()
    moved[-1, 0] += 0.25
    found = measured(run, model.graft, batches)
    assert found.logits == pytest.approx(0.25 / max(1.0, float(last.abs().max())), rel=1e-4)
    wanted = float((torch.softmax(moved, 1) - torch.softmax(last, 1)).abs().max())
    assert found.probabilities == pytest.approx(wanted, rel=1e-4)
    assert measured(run, model.graft, batches[:1]) == Difference(0.0, 0.0)


def test_another_shape_and_what_is_not_a_number_are_over_any_limit():
    logits = torch.zeros(2, 3)
    assert apart((torch.zeros(2, 4), torch.zeros(2, 4)), logits) == Difference(math.inf, math.inf)
    model = arrays()

    def run(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        given = expected(model, batch).clone()
        if len(given) == 1:
            given[0, 0] = float("nan")
        return given, torch.softmax(given, 1)

    found = measured(run, model.graft, examples_of(model).checked)
    assert not found.is_within(TOLERANCE)
    with pytest.raises(RunningError, match="computes something else than PyTorch"):
        must_hold(found, "a runtime")


@pytest.mark.parametrize("odd", [Difference(2e-4, 0.0), Difference(0.0, 2e-3)])
def test_each_of_the_two_limits_holds(odd):
    must_hold(TOLERANCE, "a runtime")
    with pytest.raises(RunningError, match=r"expected\nat most|expected at most 0\.0001 and 0\.001"):
        must_hold(odd, "a runtime")
