"""Splitting: the part that is held out for the final score, and folds; groups are never split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.data.notes import listed, number
from topgraft.data.targets import hint
from topgraft.data.types import Data
from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST = 10  # examples that are no duplicates, to predict numbers
_STEPS = 5_000  # of the search that mends what dealing left undone; a step costs microseconds


def hold_out(data: Data, *, share: float = 0.2, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split off the part that nothing but the final score may use: stratified, groups kept whole.

    Parameters
    ----------
    data
        Labelled examples.
    share
        Share of the examples to hold out, between 0 and 1. What comes out is as near as whole
        groups allow.
    seed
        The same seed gives the same split.

    Returns
    -------
    development, untouched
        Sorted indices, int64. Every class has one group or more in the untouched part and two or
        more (two folds need them) in the development part.

    Raises
    ------
    TopgraftError
        If that is not possible for a class.
    """
    if data.targets is None:
        raise TopgraftError("hold_out: the data has no labels, so no part can be held out for a score.")
    if not 0 < share < 1:
        raise TopgraftError(f"share={share} is not between 0 and 1. Expected a share such as 0.2.")
    targets, classes = strata(data)
    counts = _groups_per_class(targets, data.groups, len(classes))
    if data.separator:
        counts = counts[:0]  # a label that is rare is no reason to refuse the others
    examples_in = _examples_per_class(targets, len(classes)).tolist()[: len(counts)]
    for name, groups, examples in zip(classes[: len(counts)], counts, examples_in, strict=True):
        if 0 < groups < 3:
            has = number(examples, "example")
            if groups < examples:
                has += f" in {number(int(groups), 'group')} of duplicates or of the group column"
            raise TopgraftError(
                f'Class "{name}" has only {has}. At least 3 are needed, 2 to choose on and 1 to score: '
                f"add examples, leave the class out, or give a test set of its own (--test).{hint(classes)}"
            )
    part, missing = deal(targets, data.groups, np.array([1 - share, share]), np.array([2, 1]), seed=seed)
    if missing and not data.separator:
        names = [f'"{classes[c]}"' for c in missing]
        raise TopgraftError(
            f"No way was found of keeping the groups whole and having {listed(names)} in both parts. "
            "Use finer groups, or give a test set of its own (--test)."
        )
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def strata(data: Data) -> tuple[NDArray[Any], tuple[str, ...]]:
    """What splits keep the shares of: the classes, or of numbers ten or fewer parts from small to large.

    Of several labels it is each label, and having none.

    Parts of numbers hold equally many examples, by the first of several outputs, ten groups or more each
    where there are two parts or more.

    Returns
    -------
    indices, names
        (n,) int64, and what each index is called; of several labels (n, labels + 1) bool.

    Raises
    ------
    TopgraftError
        If numbers are to be predicted, or several labels, and there are fewer than ten groups.
    """
    assert data.targets is not None
    if data.separator:
        _must_be_groups(data)
        none = ~data.targets.any(1, keepdims=True)
        return np.concatenate([data.targets.astype(bool), none], 1), (*data.classes, "no label")
    if not data.outputs:
        return data.targets.astype(np.int64, copy=False), data.classes
    found = _must_be_groups(data)
    order = np.argsort(data.targets[:, 0], kind="stable")
    for parts in range(min(10, max(2, found // _LEAST)), 1, -1):
        place = np.empty(len(data), dtype=np.int64)
        place[order] = np.arange(len(data)) * parts // len(data)
        if parts == 2 or _groups_per_class(place, data.groups, parts).min() >= _LEAST:
            break
    return place, tuple(f"part {i} of {parts}, from small to large" for i in range(1, parts + 1))


def _must_be_groups(data: Data) -> int:
    """How many groups there are; refused where they are too few to learn numbers, or several labels."""
    found = len(np.unique(data.groups))
    if found < _LEAST:
        what = "several labels" if data.separator else "numbers"
        raise TopgraftError(
            f"{data.origin} has only {number(found, 'example')} beside duplicates. "
            f"To predict {what} at least {_LEAST} are needed."
        )
    return found


def assign_folds(
    targets: NDArray[Any],
    groups: NDArray[np.int64],
    *,
    folds: int = 5,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
    """Give every example its fold: stratified, groups kept whole, every class in every fold.

    Parameters
    ----------
    targets
        (n,) class indices; or (n, labels) bool: each label is then in as many folds as it can be.
    groups
        (n,) numbers; examples with the same number get the same fold.
    folds
        How many to make at most; fewer are made where a class has fewer groups.
    seed
        The same seed gives the same folds.
    classes
        Names of the classes, for messages.

    Returns
    -------
    fold_of, folds, notes
        (n,) int64 from 0 to ``folds`` - 1; the number of folds; and, where it is less than was
        asked for, a sentence that says why.

    Raises
    ------
    TopgraftError
        If there is one class only, or a class has fewer than two groups.

    Examples
    --------
    >>> fold_of, folds, notes = assign_folds(np.array([0, 0, 0, 1, 1, 1]), np.arange(6), folds=5)
    >>> folds, notes
    (3, ('3 folds instead of 5: class 0 has only 3 examples.',))
    """
    if folds < 2:
        raise TopgraftError(f"folds={folds} is too few. Expected 2 or more.")
    if targets.ndim == 2:
        return _label_folds(targets, groups, folds, seed, classes)
    present = np.unique(targets)
    if len(present) < 2:
        raise TopgraftError(
            f"Folds need two classes or more; {number(len(present), 'class', 'classes')} found."
        )
    counts = _groups_per_class(targets, groups, int(present[-1]) + 1)
    scarce = int(present[np.argmin(counts[present])])
    fewest = int(counts[scarce])

    def say(c: int) -> str:
        name = f'class "{classes[c]}"' if classes is not None else f"class {c}"
        examples = int((targets == c).sum())
        has = number(examples, "example")
        return f"{name} has only {has}" + (
            f" in {number(int(counts[c]), 'group')}" if counts[c] < examples else ""
        )

    if fewest < 2:
        said = say(scarce)
        raise TopgraftError(
            f"{said[0].upper()}{said[1:]} to choose on. At least 2 are needed, one to fit and one to check: "
            "add examples, or leave the class out."
        )
    used = min(folds, fewest)
    reason = say(scarce)
    while True:
        share = np.full(used, 1 / used)
        fold_of, missing = deal(targets, groups, share, np.ones(used, dtype=np.int64), seed=seed)
        if not missing:
            break
        some = say(missing[0]).replace(" has only", ",")
        reason = f"groups can't be kept whole with {some} in each of more folds"
        if used == 2:
            raise TopgraftError(f"No two folds were found: {reason}. Use finer groups.")
        used -= 1
    notes = () if used == folds else (f"{used} folds instead of {folds}: {reason}.",)
    return fold_of, used, notes


def _label_folds(
    targets: NDArray[np.bool_],
    groups: NDArray[np.int64],
    folds: int,
    seed: int,
    names: Sequence[str] | None,
) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
    """:func:`assign_folds` of several labels: one that is too rare for every fold is told, not refused."""
    found = len(np.unique(groups))
    if found < 2:
        raise TopgraftError(f"Folds need two groups of examples or more; {found} found.")
    used, notes = min(folds, found), []
    share = np.full(used, 1 / used)
    fold_of, _ = deal(targets, groups, share, np.ones(used, dtype=np.int64), seed=seed)
    if used < folds:
        notes.append(f"{used} folds instead of {folds}: there are only {used} groups of examples.")
    inside = np.stack([targets[fold_of == fold].any(0) for fold in range(used)]).sum(0)
    if scarce := np.flatnonzero((inside < used) & targets.any(0)).tolist():
        some = [f'"{names[c]}"' if names is not None else f"label {c}" for c in scarce]
        notes.append(f"Not in every fold, since so few examples have them: {listed(some, limit=8)}.")
    return fold_of, used, tuple(notes)


def deal(
    targets: NDArray[Any],
    groups: NDArray[np.int64],
    shares: NDArray[np.float64],
    need: NDArray[np.int64],
    *,
    seed: int,
) -> tuple[NDArray[np.int64], list[int]]:
    """Deal whole groups to parts so that each part gets its share of every class.

    Groups with several classes are dealt first, then those of one class, large ones before small
    ones, each to the part that lacks most; a random walk then mends what a part still needs. Of several
    labels groups with the rarest label are dealt first (iterative stratification: Sechidis et al. 2011), and
    what is mended are the labels of which there are enough.

    Parameters
    ----------
    targets, groups
        (n,) class indices, or (n, labels) bool; (n,) group numbers.
    shares
        (parts,) that add up to 1.
    need
        (parts,) how many groups of every class a part needs at least.
    seed
        Breaks ties, and drives the walk.

    Returns
    -------
    part, missing
        (n,) int64, the part of each example; and the classes of which a part has too few groups.
    """
    rng = np.random.default_rng(seed)
    _, group_of = np.unique(groups, return_inverse=True)
    n_groups = int(group_of.max()) + 1
    owner, inside, n_classes = _members(targets, group_of)
    pairs, amounts = np.unique(owner * n_classes + inside, return_counts=True)
    pair_group, pair_class = pairs // n_classes, pairs % n_classes
    starts = np.searchsorted(pair_group, np.arange(n_groups + 1))
    content = [
        list(zip(pair_class[a:b].tolist(), amounts[a:b].tolist(), strict=True))
        for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    totals = np.bincount(inside, minlength=n_classes)
    lack = [[float(s * t) for t in totals] for s in shares]  # part x class: examples still wanted
    room = [float(s * len(targets)) for s in shares]
    sizes = np.bincount(group_of)
    order = rng.permutation(n_groups)
    order = order[np.argsort(-sizes[order], kind="stable")]
    if targets.ndim == 1:
        order = order[np.argsort([len(content[g]) == 1 for g in order], kind="stable")]
    else:
        rarest = [min((int(totals[c]) for c, _ in held), default=len(targets)) for held in content]
        order = order[np.argsort([rarest[g] for g in order], kind="stable")]
    part_of = np.zeros(n_groups, dtype=np.int64)
    parts = range(len(shares))
    for g in order.tolist():
        held = content[g]

        def gain(p: int, held: list[tuple[int, int]] = held) -> tuple[float, float]:
            fits = sum(n * (2 * lack[p][c] - n) / (shares[p] * totals[c]) for c, n in held)
            return round(float(fits), 9), round(room[p], 9)

        best = max(parts, key=gain)
        part_of[g] = best
        for c, n in held:
            lack[best][c] -= n
            room[best] -= n
    enough = np.ones(n_classes, dtype=bool)
    if targets.ndim == 2:
        enough = np.bincount(pair_class, minlength=n_classes) >= need.sum()
    mended = [[c for c, _ in held if enough[c]] for held in content]
    missing = _mend(part_of, mended, need, n_classes, rng)
    return part_of[group_of], missing


def _mend(
    part_of: NDArray[np.int64],
    classes_in: list[list[int]],
    need: NDArray[np.int64],
    n_classes: int,
    rng: np.random.Generator,
) -> list[int]:
    """Move groups, in place, until each part has the groups of every class that it needs; what is left."""
    held = np.zeros((len(need), n_classes), dtype=np.int64)
    groups_with: list[list[int]] = [[] for _ in range(n_classes)]
    for g, inside in enumerate(classes_in):
        held[part_of[g], inside] += 1
        for c in inside:
            groups_with[c].append(g)
    present = [c for c in range(n_classes) if groups_with[c]]
    for _ in range(_STEPS):
        short = [(p, c) for p, c in np.argwhere(held < need[:, None]).tolist() if groups_with[c]]
        if not short or any(len(groups_with[c]) < need.sum() for _, c in short):
            break
        p, c = short[int(rng.integers(len(short)))]
        others = [g for g in groups_with[c] if part_of[g] != p]
        if len(others) > 50:
            others = [others[i] for i in rng.choice(len(others), 50, replace=False).tolist()]

        def harm(g: int) -> tuple[int, int]:
            inside, old = classes_in[g], part_of[g]
            lost = int((held[old, inside] <= need[old]).sum())
            return lost - int((held[p, inside] < need[p]).sum()), len(inside)  # noqa: B023 (used at once)

        chosen = others[int(rng.integers(len(others)))] if rng.random() < 0.2 else min(others, key=harm)
        held[part_of[chosen], classes_in[chosen]] -= 1
        held[p, classes_in[chosen]] += 1
        part_of[chosen] = p
    return [c for c in present if (held[:, c] < need).any()]


def _members(
    targets: NDArray[Any], group_of: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Group and class of each example, or of each label that one has; and the number of classes."""
    if targets.ndim == 1:
        return group_of, targets, int(targets.max()) + 1
    rows, columns = np.nonzero(targets)
    return group_of[rows], columns, targets.shape[1]


def _examples_per_class(targets: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = (
        targets.sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=n_classes)
    )
    return counts


def _groups_per_class(targets: NDArray[Any], groups: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """(classes,) number of different groups that have an example of the class."""
    _, group_of = np.unique(groups, return_inverse=True)
    owner, inside, _ = _members(targets, group_of)
    pairs = np.unique(owner * n_classes + inside)
    return np.bincount(pairs % n_classes, minlength=n_classes)
