"""Several ways of making a model, scored on the same untouched examples at several sizes and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

PRETRAINED, SCRATCH, RANDOM = "pretrained", "scratch", "random features"
BASELINE, MAJORITY = "baseline", "majority class"
ARMS = (PRETRAINED, SCRATCH, RANDOM, BASELINE, MAJORITY)
DRAWS, MOST_UNITS = 2000, 2048
WON = {PRETRAINED: "pretrained_won", SCRATCH: "scratch_won", BASELINE: "baseline_won"}
NO_DIFFERENCE = "no_difference"
RESULT = "result"
"""Where the answer stands in the file of a finished comparison."""
SAID = {
    PRETRAINED: "the pretrained network",
    SCRATCH: "training from scratch",
    RANDOM: "the same network with random values",
    BASELINE: "the simple baseline",
    MAJORITY: "always naming the most frequent class",
}
"""Each arm as a sentence calls it."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Outcome:
    """One way, trained once.

    Parameters
    ----------
    arm
        One of :data:`ARMS`.
    share, seed
        Of the development part that it was trained on, and which draw of it.
    examples
        How many that were.
    correct
        Per untouched example, whether it was right.
    train_score
        Share right of what it was trained on.
    seconds
        From the examples to the model, its share of a pass over the data included.
    told
        What was chosen, in words.
    keep
        Blocks kept; 0 where there are none.
    """

    arm: str
    share: float
    seed: int
    examples: int
    correct: tuple[bool, ...]
    train_score: float
    seconds: float
    told: str = ""
    keep: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "correct": [int(c) for c in self.correct]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Outcome:
        """The one that :meth:`to_json` wrote."""
        return cls(**{**value, "correct": tuple(bool(c) for c in value["correct"])})


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """All outcomes on the same untouched examples, and bootstrap samples of them.

    Parameters
    ----------
    outcomes
        Any number of arms, shares and seeds; where two arms are compared, both have the same seeds.
    groups
        ``(n,)`` of the untouched examples, drawn whole.
    seed
        Of the bootstrap.
    """

    outcomes: Sequence[Outcome]
    groups: Array
    seed: int = 0

    def arms(self) -> list[str]:
        """Those that were trained on everything."""
        return [arm for arm in ARMS if self.at(arm, 1.0)]

    def shares(self, arm: str) -> list[float]:
        """Ascending."""
        return sorted({o.share for o in self.outcomes if o.arm == arm})

    def at(self, arm: str, share: float) -> list[Outcome]:
        """By seed."""
        found = (o for o in self.outcomes if o.arm == arm and o.share == share)
        return sorted(found, key=lambda o: o.seed)

    def score(self, arm: str, share: float = 1.0) -> Interval:
        """Mean over seeds; the interval is over seeds and groups of untouched examples."""
        drawn = self._drawn(arm, share)
        return _interval(self._mean(arm, share), drawn)

    def difference(self, a: str, b: str) -> Interval:
        """Score of ``a`` minus score of ``b``, both trained on everything, on the same draws."""
        return _interval(self._mean(a, 1.0) - self._mean(b, 1.0), self._drawn(a, 1.0) - self._drawn(b, 1.0))

    def gap(self, arm: str, share: float = 1.0) -> float:
        """Score on what it was trained on minus untouched score."""
        found = self.at(arm, share)
        return float(np.mean([o.train_score for o in found])) - self._mean(arm, share)

    def seconds(self, arm: str, share: float = 1.0) -> float:
        """Mean over seeds."""
        return float(np.mean([o.seconds for o in self.at(arm, share)]))

    def verdict(self) -> str:
        """Who won, by the paired intervals: one of four.

        ``scratch_won`` or ``baseline_won`` where that one's score is above the pretrained network's for sure;
        ``pretrained_won`` where that is above every other's for sure; else ``no_difference``.
        """
        others = [arm for arm in self.arms() if arm != PRETRAINED]
        beaten_by = [arm for arm in others if arm in WON and self.difference(arm, PRETRAINED).low > 0]
        if beaten_by:
            return WON[max(beaten_by, key=lambda arm: self._mean(arm, 1.0))]
        if others and all(self.difference(PRETRAINED, arm).low > 0 for arm in others):
            return WON[PRETRAINED]
        return NO_DIFFERENCE

    def best(self) -> str:
        """The arm with the highest score; of equals the first."""
        return max(self.arms(), key=lambda arm: self._mean(arm, 1.0))

    def labels_saved(self, other: str) -> Interval | None:
        """Share of the labels that the pretrained network can do without and match ``other`` with all.

        Its learning curve is read off between the sizes that were measured, straight over the logarithm of
        the number of examples. ``None`` where it does not get there; where it is there at the smallest size,
        what is saved is at least the value given.
        """
        return self._read_off(self.shares(PRETRAINED), other)

    def time_saved(self, other: str) -> Interval | None:
        """Share of the time of ``other``, trained on everything, that the pretrained network can do without.

        As :meth:`labels_saved`, over the seconds that each size took, a pass over the data included. Below 0
        where it takes longer; the interval is that of the scores, since seconds are taken as measured.
        """
        whole = max(self.seconds(other), 1e-9)
        return self._read_off(
            [max(self.seconds(PRETRAINED, s), 1e-9) / whole for s in self.shares(PRETRAINED)], other
        )

    def _read_off(self, needed: Sequence[float], other: str) -> Interval | None:
        """One minus what is needed to match ``other``; ``needed`` by share of the pretrained network."""
        shares = self.shares(PRETRAINED)
        goal, drawn_goal = self._mean(other, 1.0), self._drawn(other, 1.0)
        value = _saved(needed, [self._mean(PRETRAINED, s) for s in shares], goal)
        if value is None:
            return None
        drawn_points = np.stack([self._drawn(PRETRAINED, s) for s in shares])
        drawn = [
            _saved(needed, list(column), float(g))
            for column, g in zip(drawn_points.T, drawn_goal, strict=True)
        ]
        return _interval(value, np.array([1 - needed[-1] if d is None else d for d in drawn]))

    @cached_property
    def _groups(self) -> tuple[Array, Array]:
        """Each example's unit, and how often each draw holds each unit, ``(draws, units)`` float32.

        Where there are very many groups, some are put together at random.
        """
        rng = np.random.default_rng(self.seed)
        _, owner = np.unique(self.groups, return_inverse=True)
        many = int(owner.max()) + 1
        if many > MOST_UNITS:
            owner, many = (rng.permutation(many) % MOST_UNITS)[owner], MOST_UNITS
        drawn = rng.multinomial(many, np.full(many, 1 / many), size=DRAWS)
        return owner, drawn.astype(np.float32)

    def _mean(self, arm: str, share: float) -> float:
        return float(np.mean([np.mean(o.correct) for o in self.at(arm, share)]))

    def _drawn(self, arm: str, share: float) -> Array:
        """``(draws,)``: seeds and groups are drawn with replacement, each by itself (Owen 2007)."""
        found, (owner, groups) = self.at(arm, share), self._groups
        many = groups.shape[1]
        right = np.stack([np.bincount(owner, weights=o.correct, minlength=many) for o in found])
        size = np.bincount(owner, minlength=many)
        rng = np.random.default_rng([self.seed, 1])
        seeds = rng.multinomial(len(found), np.full(len(found), 1 / len(found)), size=DRAWS)
        each = groups @ right.T / (groups @ size)[:, None]
        drawn: Array = (each * seeds).sum(1) / len(found)
        return drawn


def _interval(value: float, drawn: Array) -> Interval:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))


def _saved(shares: Sequence[float], scores: Sequence[float], goal: float) -> float | None:
    """One minus the share at which a curve first reaches a goal; ``None`` where it does not.

    Examples
    --------
    >>> round(_saved([0.25, 1.0], [0.5, 0.7], 0.6), 3), _saved([0.25, 1.0], [0.5, 0.7], 0.8)
    (0.5, None)
    """
    for i, score in enumerate(scores):
        if score < goal:
            continue
        if i == 0:
            return 1 - shares[0]
        before = scores[i - 1]
        part = (goal - before) / (score - before)
        return 1 - math.exp((1 - part) * math.log(shares[i - 1]) + part * math.log(shares[i]))
    return None
