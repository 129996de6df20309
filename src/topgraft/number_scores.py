"""Scores of predicted numbers: the share of variance explained, errors in the unit; with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from topgraft.errors import TopgraftError
from topgraft.score import DRAWS, UNSTABLE, Score

Array = np.ndarray[Any, np.dtype[Any]]

R2, MAE, RMSE = "R2", "mean absolute error", "root mean squared error"


def r2(targets: Array, predictions: Array) -> float:
    """Coefficient of determination, mean over the outputs; not-a-number where an output is constant.

    Parameters
    ----------
    targets, predictions
        ``(n, outputs)`` float.

    Examples
    --------
    >>> r2(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [1.0]]))
    0.5
    """
    _check(targets, predictions)
    missed = np.square(targets - predictions).sum(0)
    spread = np.square(targets - targets.mean(0)).sum(0)
    return float((1 - _over(missed, spread)).mean())


def cross_validated_r2_interval(
    losses: Array, squares: Array, fold_of: Array, groups: Array | None = None
) -> tuple[float, float]:
    """95 % interval of the expected R² of a probe trained on the folds' share of ``n`` examples.

    R² is one less a ratio of means, whose variance is that of its linearisation (delta method), by groups; it
    is widened for the luck of training sets as :func:`topgraft.score.cross_validated_interval` is.

    Parameters
    ----------
    losses
        ``(n,)`` squared errors out of fold.
    squares
        ``(n,)`` squared distances from the mean, in the same unit.
    fold_of, groups
        ``(n,)`` fold numbers, and group numbers that no fold splits.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=400)
    >>> low, high = cross_validated_r2_interval((0.5 * rng.normal(size=400)) ** 2, y**2, np.arange(400) % 5)
    >>> low < 0.75 < high, high - low < 0.15
    (True, True)
    """
    from scipy.special import stdtrit

    n, k = len(losses), len(np.unique(fold_of))
    _, owner = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    many = int(owner.max()) + 1
    if many < 2:
        raise TopgraftError(
            f"All {n:,} examples are of one group, so the error of their score can't be told."
        )
    unexplained = float(losses.mean() / squares.mean())
    moved = np.bincount(owner, weights=(losses - unexplained * squares) / squares.mean())
    variance = float(np.square(moved).sum()) * many / (many - 1) / n**2
    half = float(stdtrit(many - 1, 0.975)) * math.sqrt(variance * (k / (k - 1) + UNSTABLE / n))
    return 1 - unexplained - half, min(1.0, 1 - unexplained + half)


def score_numbers(
    targets: Array,
    predictions: Array,
    names: Sequence[str],
    *,
    groups: Array | None = None,
    seed: int = 0,
) -> tuple[Score, ...]:
    """R² over all outputs, then for each output both errors in its own unit, on untouched examples.

    Parameters
    ----------
    targets, predictions
        ``(n, outputs)`` float.
    names
        Of the outputs.
    groups
        ``(n,)`` group numbers, drawn whole; default: every example by itself.
    seed
        Of the bootstrap behind the intervals.

    Returns
    -------
    tuple of Score
        ``"R2"``, then ``"mean absolute error"`` and ``"root mean squared error"``, of several outputs with
        `` of NAME`` behind.

    Raises
    ------
    TopgraftError
        If the shapes do not fit.

    Examples
    --------
    >>> y = np.arange(8.0)[:, None]
    >>> for score in score_numbers(y, y + np.array([[1.0], [-1.0]] * 4), ["age"]):
    ...     print(score.metric, round(score.value, 2))
    R2 0.81
    mean absolute error 1.0
    root mean squared error 1.0
    """
    _check(targets, predictions)
    away = predictions - targets
    values = [r2(targets, predictions)]
    for place in range(targets.shape[1]):
        values += [float(np.abs(away[:, place]).mean()), math.sqrt(float(np.square(away[:, place]).mean()))]
    drawn = np.concatenate(list(_resampled(targets, away, groups, seed)))
    of = [f" of {name}" if len(names) > 1 else "" for name in names]
    metrics = [R2, *(f"{error}{which}" for which in of for error in (MAE, RMSE))]
    found = []
    for metric, value, draws in zip(metrics, values, drawn.T, strict=True):
        some = draws[np.isfinite(draws)]
        low, high = np.quantile(some, (0.025, 0.975)) if len(some) else (math.nan, math.nan)
        found.append(Score(metric, value, min(float(low), value), max(float(high), value), len(targets)))
    return tuple(found)


def _resampled(targets: Array, away: Array, groups: Array | None, seed: int) -> Iterator[Array]:
    """The scores of bootstrap samples, ``(draws, 1 + 2 * outputs)`` at a time; units are drawn whole."""
    n, outputs = targets.shape
    _, owner = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    many = int(owner.max()) + 1
    centred = targets - targets.mean(0)  # sums of squares then lose no digits
    columns = [np.ones((n, 1)), centred, np.square(centred), np.abs(away), np.square(away)]
    sums = np.zeros((many, 1 + 4 * outputs))
    np.add.at(sums, owner, np.concatenate(columns, 1))
    rng = np.random.default_rng(seed)
    for _ in range(0, DRAWS, 100):
        count, total, square, absolute, missed = np.split(
            rng.multinomial(many, np.full(many, 1 / many), size=100) @ sums,
            np.cumsum([1, outputs, outputs, outputs]),
            axis=1,
        )
        explained = (1 - _over(missed, square - total**2 / count)).mean(1, keepdims=True)
        errors = np.stack([absolute / count, np.sqrt(missed / count)], 2).reshape(100, -1)
        yield np.concatenate([explained, errors], 1)


def _over(above: Array, below: Array) -> Array:
    """The ratio; not-a-number where there is nothing below."""
    found: Array = np.divide(above, below, out=np.full_like(above, math.nan), where=below > 1e-12)
    return found


def _check(targets: Array, predictions: Array) -> None:
    if targets.shape != predictions.shape or targets.ndim != 2 or not len(targets):
        raise TopgraftError(
            f"Targets and predictions must be two arrays (n, outputs) of one shape; got {targets.shape} and "
            f"{predictions.shape}."
        )
