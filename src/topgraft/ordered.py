"""Ordered classes as steps: whether an example lies above each class but the last, and what follows of that.

A model of ``K`` ordered classes gives ``K - 1`` logits, that of lying above the first class, above the second
and so on (Frank and Hall 2001), so that an answer far off is wrong at more steps than one close by. Steps
learned each for itself need not fall; they are sorted, which never takes a distribution function further from
the truth (Chernozhukov, Fernandez-Val and Galichon 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

CLOSEST = 1e-6
"""Least distance of two neighbouring logits, so that no class between them has the probability 0."""


def steps_of(targets: Tensor, classes: int) -> Tensor:
    """``(n, classes - 1)`` uint8 of indices ``(n,)``: 1 where the example lies above the class.

    Examples
    --------
    >>> steps_of(torch.tensor([0, 1, 2]), 3).tolist()
    [[0, 0], [1, 0], [1, 1]]
    """
    return (targets[:, None] > torch.arange(classes - 1)).to(torch.uint8)


def ranks_of(steps: Tensor) -> Tensor:
    """Indices of the classes ``(n,)`` int64 that :func:`steps_of` took.

    Examples
    --------
    >>> ranks_of(steps_of(torch.tensor([2, 0, 1]), 3)).tolist()
    [2, 0, 1]
    """
    return steps.sum(1, dtype=torch.int64)


def agreement(logits: Tensor, steps: Tensor) -> Tensor:
    """Agreement of each example with linear weights (Cohen 1968), ``(n,)`` float64.

    One less the share of the whole way that the answer is off: 1 where it is right, 0 where it is the first
    class instead of the last. The answer is the number of logits above 0, which is the median of
    :func:`class_logits`.

    Parameters
    ----------
    logits, steps
        ``(n, classes - 1)`` float and uint8.

    Examples
    --------
    >>> agreement(torch.tensor([[2.0, -1.0], [2.0, 1.0]]), steps_of(torch.tensor([0, 2]), 3)).tolist()
    [0.5, 1.0]
    """
    off = ((logits > 0).sum(1) - ranks_of(steps)).abs()
    return 1 - off.double() / steps.shape[1]


def smoothed(steps: Tensor, smoothing: float) -> Tensor:
    """Steps of targets of which a share is spread evenly over the classes, in float64.

    Examples
    --------
    >>> smoothed(steps_of(torch.tensor([0]), 4), 0.4).round(decimals=3).tolist()
    [[0.3, 0.2, 0.1]]
    """
    classes = steps.shape[1] + 1
    above = torch.arange(classes - 1, 0, -1, dtype=torch.float64, device=steps.device) / classes
    return steps.double() * (1 - smoothing) + smoothing * above


def class_logits(logits: Tensor) -> Tensor:
    """Logarithms of the probabilities of the classes ``(n, classes)``, of the logits of steps.

    It is written in functions that other runtimes compute as exactly as PyTorch does. What ONNX Runtime has
    in place of ``expm1`` and ``logsigmoid`` is off by 1 % or more near 0, and infinite far from it.

    Parameters
    ----------
    logits
        ``(n, classes - 1)`` float; sorted here.

    Examples
    --------
    >>> found = class_logits(torch.tensor([[0.0, -100.0], [-1.0, 1.0]], dtype=torch.float64))
    >>> found.exp().round(decimals=3).tolist()
    [[0.5, 0.5, 0.0], [0.269, 0.462, 0.269]]
    """
    fall = logits.sort(dim=1, descending=True).values
    half = torch.tanh(torch.clamp(fall[:, :-1] - fall[:, 1:], min=CLOSEST) / 2)
    apart = torch.log(2 * half / (1 + half))  # of 1 - exp(-distance)
    between = _log_sigmoid(fall[:, :-1]) + _log_sigmoid(-fall[:, 1:]) + apart
    return torch.cat([_log_sigmoid(-fall[:, :1]), between, _log_sigmoid(fall[:, -1:])], 1)


def _log_sigmoid(x: Tensor) -> Tensor:
    return -torch.nn.functional.softplus(-x)


def class_chances(logits: Array) -> Array:
    """Probabilities of the classes ``(n, classes)`` float64, of logits of steps ``(n, classes - 1)``.

    Examples
    --------
    >>> class_chances(np.array([[0.0, -100.0]])).round(3).tolist()
    [[0.5, 0.5, 0.0]]
    """
    found = class_logits(torch.from_numpy(np.asarray(logits, dtype=np.float64)))
    return torch.softmax(found, 1).numpy()


def chances_at(chances: Array, temperature: float) -> Array:
    """Probabilities of the classes ``(n, classes)``, had the logits of steps been divided by a temperature.

    Examples
    --------
    >>> cooler = chances_at(class_chances(np.array([[2.0, -1.0]])), 2.0)
    >>> cooler.round(6).tolist() == class_chances(np.array([[1.0, -0.5]])).round(6).tolist()
    True
    """
    from scipy.special import logit

    above = np.cumsum(np.asarray(chances, dtype=np.float64)[:, :0:-1], 1)[:, ::-1]
    return class_chances(logit(np.clip(above, 1e-15, 1 - 1e-15)) / temperature)


def median_of(chances: Sequence[float]) -> int:
    """:func:`middle_class` of one example.

    Examples
    --------
    >>> median_of([0.4, 0.25, 0.35])
    1
    """
    return int(middle_class(np.array([chances]))[0])


def middle_class(chances: Array) -> Array:
    """The median class of each example, ``(n,)`` int64: the answer of the smallest expected distance.

    Examples
    --------
    >>> middle_class(np.array([[0.4, 0.25, 0.35], [0.6, 0.4, 0.0]])).tolist()
    [1, 0]
    """
    reached = np.cumsum(np.asarray(chances, dtype=np.float64), 1)[:, :-1] < 0.5
    found: Array = reached.sum(1).astype(np.int64)
    return found
