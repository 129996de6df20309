"""The temperature of a probe's scores: what makes them probabilities, fitted on left-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from topgraft.objective import are_binary, losses

COLDEST, HOTTEST = 1e-5, 1e3
"""Bounds of the temperature."""


def fit_temperature(scores: Tensor, offsets: Tensor, targets: Tensor, weights: Tensor) -> tuple[float, float]:
    """The temperature under which ``softmax(scores / temperature + offsets)`` loses least.

    Of labels the sigmoid takes its place. The loss is convex in the inverse temperature: Newton's method,
    held in a bracket that shrinks. As in Platt (1999) one pseudo-example is spread over the classes, so that
    a flawless small sample does not ask for endless confidence.

    Parameters
    ----------
    scores, offsets
        ``(n, classes)`` float64; offsets may be ``(classes,)``.
    targets
        ``(n,)`` int64 indices of classes, or ``(n, labels)`` booleans.
    weights
        ``(n,)`` float64: how much each example counts.

    Returns
    -------
    tuple of float
        Temperature within [:data:`COLDEST`, :data:`HOTTEST`], and the weighted mean loss in nats at it.
    """
    n = len(scores)
    share = weights / weights.sum()
    if are_binary(targets):
        return _label_temperature(scores, offsets, targets, share)
    held = scores.gather(1, targets[:, None])[:, 0]
    wanted = float((share * (held * n + scores.mean(1)) / (n + 1)).sum())
    # a class a row: softmax and sums over few long rows take a sixth of the time of many short ones
    rows, shifts = scores.T.contiguous(), offsets.expand_as(scores).T.contiguous()

    def slopes(inverse: float) -> tuple[float, float]:
        p = torch.softmax(inverse * rows + shifts, 0)
        first = p * rows
        expected = first.sum(0)
        spread = (first * rows).sum(0) - expected**2
        return float(share @ expected) - wanted, float(share @ spread)

    inverse = _least(slopes, _start(scores, share))
    loss = torch.nn.functional.cross_entropy(inverse * scores + offsets, targets, reduction="none")
    return 1 / inverse, float((share * loss).sum())


def _start(scores: Tensor, share: Tensor) -> float:
    """An inverse temperature that makes logits of the usual size: 2, by their root mean square."""
    size = float((share @ scores.square().mean(1)).sqrt())
    return min(max(2 / size, 2 / HOTTEST), 0.5 / COLDEST) if size > 0 else 1.0


def _label_temperature(
    scores: Tensor, offsets: Tensor, targets: Tensor, share: Tensor
) -> tuple[float, float]:
    """:func:`fit_temperature` of labels, each for itself; one pseudo-example has every label by half."""
    n, each = len(scores), share[:, None] / targets.shape[1]
    wanted = (each * scores * (targets.double() * n + 0.5) / (n + 1)).sum()

    def slopes(inverse: float) -> tuple[float, float]:
        p = torch.sigmoid(inverse * scores + offsets)
        return float((each * p * scores).sum() - wanted), float((each * p * (1 - p) * scores**2).sum())

    inverse = _least(slopes, _start(scores, share))
    return 1 / inverse, float((share * losses(inverse * scores + offsets, targets)).sum())


def _least(slopes: Callable[[float], tuple[float, float]], start: float) -> float:
    """Where a convex loss of the inverse temperature is least: Newton's method in a bracket that shrinks.

    Newton's last step takes the error from under a millionth to about its square.
    """
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, start
    for _ in range(100):
        slope, bend = slopes(inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        following, close = inverse - slope / bend if bend > 0 else math.inf, 1e-6
        if not low < following < high:
            following, close = math.sqrt(low * high), 1e-10
        before, inverse = inverse, following
        if abs(inverse - before) <= close * before:
            break
    return inverse
