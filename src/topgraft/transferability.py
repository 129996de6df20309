"""Secondary measures of a cut, from its features alone: nearest neighbours and LogME."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topgraft.errors import TopgraftError
from topgraft.evidence import Features
from topgraft.side_by_side import in_order, single_threaded

NEIGHBOURS = 5
MOST_EXAMPLES = 2000
"""Of more than these a sample is taken: every pair is compared."""
ROUNDS, TOLERANCE = 100, 1e-4
"""Of the fixed point of LogME."""
SMALLEST = 1e-12
"""Squared singular value, relative to the largest, below which there is no axis."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Secondary:
    """What a cut's features say of their classes without a head.

    Parameters
    ----------
    neighbours
        Share of the examples whose class is that of most of their five nearest neighbours in other folds.
    logme
        Mean over classes of the log evidence of a Bayesian linear model, per example (nats).
    """

    neighbours: float
    logme: float


def secondary(
    features: Features, targets: Array, fold_of: Array, *, seed: int = 0
) -> Mapping[int, Secondary]:
    """Both measures at every cut; of more than 2,000 examples, on a random 2,000.

    Parameters
    ----------
    features
        As for :func:`topgraft.probe`.
    targets, fold_of
        ``(n,)`` class indices and folds.
    seed
        Of the sample.

    Returns
    -------
    Mapping
        By keep.
    """
    targets, fold_of = np.asarray(targets), np.asarray(fold_of)
    rows = np.arange(len(targets))
    if len(rows) > MOST_EXAMPLES:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), MOST_EXAMPLES, replace=False))

    def measure(keep: int) -> tuple[int, Secondary]:
        x = features.cuts[keep][torch.from_numpy(rows)]
        near = neighbour_accuracy(x, targets[rows], fold_of[rows])
        return keep, Secondary(near, logme(x, targets[rows]))

    with single_threaded() as cores:
        found = dict(in_order(measure, features.widest_first, workers=cores))
    return {keep: found[keep] for keep in sorted(found)}


def neighbour_accuracy(x: Tensor, targets: Array, fold_of: Array, *, neighbours: int = NEIGHBOURS) -> float:
    """Share of the examples that their nearest neighbours in other folds classify rightly.

    Features are standardised by the other folds and compared by their cosine; the majority decides, of equal
    ones the class of the nearest.

    Parameters
    ----------
    x
        ``(n, width)`` float.
    targets, fold_of
        ``(n,)`` class indices and folds.
    neighbours
        How many are asked.

    References
    ----------
    Cover & Hart (1967), Nearest neighbor pattern classification.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> neighbour_accuracy(x, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), neighbours=1)
    1.0
    """
    y, right = torch.as_tensor(targets), 0
    classes = int(y.max()) + 1
    for fold in np.unique(fold_of):
        inside = torch.from_numpy(fold_of == fold)
        known, asked = x[~inside].double(), x[inside].double()
        mean, spread = known.mean(0), known.std(0, correction=0)
        scale = torch.where(spread > 0, 1 / spread, torch.zeros_like(spread))
        known, asked = (torch.nn.functional.normalize((a - mean) * scale) for a in (known, asked))
        near = (asked @ known.T).topk(min(neighbours, len(known)), dim=1).indices
        votes = torch.zeros(len(asked), classes, dtype=torch.float64)
        votes.scatter_add_(1, y[~inside][near], torch.ones_like(near, dtype=torch.float64))
        first = y[~inside][near[:, 0]]
        votes[torch.arange(len(asked)), first] += 0.5
        right += int((votes.argmax(1) == y[inside]).sum())
    return right / len(y)


def logme(x: Tensor, targets: Array) -> float:
    """Log evidence per example that the features hold of each class, maximised over both precisions.

    Each class's one-hot target is a Bayesian linear model of the features with prior precision ``alpha`` and
    noise precision ``beta``, found by a fixed point; the mean over classes is returned.

    Parameters
    ----------
    x
        ``(n, width)`` float.
    targets
        ``(n,)`` class indices.

    Returns
    -------
    float
        In nats; only comparable among features of the same examples.

    Raises
    ------
    TopgraftError
        If a feature is not finite.

    References
    ----------
    You et al. (2021), LogME: practical assessment of pre-trained models for transfer learning; the fixed
    point on the singular values is that of You et al. (2022), Ranking and tuning pre-trained models.
    """
    features = x.double()
    if not bool(features.isfinite().all()):
        raise TopgraftError("LogME needs finite features.")
    n, width = features.shape
    y = torch.nn.functional.one_hot(torch.as_tensor(targets)).double()
    y = y[:, y.sum(0) > 0]
    tall = n > width
    squares, axes = torch.linalg.eigh(features.T @ features if tall else features @ features.T)
    kept = squares > squares.max() * SMALLEST
    squares, axes = squares[kept], axes[:, kept]
    along = (axes.T @ (features.T @ y)) / squares.sqrt()[:, None] if tall else axes.T @ y
    projected = along.square()
    outside = (y.square().sum(0) - projected.sum(0)).clamp(min=0)
    evidence = [_evidence(squares, projected[:, c], float(outside[c]), n, width) for c in range(y.shape[1])]
    return sum(evidence) / len(evidence)


def _evidence(squares: Tensor, projected: Tensor, outside: float, n: int, width: int) -> float:
    """Of one target: ``projected`` squared onto the axes of ``squares``, ``outside`` onto none of them."""
    ratio, tiny = 1.0, 1e-300  # ratio: alpha over beta
    alpha = beta = weights = residual = 1.0
    for _ in range(ROUNDS):
        effective = float((squares / (squares + ratio)).sum())
        weights = float((squares * projected / (squares + ratio).square()).sum())
        residual = float((projected * (ratio / (squares + ratio)).square()).sum()) + outside
        alpha, beta = effective / max(weights, tiny), max(n - effective, tiny) / max(residual, tiny)
        before, ratio = ratio, alpha / max(beta, tiny)
        if abs(ratio - before) <= TOLERANCE * before:
            break
    logs = torch.log(alpha + beta * squares).sum() + (width - len(squares)) * np.log(max(alpha, tiny))
    total = width * np.log(max(alpha, tiny)) + n * np.log(max(beta, tiny)) - float(logs)
    total -= beta * residual + alpha * weights + n * np.log(2 * np.pi)
    return float(total / 2 / n)
