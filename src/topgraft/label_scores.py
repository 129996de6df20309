"""Where an example may have several labels: probabilities, answers, and scores with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from topgraft.errors import TopgraftError
from topgraft.score import DRAWS, ClassScore, Score, flawless_interval, ratio

Array = np.ndarray[Any, np.dtype[Any]]

HALF = 0.5
"""A label whose probability is above it is given."""
RANKING, PRECISION = "label ranking average precision", "mean average precision"
MICRO, MACRO, RIGHT = "micro F1", "macro F1", "share of labels right"
MOST = 2**28
"""Draws x examples x labels of the bootstrap of :data:`PRECISION`; there are 200 draws at least."""


def chances_of(logits: Array) -> Array:
    """Probability of each label by itself, of logits ``(n, labels)``; float64.

    Examples
    --------
    >>> chances_of(np.array([[0.0, 1000.0, -1000.0]])).tolist()
    [[0.5, 1.0, 0.0]]
    """
    from scipy.special import expit

    found: Array = expit(np.asarray(logits, dtype=np.float64))
    return found


def log_loss(logits: Array, wanted: Array) -> Array:
    """Binary cross-entropy ``(n,)`` in nats, mean over the labels; ``wanted`` ``(n, labels)`` from 0 to 1.

    Examples
    --------
    >>> log_loss(np.zeros((1, 3)), np.array([[1.0, 0.0, 0.5]])).round(4).tolist()
    [0.6931]
    """
    found: Array = (np.logaddexp(0, logits) - wanted * logits).mean(1)
    return found


def own_improbable(chances: Array, targets: Array) -> Array:
    """One minus the least probability among the labels that each example has, ``(n,)``; 0 where it has none.

    Examples
    --------
    >>> own_improbable(np.array([[0.75, 0.5], [0.2, 0.1]]), np.array([[True, True], [False, False]])).tolist()
    [0.5, 0.0]
    """
    found: Array = np.where(targets, 1 - chances, 0.0).max(1)
    return found


def label_set(chances: Sequence[float], threshold: float) -> tuple[int, ...]:
    """The labels of one example that a threshold lets in, the most probable first; maybe none.

    With :func:`topgraft.calibration.conformal_threshold` of :func:`own_improbable` it holds all the
    labels that an example has as often as asked for.

    Examples
    --------
    >>> label_set([0.1, 0.6, 0.3], 0.75)
    (1, 2)
    """
    order = sorted(range(len(chances)), key=lambda c: (-chances[c], c))
    return tuple(c for c in order if 1 - chances[c] <= threshold)


def ranking_score(targets: Array, said: Array) -> float:
    """Mean over examples of :func:`topgraft.objective.ranking_precision`.

    Parameters
    ----------
    targets, said
        ``(n, labels)`` bool, and float: logits or probabilities.
    """
    return float(_ranked(targets, said).mean())


def frequency_score(targets: Array) -> float:
    """:func:`ranking_score` of always putting the most frequent label first.

    Examples
    --------
    >>> frequency_score(np.array([[True, False], [True, False], [False, True]])).__round__(3)
    0.833
    """
    return ranking_score(targets, np.broadcast_to(targets.mean(0), targets.shape))


def average_precision(targets: Array, chances: Array, weights: Array | None = None) -> Array:
    """Average precision of one label: the mean over its examples of the precision from each one upwards.

    Parameters
    ----------
    targets, chances
        ``(n,)`` bool and float.
    weights
        ``(draws, n)``: how often each example counts; default: once.

    Returns
    -------
    ndarray
        ``(draws,)`` float64; not-a-number where no example has the label.

    Examples
    --------
    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7])).round(4).tolist()
    [0.8333]
    """
    order = np.argsort(-chances, kind="stable")
    falling, has = -chances[order], targets[order].astype(float)
    ends = np.searchsorted(falling, falling, side="right") - 1  # of equal chances the last counts for all
    times = np.ones((1, len(order))) if weights is None else weights[:, order]
    held = times * has
    precision = ratio(np.cumsum(held, 1)[:, ends], np.cumsum(times, 1)[:, ends])
    total = held.sum(1)
    found: Array = np.divide(
        (held * precision).sum(1), total, out=np.full(len(times), math.nan), where=total > 0
    )
    return found


def label_table(targets: Array, given: Array) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of each label; ``(n, labels)`` booleans.

    Examples
    --------
    >>> label_table(np.array([[True], [True]]), np.array([[True], [False]]))
    (ClassScore(precision=1.0, recall=0.5, f1=0.6666666666666666, support=2),)
    """
    hits, support, predicted = (a.sum(0).astype(float) for a in (targets & given, targets, given))
    return tuple(
        ClassScore(float(ratio(h, p)), float(ratio(h, s)), float(ratio(2 * h, s + p)), int(s))
        for h, s, p in zip(hits, support, predicted, strict=True)
    )


