from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paired import Judged, better_of, compare, differences, mean_score

OURS, THEIRS = "ours", "theirs"


def judged(
    ours: list[list[int]], theirs: list[list[int]], groups: list[list[int]] | None = None
) -> list[Judged]:
    groups = groups or [list(range(len(row))) for row in ours]
    return [
        Judged(
            seed,
            np.array(groups[seed]),
            {OURS: np.array(ours[seed], dtype=bool), THEIRS: np.array(theirs[seed], dtype=bool)},
        )
        for seed in range(len(ours))
    ]


def simulated(rng: np.random.Generator, *, seeds: int, examples: int, gain: float) -> list[Judged]:
    """Untouched fifths of ``examples``; ours is right ``gain`` more often, beside an ease of each example."""
    ease = rng.uniform(0.3, 0.9, examples)
    some = []
    for seed in range(seeds):
        rows = rng.permutation(examples)[: examples // 5]
        theirs = rng.random(len(rows)) < ease[rows]
        ours = rng.random(len(rows)) < ease[rows] + gain
        some.append(Judged(seed, rows, {OURS: ours, THEIRS: theirs}))
    return some


answers = st.integers(1, 4).flatmap(
    lambda seeds: st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=12),
        min_size=seeds,
        max_size=seeds,
    )
)


def of_answers(drawn: list[list[tuple[bool, bool, int]]]) -> list[Judged]:
    return judged(
        [[int(a) for a, _, _ in row] for row in drawn],
        [[int(b) for _, b, _ in row] for row in drawn],
        [[g for _, _, g in row] for row in drawn],
    )


def test_scores_are_means_over_seeds_not_over_examples():
    some = judged([[1, 1, 1, 1], [0, 0]], [[0, 0, 0, 0], [1, 1]])
    assert mean_score(some, OURS) == 50
    assert better_of(some, (OURS, THEIRS)) == OURS
    assert better_of(some, (THEIRS, OURS)) == THEIRS


def test_methods_that_answer_alike_do_not_differ_however_often_they_are_wrong():
    some = judged([[1, 0, 1], [0, 0, 1]], [[1, 0, 1], [0, 0, 1]])
    assert not differences(some, OURS, THEIRS, draws=50, seed=0).any()


def test_one_that_is_always_right_is_100_points_above_one_that_never_is():
    by_task, together = compare(
        {"task": judged([[1, 1], [1, 1]], [[0, 0], [0, 0]])}, OURS, (THEIRS,), draws=50
    )
    peer, difference = by_task["task"]
    assert (peer, difference.mean, difference.low, difference.high) == (THEIRS, 100, 100, 100)
    assert together.mean == 100


def test_with_one_seed_the_interval_is_that_of_a_paired_difference():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 1, 400)) < np.array([0.8, 0.7])[:, None, None]
    some = judged(ours.astype(int).tolist(), theirs.astype(int).tolist())
    draws = differences(some, OURS, THEIRS, draws=4000, seed=0)
    gain = 100 * (ours[0].astype(float) - theirs[0])
    assert draws.mean() == pytest.approx(gain.mean(), abs=0.2)
    assert draws.std() == pytest.approx(gain.std(ddof=1) / 20, rel=0.05)


def test_duplicates_in_one_group_count_as_one_piece_of_evidence():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.random((2, 1, 100)) < 0.7).astype(int).tolist()
    once = differences(judged(ours, theirs), OURS, THEIRS, draws=2000, seed=0)
    twice = judged([ours[0] * 2], [theirs[0] * 2], [list(range(100)) * 2])
    assert differences(twice, OURS, THEIRS, draws=2000, seed=0) == pytest.approx(once)
    free = judged([ours[0] * 2], [theirs[0] * 2])
    assert differences(free, OURS, THEIRS, draws=2000, seed=0).std() < 0.8 * once.std()


def test_seeds_that_disagree_widen_the_interval():
    alike = judged([[1, 1, 0, 0] * 25] * 4, [[1, 0, 1, 0] * 25] * 4)
    apart = judged([[1] * 100, [0] * 100] * 2, [[0] * 100, [1] * 100] * 2)
    assert mean_score(alike, OURS) - mean_score(alike, THEIRS) == 0
    assert mean_score(apart, OURS) - mean_score(apart, THEIRS) == 0
    narrow = differences(alike, OURS, THEIRS, draws=500, seed=0).std()
    assert differences(apart, OURS, THEIRS, draws=500, seed=0).std() > 3 * narrow


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        some = simulated(rng, seeds=5, examples=300, gain=0.05)
        low, high = np.quantile(differences(some, OURS, THEIRS, draws=300, seed=0), [0.025, 0.975])
        held += bool(low <= 5 <= high)
    assert held >= 91  # 95 % on average; fewer than 91 of 100 would happen by chance 3 times in 100


def test_the_mean_over_tasks_is_surer_than_each_task():
    rng = np.random.default_rng(0)
    tasks = {name: simulated(rng, seeds=5, examples=400, gain=0.05) for name in ("a", "b")}
    by_task, together = compare(tasks, OURS, (THEIRS,), draws=1000)
    widths = [difference.high - difference.low for _, difference in by_task.values()]
    assert together.mean == pytest.approx(np.mean([difference.mean for _, difference in by_task.values()]))
    assert together.high - together.low < min(widths)


def test_ours_is_measured_against_the_better_peer_of_each_task():
    base = judged([[1, 1, 1, 0]], [[0, 0, 0, 1]])[0]
    weak = {**base.correct, "weak": np.zeros(4, dtype=bool)}
    strong = {**weak, "weak": np.ones(4, dtype=bool)}
    tasks = {"a": [replace(base, correct=weak)], "b": [replace(base, correct=strong)]}
    by_task, together = compare(tasks, OURS, (THEIRS, "weak"), draws=20)
    assert {task: (peer, d.mean) for task, (peer, d) in by_task.items()} == {
        "a": (THEIRS, 50),
        "b": ("weak", -25),
    }
    assert together.mean == 12.5


@given(answers)
def test_swapping_the_methods_turns_every_draw_around(drawn):
    some = of_answers(drawn)
    there = differences(some, OURS, THEIRS, draws=20, seed=1)
    assert there == pytest.approx(-differences(some, THEIRS, OURS, draws=20, seed=1))
    assert (np.abs(there) <= 100 + 1e-9).all()


@given(answers, st.randoms())
def test_the_order_of_examples_changes_nothing(drawn, random):
    shuffled = [random.sample(row, len(row)) for row in drawn]
    before = differences(of_answers(drawn), OURS, THEIRS, draws=20, seed=1)
    assert differences(of_answers(shuffled), OURS, THEIRS, draws=20, seed=1) == pytest.approx(before)
