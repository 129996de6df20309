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
        ``(n, classes)`` float64.
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

    def slopes(inverse: float) -> tuple[float, float]:
        p = torch.softmax(inverse * scores + offsets, 1)
        expected = (p * scores).sum(1)
        bend = float((share * ((p * scores**2).sum(1) - expected**2)).sum())
        return float((share * expected).sum()) - wanted, bend

    inverse = _least(slopes)
    logits = inverse * scores + offsets
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return 1 / inverse, float((share * loss).sum())


def _label_temperature(
    scores: Tensor, offsets: Tensor, targets: Tensor, share: Tensor
) -> tuple[float, float]:
    """:func:`fit_temperature` of labels, each for itself; one pseudo-example has every label by half."""
    n, each = len(scores), share[:, None] / targets.shape[1]
    wanted = (each * scores * (targets.double() * n + 0.5) / (n + 1)).sum()

    def slopes(inverse: float) -> tuple[float, float]:
        p = torch.sigmoid(inverse * scores + offsets)
        return float((each * p * scores).sum() - wanted), float((each * p * (1 - p) * scores**2).sum())

    inverse = _least(slopes)
    return 1 / inverse, float((share * losses(inverse * scores + offsets, targets)).sum())


def _least(slopes: Callable[[float], tuple[float, float]]) -> float:
    """Where a convex loss of the inverse temperature is least: Newton's method in a bracket that shrinks."""
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 5.0
    for _ in range(100):
        slope, bend = slopes(inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        following = inverse - slope / bend if bend > 0 else math.inf
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - inverse) <= 1e-10 * inverse:
            break
        inverse = following
    return inverse