def score_labels(
    targets: Array, chances: Array, *, groups: Array | None = None, seed: int = 0
) -> tuple[Score, ...]:
    """Scores on untouched examples, each with its interval by the bootstrap.

    Parameters
    ----------
    targets, chances
        ``(n, labels)`` bool, and probabilities.
    groups
        ``(n,)`` group numbers, drawn whole; default: every example by itself.
    seed
        Of the bootstrap.

    Returns
    -------
    tuple of Score
        :data:`RANKING`, an average of examples, first; then of labels that are given where their probability
        is above :data:`HALF`: :data:`MICRO` and :data:`MACRO` (over labels that occur or are given); then
        :data:`PRECISION` (over labels that occur) and :data:`RIGHT` (one less the Hamming loss).

    Raises
    ------
    TopgraftError
        If the shapes do not fit.

    Examples
    --------
    >>> targets = np.array([[True, False], [False, True], [True, True], [False, False]])
    >>> for score in score_labels(targets, np.where(targets, 0.9, 0.6)):
    ...     print(score.metric, round(score.value, 2))
    label ranking average precision 1.0
    micro F1 0.67
    macro F1 0.67
    mean average precision 1.0
    share of labels right 0.5
    """
    if targets.shape != chances.shape or targets.ndim != 2 or not len(targets):
        raise TopgraftError(
            "Targets and probabilities must be two arrays (n, labels) of one shape; got "
            f"{targets.shape} and {chances.shape}."
        )
    n, labels = targets.shape
    given, ranked = chances > HALF, _ranked(targets, chances)
    _, owner = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    many = int(owner.max()) + 1
    columns = [np.ones(n), ranked, (given == targets).mean(1), targets & given, targets, given]
    sums = np.zeros((many, 3 + 3 * labels))
    np.add.at(sums, owner, np.column_stack([column.astype(float) for column in columns]))
    rng = np.random.default_rng(seed)
    times = np.concatenate(
        [rng.multinomial(many, np.full(many, 1 / many), size=100) for _ in range(0, DRAWS, 100)]
    )
    point, drawn = _of_sums(sums.sum(0, keepdims=True)), _of_sums(times @ sums)
    fewer = times[: max(200, min(DRAWS, MOST // (n * labels)))]
    areas = [average_precision(targets[:, j], chances[:, j])[0] for j in range(labels)]
    drawn_areas = np.concatenate(
        [_mean_area(targets, chances, part[:, owner]) for part in np.array_split(fewer, len(fewer) // 100)]
    )
    known = [a for a in areas if not math.isnan(a)]
    spread = {name: drawn[:, i] for i, name in enumerate((RANKING, MICRO, MACRO, RIGHT))}
    values = {name: float(point[0, i]) for i, name in enumerate(spread)}
    spread[PRECISION], values[PRECISION] = drawn_areas, float(np.mean(known)) if known else math.nan
    return tuple(
        _with_interval(name, values[name], spread[name], n, groups)
        for name in (RANKING, MICRO, MACRO, PRECISION, RIGHT)
    )


def _mean_area(targets: Array, chances: Array, weights: Array) -> Array:
    """:data:`PRECISION` of bootstrap samples ``(draws, n)``, over the labels that occur in each."""
    each = np.stack([average_precision(t, c, weights) for t, c in zip(targets.T, chances.T, strict=True)])
    occurs = ~np.isnan(each)
    found: Array = ratio(np.where(occurs, each, 0.0).sum(0), occurs.sum(0))
    return found


def _of_sums(sums: Array) -> Array:
    """Ranking, micro F1, macro F1 and share right ``(draws, 4)`` of sums over examples."""
    count, ranked, right = sums[:, 0], sums[:, 1], sums[:, 2]
    hits, support, predicted = np.split(sums[:, 3:], 3, axis=1)
    micro = ratio(2 * hits.sum(1), (support + predicted).sum(1))
    occurs = support + predicted > 0
    macro = ratio(2 * hits, support + predicted).sum(1) / np.maximum(occurs.sum(1), 1)
    return np.stack([ranked / count, micro, macro, right / count], 1)


def _with_interval(metric: str, value: float, draws: Array, n: int, groups: Array | None) -> Score:
    low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
    if low == high:
        low, high = flawless_interval(value, n, groups)
    return Score(metric, value, min(low, value), max(high, value), n)


def _ranked(targets: Array, said: Array) -> Array:
    import torch

    from topgraft.objective import ranking_precision

    outputs = torch.from_numpy(np.array(said, dtype=np.float64))
    return ranking_precision(outputs, torch.from_numpy(np.array(targets, dtype=bool))).numpy()
