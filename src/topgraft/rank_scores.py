"""Scores of predicted ordered classes: how far off, and how much better than chance, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from topgraft.errors import TopgraftError
from topgraft.score import DRAWS, Score, accuracy, accuracy_interval, ratio

Array = np.ndarray[Any, np.dtype[Any]]

AGREEMENT, OFF, KAPPA = "weighted agreement", "mean absolute error in classes", "quadratic weighted kappa"
TINY = 1e-12


def median_class(targets: Array) -> int:
    """The class of which the fewest examples lie far off: what somebody answers who knows nothing else.

    Examples
    --------
    >>> median_class(np.array([0, 0, 1, 3, 3]))
    1
    """
    return int(np.sort(targets)[(len(targets) - 1) // 2])


def median_score(targets: Array, classes: int) -> float:
    """:data:`AGREEMENT` of always answering :func:`median_class`.

    Examples
    --------
    >>> median_score(np.array([0, 1, 2]), 3).__round__(3)
    0.667
    """
    return weighted_agreement(targets, np.full_like(targets, median_class(targets)), classes)


def weighted_agreement(targets: Array, predictions: Array, classes: int) -> float:
    """:data:`AGREEMENT`: one less the mean distance of answers, as a share of the largest possible one.

    Examples
    --------
    >>> weighted_agreement(np.array([0, 2]), np.array([1, 2]), 3)
    0.75
    """
    return 1 - float(np.abs(targets - predictions).mean()) / (classes - 1)


def quadratic_kappa(targets: Array, predictions: Array) -> float:
    """Kappa with quadratic weights (Cohen 1968): 1 is perfect, 0 is what chance gives, and it may be below.

    One less the mean squared distance over that of pairs drawn at random; 0 where both are always one class.

    Parameters
    ----------
    targets, predictions
        ``(n,)`` indices of classes, from the first to the last.

    Examples
    --------
    >>> quadratic_kappa(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])).__round__(3)
    0.8
    """
    found = _scores(_sums(targets, predictions).sum(0, keepdims=True), 2)
    return float(found[0, 2])


def score_ranks(
    targets: Array, predictions: Array, classes: int, *, groups: Array | None = None, seed: int = 0
) -> tuple[Score, ...]:
    """Scores on untouched examples.

    Parameters
    ----------
    targets, predictions
        ``(n,)`` indices of classes, from the first to the last.
    classes
        Number of classes, two or more.
    groups
        ``(n,)`` group numbers, drawn whole; default: every example by itself.
    seed
        Of the bootstrap behind the intervals of the first three.

    Returns
    -------
    tuple of Score
        :data:`AGREEMENT` with linear weights, which is one less the mean distance over the largest possible
        one; :data:`OFF`, that mean distance; :data:`KAPPA`; and the accuracy.

    Raises
    ------
    TopgraftError
        If the shapes do not fit.

    Notes
    -----
    Where the bootstrap has nothing to draw, since every example is right or off by as much, the interval of
    the first three is as wide as that of the accuracy (Wilson 1927), as if each mistake that was not seen
    were one class off.

    Examples
    --------
    >>> for score in score_ranks(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), 3):
    ...     print(score.metric, round(score.value, 3))
    weighted agreement 0.875
    mean absolute error in classes 0.25
    quadratic weighted kappa 0.8
    accuracy 0.75
    """
    if targets.shape != predictions.shape or targets.ndim != 1 or not len(targets):
        raise TopgraftError(
            f"Targets and predictions must be two arrays of one length; got {targets.shape} and "
            f"{predictions.shape}."
        )
    n, most = len(targets), classes - 1
    sums = _sums(targets, predictions)
    value = _scores(sums.sum(0, keepdims=True), most)[0]
    drawn = np.concatenate(list(_resampled(sums, most, groups, seed)))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    right = accuracy_interval(targets == predictions, groups)
    if low[1] == high[1]:  # what was never seen can't be drawn
        wide, chance = right[1] - right[0], _by_chance(sums.sum(0, keepdims=True))[0]
        step = np.array([wide / most, wide, wide / chance if chance > TINY else 1.0])
        low, high = np.maximum(value - step, [0, 0, -1]), np.minimum(value + step, [1, most, 1])
    names = (AGREEMENT, OFF, KAPPA)
    found = [
        Score(name, float(v), min(float(a), float(v)), max(float(b), float(v)), n)
        for name, v, a, b in zip(names, value, low, high, strict=True)
    ]
    return (*found, Score("accuracy", accuracy(targets, predictions), *right, n))


def _sums(targets: Array, predictions: Array) -> Array:
    """What the scores are made of, an example a row: ``(n, 7)`` float64."""
    a, b = targets.astype(np.float64), predictions.astype(np.float64)
    return np.column_stack([np.ones(len(a)), np.abs(a - b), np.square(a - b), a, b, a * a, b * b])


def _scores(sums: Array, most: int) -> Array:
    """Agreement, mean distance and kappa, ``(draws, 3)``."""
    n, off, square = sums.T[:3]
    by_chance = _by_chance(sums)
    kappa = np.where(by_chance > TINY, 1 - ratio(square / n, by_chance), 0.0)
    return np.stack([1 - off / n / most, off / n, kappa], 1)


def _by_chance(sums: Array) -> Array:
    """Mean squared distance of a target and an answer drawn independently, ``(draws,)``."""
    n, _, _, a, b, aa, bb = sums.T
    found: Array = (aa + bb) / n - 2 * (a / n) * (b / n)
    return found


def _resampled(sums: Array, most: int, groups: Array | None, seed: int) -> Iterator[Array]:
    _, owner = np.unique(np.arange(len(sums)) if groups is None else groups, return_inverse=True)
    many = int(owner.max()) + 1
    units = np.zeros((many, sums.shape[1]))
    np.add.at(units, owner, sums)
    rng = np.random.default_rng(seed)
    for _ in range(0, DRAWS, 100):
        yield _scores(rng.multinomial(many, np.full(many, 1 / many), size=100) @ units, most)
