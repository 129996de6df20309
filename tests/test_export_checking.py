"""How far is far: the difference between two runtimes, and what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from exported_grafts import arrays, expected
from torch import Tensor

from topgraft.errors import RunningError
from topgraft.export.checking import (
    OF_NUMBERS,
    TOLERANCE,
    Difference,
    _in_double,
    apart,
    measured,
    must_hold,
    tolerance,
)
from topgraft.export.examples import examples_of
from topgraft.pooling import pool


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
    found = measured(run, model, batches)
    assert found.logits == pytest.approx(0.25 / max(1.0, float(last.abs().max())), rel=1e-4)
    wanted = float((torch.softmax(moved, 1) - torch.softmax(last, 1)).abs().max())
    assert found.probabilities == pytest.approx(wanted, rel=1e-4)
    assert measured(run, model, batches[:1]) == Difference(0.0, 0.0)


def test_another_shape_and_what_is_not_a_number_are_over_any_limit():
    logits = torch.zeros(2, 3)
    wide = torch.zeros(2, 4)
    assert apart("multilabel", (wide, wide), logits) == Difference(math.inf, math.inf)
    assert apart("regression", (wide,), logits, (1.0,) * 3) == Difference(numbers=math.inf)
    model = arrays()

    def run(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        given = expected(model, batch).clone()
        if len(given) == 1:
            given[0, 0] = float("nan")
        return given, torch.softmax(given, 1)

    found = measured(run, model, examples_of(model).checked)
    assert not found.is_within(TOLERANCE)
    with pytest.raises(RunningError, match="computes something else than PyTorch"):
        must_hold(found, TOLERANCE, "a runtime")


@pytest.mark.parametrize("odd", [Difference(2e-4, 0.0), Difference(0.0, 2e-3)])
def test_each_of_the_two_limits_holds(odd):
    must_hold(TOLERANCE, TOLERANCE, "a runtime")
    with pytest.raises(RunningError, match="expected at most: probabilities by 1e-04, logits by 1e-03 of"):
        must_hold(odd, TOLERANCE, "a runtime")


def test_numbers_are_held_to_a_share_of_their_deviation():
    must_hold(OF_NUMBERS, OF_NUMBERS, "a runtime")
    for odd in (Difference(numbers=1.1e-3), Difference(numbers=math.nan), TOLERANCE):
        with pytest.raises(RunningError, match="expected at most: numbers by 1e-03 of their standard dev"):
            must_hold(odd, OF_NUMBERS, "a runtime")
    given = torch.tensor([[1000.0, 0.0]])
    assert apart("regression", (given + 0.5,), given, (2.0, 10.0)).numbers == 0.25


def test_the_limits_give_way_only_where_the_head_itself_rounds_by_as_much():
    model, batches = arrays(task="multilabel"), examples_of(arrays()).checked
    assert tolerance(model, batches) == TOLERANCE
    assert tolerance(arrays(task="regression"), batches) == OF_NUMBERS
    coarse = copy.deepcopy(model)
    head = coarse.graft.head
    with torch.no_grad():  # large sums of which little is left: the linear layer and then its opposite
        pooled = pool(coarse.graft.frozen(dict(batches[0])), head.layout)
        head.linear.weight.add_(3e4)
        head.linear.bias.sub_(3e4 * pooled.sum())
    most = tolerance(coarse, batches)
    assert most.probabilities > 10 * TOLERANCE.probabilities
    exact = measured(_in_double(coarse), coarse, batches)
    assert most.probabilities == pytest.approx(10 * exact.probabilities)
    assert exact.is_within(most)
