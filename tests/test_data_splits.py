from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topgraft.data import Data, assign_folds, hold_out
from topgraft.errors import TopgraftError

Labelled = tuple[NDArray[np.int64], NDArray[np.int64]]


def data_of(targets: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> Data:
    n = len(targets)
    names = tuple(str(i) for i in range(n))
    return Data(
        modality="text",
        origin="a test",
        names=names,
        inputs=list(names),
        classes=tuple(f"c{c}" for c in range(int(targets.max()) + 1)),
        targets=targets,
        groups=np.arange(n) if groups is None else groups,
        digests=names,
    )


def groups_per_class(targets: NDArray[np.int64], groups: NDArray[np.int64]) -> dict[int, set[int]]:
    return {int(c): set(groups[targets == c].tolist()) for c in np.unique(targets)}


@st.composite
def pure_groups(draw: st.DrawFn) -> Labelled:
    """Groups of 1 to 4 examples of one class (as sets of duplicates mostly are); 3 to 12 groups a class."""
    targets, groups = [], []
    for c in range(draw(st.integers(2, 5))):
        for size in draw(st.lists(st.integers(1, 4), min_size=3, max_size=12)):
            targets += [c] * size
            groups += [(groups[-1] + 1) if groups else 0] * size
    order = draw(st.permutations(range(len(targets))))
    return np.array(targets)[order], np.array(groups)[order]


@st.composite
def any_groups(draw: st.DrawFn) -> Labelled:
    """Up to 8 groups with examples of up to 4 classes, in any mixture."""
    n = draw(st.integers(6, 30))
    targets = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))
    _, dense = np.unique(targets, return_inverse=True)
    return dense.astype(np.int64), np.array(groups)


@given(pure_groups(), st.integers(0, 5), st.sampled_from([0.1, 0.2, 0.5]))
def test_groups_stay_whole_and_every_class_is_in_both_parts(made: Labelled, seed: int, share: float) -> None:
    targets, groups = made
    development, untouched = hold_out(data_of(targets, groups), share=share, seed=seed)
    assert sorted([*development, *untouched]) == list(range(len(targets)))
    assert not set(groups[development]) & set(groups[untouched])
    for c in np.unique(targets):
        assert len(set(groups[development][targets[development] == c])) >= 2
        assert c in targets[untouched]
        # A part misses its share by no more than one group (4 examples), or one each for what it must have.
        wanted = share * (targets == c).sum()
        assert abs((targets[untouched] == c).sum() - wanted) <= 4


@given(pure_groups(), st.integers(0, 5), st.integers(2, 6))
def test_folds_keep_groups_whole_and_hold_every_class(made: Labelled, seed: int, folds: int) -> None:
    targets, groups = made
    fold_of, used, notes = assign_folds(targets, groups, folds=folds, seed=seed)
    fewest = min(len(g) for g in groups_per_class(targets, groups).values())
    assert used == min(folds, fewest)
    assert (len(notes) == 1) == (used < folds)
    assert set(fold_of.tolist()) == set(range(used))
    for g in np.unique(groups):
        assert len(set(fold_of[groups == g])) == 1
    for fold in range(used):
        assert set(targets[fold_of == fold]) == set(targets)


@given(pure_groups(), st.integers(0, 3))
def test_the_same_seed_gives_the_same_split(made: Labelled, seed: int) -> None:
    targets, groups = made
    data = data_of(targets, groups)
    for first, again in zip(hold_out(data, seed=seed), hold_out(data, seed=seed), strict=True):
        assert np.array_equal(first, again)
    folds = [assign_folds(targets, groups, folds=3, seed=seed)[0] for _ in range(2)]
    assert np.array_equal(*folds)


def test_other_seeds_give_other_splits() -> None:
    data = data_of(np.repeat([0, 1], 30))
    assert len({tuple(hold_out(data, seed=seed)[1]) for seed in range(5)}) == 5
    assert data.targets is not None
    folds = {tuple(assign_folds(data.targets, data.groups, seed=seed)[0]) for seed in range(5)}
    assert len(folds) == 5


