"""Which of several candidates can't be told from the best, when all were measured on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from topgraft.errors import TopgraftError

Array = np.ndarray[Any, np.dtype[Any]]

DRAWS = 2000
"""Bootstrap samples."""

MOST_UNITS = 4096
"""More examples (or groups) than this are put together at random into this many before they are drawn."""


@dataclass(frozen=True)
class Paired:
    """Losses of candidates on the same examples, and bootstrap samples of all their paired differences.

    Parameters
    ----------
    means
        ``(measures, candidates)``: mean losses.
    errors
        ``(measures, candidates, candidates)``: standard error of the mean paired difference, 0 on the
        diagonal.
    units
        ``(measures, units, candidates)``: what each unit (an example, a group) adds to the deviation from
        the mean, over ``n``.
    counts
        ``(draws, units)``: how often each bootstrap sample drew each unit.
    floor
        ``(measures,)``: added to every variance.
    """

    means: Array
    errors: Array
    units: Array
    counts: Array
    floor: Array

    @classmethod
    def of(cls, losses: Sequence[Array], groups: Array, *, seed: int, unstable: float = 0.0) -> Paired:
        """Set the bootstrap up.

        Parameters
        ----------
        losses
            A measure each: ``(n, candidates)``, lower is better. Measures that hold only 0 and 1 have one
            discordant pair added on either side of each comparison (as Agresti and Min 2005 for paired
            proportions), since a handful of them is far from normal.
        groups
            ``(n,)`` group numbers; groups are drawn whole.
        seed
            Of the draws.
        unstable
            Over the root of the number of units: what the luck of small training sets, which no bootstrap
            of the examples shows, adds to the relative variance of the differences that were seen.
        """
        values = np.stack([np.asarray(loss, dtype=np.float64) for loss in losses])
        n = values.shape[1]
        rng = np.random.default_rng(seed)
        _, owner = np.unique(groups, return_inverse=True)
        many = given = int(owner.max()) + 1
        if many < 2:
            raise TopgraftError(
                f"All {n:,} examples are of one group, so differences can't be told from chance."
            )
        if many > MOST_UNITS:
            owner, many = (rng.permutation(many) % MOST_UNITS)[owner], MOST_UNITS
        means = values.mean(1)
        away = (values - means[:, None]) / n
        units = np.zeros((len(values), many, values.shape[2]))
        for measure in range(len(values)):
            np.add.at(units[measure], owner, away[measure])
        floor = np.array([2 / n**2 if np.isin(v, (0, 1)).all() else 0.0 for v in values])
        drawn = rng.integers(0, many, (DRAWS, many)) + many * np.arange(DRAWS)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=DRAWS * many).reshape(DRAWS, many).astype(np.float64)
        errors = np.zeros((len(values), values.shape[2], values.shape[2]))
        for measure, unit in enumerate(units):
            for k in range(values.shape[2]):
                apart = ((unit[:, [k]] - unit) ** 2).sum(0) * many / (many - 1)
                variance = apart + floor[measure] * (np.arange(len(apart)) != k)
                errors[measure, k] = np.sqrt(variance * (1 + unstable / given**0.5))
        return cls(means, errors, units, counts, floor)

    @cached_property
    def sums(self) -> Array:
        """Deviation of each bootstrap sample's mean losses, ``(measures, draws, candidates)``."""
        deviation: Array = self.counts @ self.units
        return deviation

    def worse(self, k: int) -> Array:
        """Studentised amounts by which ``k`` is worse than each other: ``(measures, candidates)``."""
        return _divide(self.means[:, [k]] - self.means, self.errors[:, k])

    def worse_by_chance(self, k: int) -> Array:
        """:meth:`worse` in each bootstrap sample about its mean: ``(draws, measures, candidates)``."""
        many, sums = self.units.shape[1], self.sums
        drawn: list[Array] = []
        for measure, unit in enumerate(self.units):
            apart, total = unit[:, [k]] - unit, sums[measure][:, [k]] - sums[measure]
            variance = (self.counts @ apart**2 - total**2 / many).clip(0) * many / (many - 1)
            variance += self.floor[measure] * (np.arange(apart.shape[1]) != k)
            # A sample may have drawn too few that differ: no variance is under a tenth of the one measured.
            drawn.append(_divide(total, np.sqrt(np.maximum(variance, 0.1 * self.errors[measure, k] ** 2))))
        return np.stack(drawn, axis=1)

    def shares_best(self, measure: int = 0) -> Array:
        """Share of bootstrap samples in which each candidate loses least, ties shared: ``(candidates,)``."""
        drawn: Array = self.means[measure] + self.sums[measure]
        best = drawn <= drawn.min(1, keepdims=True) + 1e-12
        share: Array = (best / best.sum(1, keepdims=True)).mean(0)
        return share


