"""Which N and M: short real trainings of choices, the better half of which trains on; the last by seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from topgraft import search
from topgraft.advise import UNSTABLE, near_best
from topgraft.choices import freezes_to_try, resolve_freeze, resolve_keep
from topgraft.confidence import Paired, confidence_set
from topgraft.console import Console, counted, duration, percent
from topgraft.cost import Candidate, Costs, Stage
from topgraft.cutmix import has_maps
from topgraft.features.store import Store
from topgraft.objective import are_numbers
from topgraft.rehearsal import candidate
from topgraft.settings import Settings
from topgraft.short_trainings import Short, outcome_of, shorts, try_all
from topgraft.stages import MARGIN, Prepared
from topgraft.underway import Underway

Array = np.ndarray[Any, np.dtype[Any]]

SHARES = (0.875, 0.75, 0.5, 0.25, 0.0)
"""Of the kept blocks, that are frozen in what is tried beside the right-most third trained."""
EPOCHS = 2
"""Of the first rung; each further one has twice as many."""
SPENT = 0.35
"""Share of the time left that all short trainings together may take ..."""
MORE = 0.15
"""... and what is added where several depths are tried."""
WORTH = 6
"""Epochs, if no fewer are asked for, for which a winner must have time: what would win and then not train
is not tried."""
LONGEST = 8
"""Epochs of a short training at most: the winner then trains for real."""
SEEDS = 3
"""Trainings of each of the last choices at most, one a seed."""


def choices(keep: int) -> list[int]:
    """What may be frozen when ``keep`` blocks are kept: most first, everything left out.

    Examples
    --------
    >>> choices(18), choices(7), choices(2), choices(1)
    ([16, 14, 12, 9, 4, 0], [6, 5, 4, 2, 0], [1, 0], [0])
    """
    found = {search.right_most_third(keep), *(round(share * keep) for share in SHARES)}
    return sorted(found - {keep}, reverse=True)


Pair = tuple[int, int]
"""Blocks kept, and of these frozen."""


def settle(at: Underway, material: search.Material, keeps: Sequence[int]) -> Pair:
    """Which N and M a full training is worth for, among those that there is time to try; decided once.

    Each choice trains for :data:`EPOCHS` epochs from the activations stored at its cut, those with the lower
    loss on the validation part (after their best epoch) for twice as many, until one is left. Loss decides,
    since among a hundred examples it tells apart what accuracy can't. The last of them, two or more, train
    again from further seeds, as time allows, and :func:`winner_of` chooses. Where there is no time for two
    choices, it is the one that there is time for; where there is none, the one with the shortest epochs.

    Parameters
    ----------
    at
        The fit under way: its clock, its plan, where it says what it does.
    material
        What trainings share.
    keeps
        Depths, the advised one first; the others are tried as far as there is time for all rungs.

    Returns
    -------
    int, int
        Blocks kept, and of these frozen.

    References
    ----------
    Jamieson & Talwalkar (2016), successive halving.
    """
    if "candidate" in at.plan.decisions:
        keep, freeze = at.plan.decisions["candidate"]["value"]
        return int(keep), int(freeze)
    began, first = time.monotonic(), keeps[0]
    allowed = _share(len(keeps)) * at.left
    known = shorts(at.plan.decisions)
    at.note_reuse("search", len(known), sum(one["seconds"] for one in known))
    costs = _costs_of(at.costs, at.ready, at.store, keeps)
    if not costs:
        told = f"nothing in --freeze {at.settings.freeze} is less than the blocks that are kept"
        if at.settings.cutmix:
            told += " and can be pasted into (--cutmix)"
        return _decided(at, (first, search.right_most_third(first)), told)
    field = worth_trying(costs, at.left, _worth(at.settings))
    left_out = [one for one in costs if one not in field]
    if field and left_out:
        at.skipped.append(f"short trainings of {_listed(left_out)}: no time")
    if len(field) < 2:
        same_depth = [one for one in costs if one.keep == costs[0].keep]
        only = min(field or same_depth, key=lambda one: one.epoch)
        return _decided(at, (only.keep, only.freeze), "there is no time to try two choices")
    at.ledger.predict("search", seconds=seconds_of_search(field, allowed))
    tried: list[Short] = []
    last: list[Short] = []
    epochs, remaining = EPOCHS, [(one.keep, one.freeze) for one in field]
    while len(remaining) > 1 and epochs <= LONGEST:
        rung = try_all(at, material, [(*pair, epochs, 0) for pair in remaining])
        tried += rung
        best = sorted(rung, key=lambda short: (short.lowest, short.keep, -short.freeze))
        half = math.ceil(len(best) / 2)
        last, remaining = best[: max(2, half)], [(short.keep, short.freeze) for short in best[:half]]
        epochs *= 2
        next_rung = sum(epochs * one.epoch for one in field if (one.keep, one.freeze) in remaining)
        if time.monotonic() - began + next_rung > allowed:
            break
    if not last:
        usual_pair = first, search.right_most_third(first)
        return _decided(at, usual_pair, "no choice could be tried: see what was left out")
    left = allowed - (time.monotonic() - began)
    seeds = at.plan.decide("seeds", lambda: seeds_for(sum(short.seconds for short in last), left))
    again = [(short.keep, short.freeze, short.epochs, seed) for seed in range(1, seeds) for short in last]
    tried += try_all(at, material, again)
    winner, told = _winner(at, material, last, seeds)
    at.ledger.spend("search", seconds=time.monotonic() - began)
    _show(at.console, tried, winner, told)
    return _decided(at, winner, told)


def search_foreseen(costs: Costs, ready: Prepared, store: Store) -> Stage | None:
    """What the search will cost at the depth that was asked for, else at the full one.

    ``None`` where there will be none: what is frozen was asked for, or there is no time for two choices.

    Parameters
    ----------
    costs
        From a trial, all that comes before the search spent.
    ready, store
        Data and backbone, and where activations are kept.
    """
    settings, chain, source = ready.settings, ready.backbone.chain, ready.backbone.source
    keep = resolve_keep(settings.keep, chain, source) or len(chain)
    if resolve_freeze(settings.freeze, chain, source, keep) is not None:
        return None
    field = worth_trying(_costs_of(costs, ready, store, [keep]), costs.left, _worth(settings))
    if len(field) < 2:
        return None
    disk = sum(one.stored for one in field)
    return Stage(seconds_of_search(field, SPENT * costs.left), None, disk)


def _costs_of(costs: Costs, ready: Prepared, store: Store, keeps: Sequence[int]) -> list[Candidate]:
    """Of each choice that may be tried, depth by depth."""
    settings, chain, source = ready.settings, ready.backbone.chain, ready.backbone.source
    return [
        candidate(costs, ready, store, keep, freeze)
        for keep in keeps
        for freeze in freezes_to_try(settings.freeze, chain, source, keep, choices(keep))
        if not settings.cutmix or has_maps(chain, freeze)
    ]


def _worth(settings: Settings) -> int:
    return min(WORTH, settings.epochs or WORTH)


def seconds_of_search(field: Sequence[Candidate], allowed: float) -> float:
    """Seconds of the whole search: what it stores, the rungs and the further seeds that there is time for.

    Which choices a rung leaves is not known, so that each counts as much as the mean of all.

    Parameters
    ----------
    field
        Choices of the first rung, which is tried in any case.
    allowed
        Seconds that the search may take.

    Examples
    --------
    Four choices for 2 epochs and two of them for 4; then, where there is time, these from two more seeds.

    >>> from types import SimpleNamespace as One
    >>> four = [One(storing=1, epoch=1)] * 4
    >>> seconds_of_search(four, 20), seconds_of_search(four, 99)
    (20.0, 36.0)
    """
    each, seconds = sum(one.epoch for one in field) / len(field), float(sum(one.storing for one in field))
    count, epochs, last = len(field), EPOCHS, 0.0
    while count > 1 and epochs <= LONGEST and (not last or seconds + count * epochs * each <= allowed):
        seconds += count * epochs * each
        half = math.ceil(count / 2)
        last = max(2, half) * epochs * each
        count, epochs = half, 2 * epochs
    return seconds + (seeds_for(last, allowed - seconds)[0] - 1) * last


def _decided(at: Underway, pair: Pair, told: str) -> Pair:
    """Both in one decision, so that none is ever there without the other."""
    keep, freeze = at.plan.decide("candidate", lambda: (list(pair), told))
    return keep, freeze


def _listed(costs: Sequence[Candidate]) -> str:
    """``keep 12 freeze 4, 0; keep 15 freeze 0``.

    Examples
    --------
    >>> from types import SimpleNamespace as One
    >>> _listed([One(keep=12, freeze=4), One(keep=12, freeze=0), One(keep=15, freeze=0)])
    'keep 12 freeze 4, 0; keep 15 freeze 0'
    """
    of: dict[int, list[str]] = {}
    for one in costs:
        of.setdefault(one.keep, []).append(str(one.freeze))
    return "; ".join(f"keep {keep} freeze {', '.join(freezes)}" for keep, freezes in of.items())


def seeds_for(seconds: float, left: float) -> tuple[int, str]:
    """From how many seeds each of the last choices trains, and why.

    Parameters
    ----------
    seconds
        That all of them took from one seed.
    left
        Seconds that the search may still take.

    Examples
    --------
    >>> seeds_for(20.0, 100.0)[0], seeds_for(20.0, 30.0), seeds_for(20.0, -5.0)[0]
    (3, (2, 'one seed of the last choices takes about 20 s, 30 s left for the search'), 1)
    """
    more = int(min(SEEDS - 1, max(0.0, left) / max(seconds, 1e-3)))
    told = f"one seed of the last choices takes about {duration(seconds)}, {duration(max(0.0, left))} left"
    return 1 + more, f"{told} for the search"


def winner_of(
    pairs: Sequence[Pair],
    losses: Array,
    found: Array | None,
    groups: Array,
    *,
    prefer: str = "small",
    seed: int = 0,
) -> tuple[Pair, str]:
    """Which choice wins, by the rules by which the depth is advised, and why.

    The one that keeps, then trains, least of those that can't be told from the best on the same validation
    examples and measured within :data:`topgraft.stages.MARGIN` of it; with ``prefer="accuracy"`` the one of
    these that scored highest. Where all validation examples are of one group, which tells nothing apart, the
    lowest loss wins.

    Parameters
    ----------
    pairs
        Blocks kept and frozen in each choice.
    losses
        ``(n, choices)``: of each validation example, averaged over seeds.
    found
        ``(n, choices)``: share of the seeds that have the example right; ``None`` for numbers.
    groups
        ``(n,)`` group numbers.
    prefer, seed
        As in :func:`topgraft.advise.advise_depth`.

    Examples
    --------
    >>> losses = np.random.default_rng(0).normal(1.0, 0.1, (90, 2))
    >>> winner_of([(18, 12), (18, 4)], losses, losses < 1.1, np.arange(90))[0]
    (18, 12)
    >>> winner_of([(12, 8), (18, 4)], losses - [0, 0.5], losses - [0, 0.5] < 1.0, np.arange(90))[0]
    (18, 4)
    """
    means = losses.mean(0)

    def least(k: int) -> Pair:
        keep, freeze = pairs[k]
        return keep, -freeze

    if len(np.unique(groups)) < 2:
        k = int(np.argmin(means))
        return pairs[k], "the lowest loss; the validation part is one group, so errors can't be told"
    measures = [losses] if found is None else [1.0 - found, losses]
    scores = -means if found is None else found.mean(0)
    members = confidence_set(Paired.of(measures, groups, seed=seed, unstable=UNSTABLE)).members
    if prefer == "accuracy":
        k = min(members, key=lambda k: (-scores[k], means[k], *least(k)))
    else:
        margin = (math.inf, MARGIN[1]) if found is None else MARGIN
        k = min(near_best(scores, means, members, margin), key=least)
    best = min(range(len(pairs)), key=lambda k: means[k])
    others = f"{counted(len(pairs), 'choice')} on {len(losses):,} validation examples"
    if members == (k,):
        return pairs[k], f"measurably the best of {others}"
    if k == best:
        return pairs[k], f"the lowest loss of {others}, the others within noise"
    return pairs[k], f"as good as the best of {others} within noise, and {_saves(pairs[k], pairs[best])}"


def _saves(pair: Pair, best: Pair) -> str:
    return "keeps fewer blocks" if pair[0] < best[0] else "trains less"


def worth_trying(costs: Sequence[Candidate], left: float, epochs: int = WORTH) -> list[Candidate]:
    """The choices that there is time to try and, were they to win, to train.

    Those of the first depth come first; those of another as long as the first rung of all takes half of the
    time for the search, so that there are further rungs.

    Parameters
    ----------
    costs
        Of each choice, depth by depth. Of a depth the usual one, with the right-most third trained, comes
        first, then those with the shortest epochs.
    left
        Seconds until the budget's end.
    epochs
        For which there must be time then.
    """
    keeps = list(dict.fromkeys(one.keep for one in costs))
    allowed = SPENT * left, 0.5 * (SPENT + MORE) * left
    after = left - _share(len(keeps)) * left
    field: list[Candidate] = []

    def order(one: Candidate) -> tuple[int, bool, float]:
        return keeps.index(one.keep), one.freeze != search.right_most_third(one.keep), one.epoch

    for one in sorted(costs, key=order):
        fits = sum(map(_seconds, [*field, one])) <= allowed[one.keep != keeps[0]]
        if fits and search.affordable_epochs(after, one.epoch, 1, refits=1) >= epochs:
            field.append(one)
    return field


def _share(depths: int) -> float:
    """Of the time left, that the search may take."""
    return SPENT + (MORE if depths > 1 else 0.0)


def _seconds(one: Candidate) -> float:
    """Of the first rung: what it reads stored, and its epochs."""
    return one.storing + EPOCHS * one.epoch


def _winner(at: Underway, material: search.Material, last: Sequence[Short], seeds: int) -> tuple[Pair, str]:
    """:func:`winner_of` the last choices, each by its mean over the seeds."""
    outcomes = [
        [outcome_of(at, material, replace(short, seed=seed)) for seed in range(seeds)] for short in last
    ]
    losses, found = (
        np.column_stack([np.mean([one[what] for one in every], axis=0) for every in outcomes])
        for what in ("losses", "marks")
    )
    winner, told = winner_of(
        [(short.keep, short.freeze) for short in last],
        losses,
        None if are_numbers(material.targets) else found,
        material.data.groups[list(material.validation)],
        prefer=at.settings.prefer,
        seed=at.settings.seed,
    )
    return winner, f"{told}, {counted(seeds, 'seed')} each"


def _show(console: Console, tried: list[Short], winner: Pair, told: str) -> None:
    rows = [
        [
            ">" if (short.keep, short.freeze) == winner else "",
            str(short.keep),
            str(short.freeze),
            str(short.epochs),
            str(1 + short.seed),
            f"{short.loss:.3f}",
            percent(short.score, 1),
            duration(short.seconds),
        ]
        for short in tried
    ]
    console.text()
    console.table(["", "keep", "freeze", "epochs", "seed", "loss", "score", "in"], rows, left=(0,))
    console.text()
    console.line("Search", f"keep {winner[0]}, freeze {winner[1]} is to train: {told}")