@settings(max_examples=60, deadline=None)
@given(any_groups(), st.integers(0, 3))
def test_mixed_groups_are_split_whenever_a_search_of_all_ways_finds_one(made: Labelled, seed: int) -> None:
    targets, groups = made
    data = data_of(targets, groups)
    inside = list(groups_per_class(targets, groups).values())
    names = sorted(set(groups.tolist()))

    def fits(side: dict[int, int]) -> bool:
        return all(sum(side[g] for g in some) >= 1 and sum(1 - side[g] for g in some) >= 2 for some in inside)

    possible = any(fits(dict(zip(names, w, strict=True))) for w in product((0, 1), repeat=len(names)))
    try:
        development, untouched = hold_out(data, seed=seed)
    except TopgraftError:
        assert not possible
        return
    assert not set(groups[development]) & set(groups[untouched])
    assert fits({g: int(g in set(groups[untouched])) for g in names})


@settings(max_examples=60, deadline=None)
@given(any_groups(), st.integers(0, 3))
def test_two_folds_of_mixed_groups_are_found_whenever_there_are_some(made: Labelled, seed: int) -> None:
    targets, groups = made
    inside = list(groups_per_class(targets, groups).values())
    names = sorted(set(groups.tolist()))
    possible = len(inside) > 1 and any(
        all(len({side[names.index(g)] for g in some}) == 2 for some in inside)
        for side in product((0, 1), repeat=len(names))
    )
    try:
        fold_of, used, _ = assign_folds(targets, groups, folds=3, seed=seed)
    except TopgraftError:
        assert not possible
        return
    assert possible
    for fold in range(used):
        assert set(targets[fold_of == fold]) == set(targets)
    assert all(len(set(fold_of[groups == g])) == 1 for g in names)


def test_shares_are_met_and_folds_are_level() -> None:
    targets = np.repeat(np.arange(4), [200, 100, 50, 23])
    development, untouched = hold_out(data_of(targets), share=0.2)
    assert np.bincount(targets[untouched]).tolist() == [40, 20, 10, 5]
    assert len(development) == 373 - 75
    fold_of, _, notes = assign_folds(targets, np.arange(len(targets)))
    assert notes == ()
    assert np.ptp(np.bincount(fold_of)) <= 1
    for c in range(4):
        assert np.ptp(np.bincount(fold_of[targets == c])) <= 1


def test_a_large_group_goes_to_the_large_part() -> None:
    targets = np.repeat([0, 1], 20)
    groups = np.concatenate([np.zeros(15), np.arange(1, 26)]).astype(np.int64)
    development, untouched = hold_out(data_of(targets, groups))
    assert 0 in groups[development]
    assert len(untouched) == 8


def test_fewer_examples_than_folds_is_said_and_under_two_is_an_error() -> None:
    targets = np.array([0] * 10 + [1] * 3)
    _, used, notes = assign_folds(targets, np.arange(13), folds=5, classes=("cat", "dog"))
    assert used == 3
    assert notes == ('3 folds instead of 5: class "dog" has only 3 examples.',)
    groups = np.array([*range(10), 10, 10, 11])
    _, used, notes = assign_folds(targets, groups, folds=5, classes=("cat", "dog"))
    assert (used, notes) == (2, ('2 folds instead of 5: class "dog" has only 3 examples in 2 groups.',))
    with pytest.raises(TopgraftError, match=r'^Class "dog" has only 1 example to choose on\. At least 2'):
        assign_folds(np.array([0, 0, 0, 1]), np.arange(4), classes=("cat", "dog"))
    with pytest.raises(TopgraftError, match="two classes or more"):
        assign_folds(np.zeros(5, dtype=np.int64), np.arange(5))
    with pytest.raises(TopgraftError, match="folds=1 is too few"):
        assign_folds(targets, np.arange(13), folds=1)


def test_a_class_with_too_few_examples_to_hold_out_is_named() -> None:
    with pytest.raises(
        TopgraftError, match=r'^Class "c1" has only 2 examples\. At least 3 .*--test'
    ) as caught:
        hold_out(data_of(np.array([0, 0, 0, 1, 1])))
    assert caught.value.exit_status == 2
    groups = np.array([0, 1, 2, 3, 3, 3, 4])
    with pytest.raises(TopgraftError, match=r"has only 4 examples in 2 groups of duplicates or of the group"):
        hold_out(data_of(np.array([0, 0, 0, 1, 1, 1, 1]), groups))


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 20.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(TopgraftError, match="is not between 0 and 1"):
        hold_out(data_of(np.repeat([0, 1], 5)), share=share)


def test_tens_of_thousands_are_split_in_seconds() -> None:
    rng = np.random.default_rng(0)
    targets, groups = rng.integers(0, 50, 30_000), rng.integers(0, 20_000, 30_000)
    development, untouched = hold_out(data_of(targets, groups))
    assert abs(len(untouched) - 6000) < 60
    assert not set(groups[development]) & set(groups[untouched])