@dataclass(frozen=True)
class ConfidenceSet:
    """Candidates that can't be told from the best.

    Parameters
    ----------
    members
        Their numbers, ascending.
    critical
        ``(candidates,)``: the studentised difference above which each is told from the best.
    """

    members: tuple[int, ...]
    critical: Array


def confidence_set(paired: Paired, *, level: float = 0.95) -> ConfidenceSet:
    """The candidates for which "this one is the best" is not rejected by any measure.

    Each candidate is compared with every other on every measure, and leaves when the largest studentised
    amount by which it is worse exceeds what chance makes of that maximum where all are equal (max-t
    bootstrap). The maximum allows for the best having been chosen among all and for there being several
    measures, by their joint distribution. Then the rest are compared among themselves, until nobody leaves
    (as in the model confidence set of Hansen, Lunde and Nason 2011). The truly best one is in the set in at
    least ``level`` of data sets.

    If measures contradict each other so clearly that nobody stays, the first measure decides alone.
    """
    measures = paired.means.shape[0]
    for used in (range(measures), range(1)):
        found = _step_down(paired, level, list(used))
        if found.members:
            return found
    raise AssertionError("by one measure alone the best is never worse than another")


def _step_down(paired: Paired, level: float, used: list[int]) -> ConfidenceSet:
    size = paired.means.shape[1]
    seen = [paired.worse(k)[used] for k in range(size)]
    chance = [paired.worse_by_chance(k)[:, used].astype(np.float32) for k in range(size)]
    members, critical = list(range(size)), np.zeros(size)
    least = NormalDist().inv_cdf(
        level
    )  # few that differ make skew draws, whose quantile falls below one pair's
    while True:
        for k in members:
            critical[k] = max(np.quantile(chance[k][:, :, members].max((1, 2)), level), least)
        staying = [k for k in members if seen[k][:, members].max() <= critical[k] + 1e-9]
        if staying == members or not staying:
            return ConfidenceSet(tuple(staying), critical)
        members = staying


def pairwise_gains(paired: Paired, *, level: float = 0.95) -> tuple[Array, Array, Array]:
    """By how much each candidate loses less than each other, with simultaneous intervals; first measure only.

    All of them hold together in ``level`` of data sets: their width is the largest studentised difference
    that chance makes of any pair (max-t bootstrap; with two candidates that is a paired interval by itself).

    Returns
    -------
    gains, low, high
        ``(candidates, candidates)`` each: how much less the row's candidate loses than the column's.

    Examples
    --------
    >>> wrong = np.tile([[1, 0], [1, 0], [0, 1], [1, 1]], (10, 1))
    >>> gains, low, high = pairwise_gains(Paired.of([wrong], np.arange(40), seed=0))
    >>> float(gains[1, 0]), bool(low[1, 0] > 0), bool(low[1, 0] == -high[0, 1])
    (0.25, False, True)
    """
    chance = [np.abs(paired.worse_by_chance(k)[:, 0]) for k in range(paired.means.shape[1])]
    critical = max(
        float(np.quantile(np.stack(chance).max((0, 2)), level)), NormalDist().inv_cdf((1 + level) / 2)
    )
    gains = paired.means[0] - paired.means[0][:, None]
    half = critical * paired.errors[0]
    return gains, gains - half, gains + half


def any_better(losses: Sequence[Array], reference: Sequence[Array], groups: Array, *, seed: int) -> bool:
    """Whether any candidate is better than a reference that was not chosen, on any measure, at the 5 % level.

    Parameters
    ----------
    losses
        A measure each: ``(n, candidates)``.
    reference
        A measure each: ``(n,)``.
    groups
        ``(n,)`` group numbers.
    seed
        Of the bootstrap.
    """
    joined: list[Array] = [np.column_stack([r, v]) for r, v in zip(reference, losses, strict=True)]
    paired = Paired.of(joined, groups, seed=seed)
    critical = float(np.quantile(paired.worse_by_chance(0).max((1, 2)), 0.95))
    return bool(paired.worse(0).max() > critical)


def _divide(above: Array, below: Array) -> Array:
    """Nought over nought is nought: a candidate does not differ from itself or its copy."""
    tiny = np.abs(above) <= 1e-15
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = np.where(tiny, 0.0, above / below)
    return ratio
