from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.curves import (
    BASELINE,
    MAJORITY,
    NO_DIFFERENCE,
    PRETRAINED,
    RANDOM,
    SCRATCH,
    Comparison,
    Outcome,
)

N = 200


def outcomes(rates: dict[str, dict[float, float]], *, seeds: int = 3, n: int = N) -> list[Outcome]:
    """For each arm and share a rate of right answers, each seed with luck of its own."""
    found = []
    for a, (arm, curve) in enumerate(rates.items()):
        for share, rate in curve.items():
            for seed in range(seeds):
                luck = np.random.default_rng([a, int(100 * share), seed]).random(n) < rate
                right = tuple(luck.tolist())
                found.append(Outcome(arm, share, seed, int(1000 * share), right, min(1, rate + 0.1), 2.0 + a))
    return found


def comparison(rates: dict[str, dict[float, float]], **options: int) -> Comparison:
    return Comparison(outcomes(rates, **options), np.arange(options.get("n", N)))


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ((0.9, 0.6, 0.5, 0.6, 0.2), "pretrained_won"),
        ((0.6, 0.9, 0.5, 0.6, 0.2), "scratch_won"),
        ((0.6, 0.5, 0.5, 0.9, 0.2), "baseline_won"),
        ((0.6, 0.85, 0.5, 0.95, 0.2), "baseline_won"),
        ((0.7, 0.7, 0.5, 0.6, 0.2), NO_DIFFERENCE),
        ((0.25, 0.24, 0.26, 0.25, 0.25), NO_DIFFERENCE),
    ],
)
def test_the_verdict_follows_from_the_paired_intervals(rates: tuple[float, ...], verdict: str):
    arms = (PRETRAINED, SCRATCH, RANDOM, BASELINE, MAJORITY)
    found = comparison({arm: {1.0: rate} for arm, rate in zip(arms, rates, strict=True)})
    assert found.verdict() == verdict
    if verdict == "pretrained_won":
        assert all(found.difference(PRETRAINED, arm).low > 0 for arm in arms[1:])


def test_a_difference_is_paired_so_that_the_same_answers_have_none():
    one = outcomes({PRETRAINED: {1.0: 0.6}})
    both = [*one, *(Outcome(BASELINE, 1.0, o.seed, 1000, o.correct, 1.0, 1.0) for o in one)]
    found = Comparison(both, np.arange(N)).difference(PRETRAINED, BASELINE)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        each = [
            Outcome(PRETRAINED, 1.0, s, 10, tuple((rng.random(100) < 0.7).tolist()), 1.0, 1.0)
            for s in range(3)
        ]
        found = Comparison(each, np.arange(100), seed=trial).score(PRETRAINED)
        held += found.low <= 0.7 <= found.high
    assert held / 200 > 0.93  # drawing seeds and examples apart errs to the wide side


def test_examples_that_belong_together_make_wider_intervals():
    right = tuple(np.repeat(np.random.default_rng(0).random(20) < 0.7, 10).tolist())
    one = [Outcome(PRETRAINED, 1.0, 0, 10, right, 1.0, 1.0)]
    apart = Comparison(one, np.arange(200)).score(PRETRAINED)
    together = Comparison(one, np.repeat(np.arange(20), 10)).score(PRETRAINED)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_labels_are_saved_where_the_curve_gets_there_and_not_where_it_does_not():
    steep = {0.1: 0.5, 0.25: 0.7, 0.5: 0.8, 1.0: 0.9}
    found = comparison({PRETRAINED: steep, SCRATCH: {1.0: 0.75}, BASELINE: {1.0: 0.99}}, n=3000)
    saved = found.labels_saved(SCRATCH)
    assert saved is not None
    assert saved.value == pytest.approx(1 - 0.3536, abs=0.05)  # half way between a quarter and a half
    assert saved.low < saved.value < saved.high
    assert found.labels_saved(BASELINE) is None


def test_time_is_saved_by_the_seconds_of_the_size_that_is_as_good() -> None:
    steep = {0.1: 0.5, 0.25: 0.7, 0.5: 0.8, 1.0: 0.9}
    found = comparison({PRETRAINED: steep, SCRATCH: {1.0: 0.75}, BASELINE: {1.0: 0.99}}, n=3000)
    quick = [replace(o, seconds=10 * o.share if o.arm == PRETRAINED else 100.0) for o in found.outcomes]
    saved = Comparison(quick, found.groups).time_saved(SCRATCH)
    labels = found.labels_saved(SCRATCH)
    assert saved is not None
    assert labels is not None
    assert 1 - saved.value == pytest.approx(
        (1 - labels.value) / 10
    )  # seconds go with the share, of 10 in 100
    assert saved.low < saved.value < saved.high
    slow = [replace(o, seconds=1000.0 if o.arm == PRETRAINED else 100.0) for o in found.outcomes]
    longer = Comparison(slow, found.groups).time_saved(SCRATCH)
    assert longer is not None
    assert longer.value == pytest.approx(-9)
    assert found.time_saved(BASELINE) is None


def test_gap_seconds_and_best_are_those_of_everything():
    found = comparison({PRETRAINED: {0.5: 0.9, 1.0: 0.6}, SCRATCH: {1.0: 0.8}})
    assert found.best() == SCRATCH
    assert found.seconds(SCRATCH) == 3.0
    assert found.gap(PRETRAINED) == pytest.approx(0.1, abs=0.05)
    assert found.gap(PRETRAINED, 0.5) == pytest.approx(0.1, abs=0.05)
    assert found.seconds(PRETRAINED, 0.5) == 2.0
    assert found.shares(PRETRAINED) == [0.5, 1.0]


@given(st.floats(0, 1), st.booleans(), st.integers(0, 9))
def test_json_brings_an_outcome_back(share: float, right: bool, keep: int):
    one = Outcome(SCRATCH, share, 1, 3, (right, True), 0.5, 1.5, "told", keep)
    assert Outcome.from_json(one.to_json()) == one
