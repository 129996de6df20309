"""Paired comparison of methods over seeds and examples: which peer is better, by how much, how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CHUNK = 1_000
"""Draws done at once, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Judged:
    """The untouched part of one seed, as every method answered it.

    Parameters
    ----------
    seed
        Of the split and of every method.
    groups
        ``(n,)`` int64, one an example; the same numbers in every seed, since parts of several seeds share
        examples. Duplicates have one number.
    correct
        Per method ``(n,)`` bool: whether its answer is right.
    """

    seed: int
    groups: Array
    correct: Mapping[str, Array]


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95 % interval, in points of accuracy."""

    mean: float
    low: float
    high: float


def mean_score(judged: Sequence[Judged], method: str) -> float:
    """Accuracy in percent: the mean over seeds."""
    return 100 * float(np.mean([np.mean(one.correct[method]) for one in judged]))


def better_of(judged: Sequence[Judged], methods: Sequence[str]) -> str:
    """The method with the highest mean over all seeds; of equals the first."""
    return max(methods, key=lambda method: mean_score(judged, method))


def differences(judged: Sequence[Judged], ours: str, theirs: str, *, draws: int, seed: int) -> Array:
    """Bootstrap draws of the mean difference ``ours - theirs``, in points.

    Seeds and examples cross: an example is untouched in some seeds or in all of them. A draw therefore takes
    seeds with replacement and, independently, groups of all examples with replacement; a group counts as
    often as it was drawn in every seed that has it (the pigeonhole bootstrap, Owen 2007, which errs to the
    wide side). Both methods answer the same examples in each draw.

    Returns
    -------
    Array
        ``(draws,)`` float64.
    """
    numbers = np.unique(np.concatenate([one.groups for one in judged]))
    gain = np.zeros((len(judged), len(numbers)))
    count = np.zeros_like(gain)
    for row, one in enumerate(judged):
        column = np.searchsorted(numbers, one.groups)
        np.add.at(gain[row], column, one.correct[ours].astype(float) - one.correct[theirs].astype(float))
        np.add.at(count[row], column, 1.0)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        groups = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=size)
        seeds = rng.multinomial(len(judged), np.full(len(judged), 1 / len(judged)), size=size)
        each = (groups @ gain.T) / np.maximum(groups @ count.T, 1)
        parts.append(100 * (seeds * each).sum(1) / len(judged))
    return np.concatenate(parts)


def compare(
    tasks: Mapping[str, Sequence[Judged]], ours: str, peers: Sequence[str], *, draws: int = 10_000
) -> tuple[dict[str, tuple[str, Difference]], Difference]:
    """Ours against the better peer of each task.

    The better peer is chosen on the same untouched data, which favours it, and is then held fixed. Tasks are
    drawn independently of each other.

    Returns
    -------
    by_task, together
        Per task the better peer and the difference to it; and the mean over the tasks.
    """
    by_task: dict[str, tuple[str, Difference]] = {}
    means, drawn = [], []
    for number, (task, judged) in enumerate(tasks.items()):
        peer = better_of(judged, peers)
        mean = mean_score(judged, ours) - mean_score(judged, peer)
        some = differences(judged, ours, peer, draws=draws, seed=number)
        by_task[task] = peer, _with_interval(mean, some)
        means.append(mean)
        drawn.append(some)
    return by_task, _with_interval(float(np.mean(means)), np.mean(drawn, axis=0))


def _with_interval(mean: float, draws: Array) -> Difference:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(mean, float(low), float(high))
