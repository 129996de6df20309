"""Which backbone: every depth of several networks, compared on the same examples and folds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from topgraft.advise import DepthAdvice, advise_depth
from topgraft.backbones.types import Backbone
from topgraft.console import Console, counted, duration, percent, size
from topgraft.data import assign_folds
from topgraft.data.decoded import Decoded
from topgraft.data.splits import deal, strata
from topgraft.errors import TopgraftError
from topgraft.evidence import CutEvidence, Evidence, Features
from topgraft.features.store import Store
from topgraft.kept_evidence import probe_all
from topgraft.probe import probe
from topgraft.settings import Settings
from topgraft.stages import (
    Prepared,
    advise,
    advise_by,
    cost_of_cuts,
    engine_for,
    engine_in_words,
    measure,
)

SHARES = (0.25, 0.5)
"""Of the examples, on which a further backbone must stand its ground before it is run on all."""
LEAST = 200
"""Examples under which a part is too small to drop a backbone on."""
MOST_SPENT = 0.5
"""Share of the budget after which no further backbone is begun: training needs the rest."""
Place = tuple[str, int]
"""A backbone's name, and how many of its blocks are kept."""


@dataclass(frozen=True)
class Rival:
    """One backbone, and what was measured of it.

    Parameters
    ----------
    backbone
        With its chain.
    seconds
        What measuring it took.
    features, evidence, advice
        At every depth, on all examples, and what is advised among its own depths; ``None`` where it was
        dropped before.
    dropped
        Why, in words.
    """

    backbone: Backbone
    seconds: float
    features: Features | None = None
    evidence: Evidence | None = None
    advice: DepthAdvice | None = None
    dropped: str = ""


@dataclass(frozen=True)
class BackboneAdvice:
    """Which backbone to take, and how many of its blocks to keep.

    Parameters
    ----------
    backbone, keep
        The advice.
    best
        Backbone and depth with the highest score.
    in_set
        Those that can't be told from the best: they hold the truly best one with 95 % confidence.
    p_best
        By backbone: share of bootstrap samples in which one of its depths has the highest score.
    smallest_difference
        As in :class:`topgraft.advise.DepthAdvice`, over all depths of all backbones.
    reason
        In plain words.
    """

    backbone: str
    keep: int
    best: Place
    in_set: tuple[Place, ...]
    p_best: Mapping[str, float]
    smallest_difference: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As what the ``json`` module can write."""
        return {
            "backbone": self.backbone,
            "keep": self.keep,
            "best": list(self.best),
            "in_set": [list(place) for place in self.in_set],
            "p_best": dict(self.p_best),
            "smallest_difference": self.smallest_difference,
            "reason": self.reason,
        }


def must_be_open(settings: Settings, plan: Mapping[str, Any] | None) -> None:
    """Refuse what only one network can be told.

    Raises
    ------
    TopgraftError
        If there is a plan, or keep, freeze or weights are of one network.
    """
    one = "With several backbones"
    if plan is not None:
        raise TopgraftError(f"{one} there is something to decide: leave --plan or --backbone away.")
    if settings.keep != "auto":
        raise TopgraftError(
            f"--keep {settings.keep}: {one.lower()} it is chosen (auto). Or give one backbone."
        )
    if settings.freeze not in ("auto", "all", "0") and not settings.freeze.endswith("%"):
        raise TopgraftError(
            f"--freeze {settings.freeze}: {one.lower()} give auto, all, 0 or a share such as 50%, since "
            "blocks differ. Or give one backbone."
        )
    if settings.windows > 1:
        raise TopgraftError(
            f"--windows {settings.windows}: {one.lower()} tokens differ, and so would the examples. "
            "Give one backbone."
        )
    if settings.weights not in ("auto", "none"):
        raise TopgraftError(
            f"--weights {settings.weights}: {one.lower()} give auto or none, since a file is of one network."
        )


def must_differ(backbones: Sequence[Backbone]) -> None:
    """Refuse two of one name, which nothing that is shown could tell apart.

    Raises
    ------
    TopgraftError
        With the name.
    """
    names = [backbone.source for backbone in backbones]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TopgraftError(f"--backbone {twice[0]} was given more than once. Give each once.")


def measure_rivals(
    ready: Prepared,
    backbones: Sequence[Backbone],
    store: Store,
    console: Console,
    *,
    deadline: float | None = None,
) -> list[Rival]:
    """Probe every depth of each backbone on the same folds.

    What is decoded for the first is kept for the others, as far as there is room; they may want large JPEGs
    at another part of their size. The first is measured on all examples. Each further one must stand its
    ground on a quarter of them, then on half: one of whose depths none can be the best there, by the paired
    rules of the advice, is dropped. That can drop a network that only shows its worth with more examples, so
    it takes a clear difference.

    Parameters
    ----------
    ready
        The data with its folds; which backbone it names does not matter.
    backbones
        In the order in which they are measured.
    store
        Where activations are kept: what a part was measured with serves the whole.
    console
        Where progress goes.
    deadline
        ``time.monotonic()`` after which no further backbone is begun.
    """
    found: list[Rival] = []
    kept = Decoded()
    if len(backbones) > 1:
        ready = replace(ready, development=replace(ready.development, decoded=kept))
    for backbone in backbones:
        began = time.monotonic()
        console.line("Backbone", backbone.source)
        late = bool(found) and deadline is not None and began > deadline
        dropped, features, evidence, advice = "no time of the budget was left for it", None, None, None
        if not late:
            choice = engine_for(backbone, ready.development, store, ready.settings)
            console.line("Engine", engine_in_words(choice))
            settings = replace(ready.settings, engine=choice.engine, precision=choice.precision)
            dropped = _beaten(ready, found, backbone, store, settings, console)
        if dropped:
            console.line("Dropped", f"{backbone.source}: {dropped}")
        else:
            features, _ = measure(backbone, ready.development, store, settings, console)
            evidence, _ = probe_all(features, ready.development, ready.fold_of, store=store, of=backbone)
            advice = advise(evidence, backbone.chain, prefer=settings.prefer, seed=settings.seed)
        found.append(Rival(backbone, time.monotonic() - began, features, evidence, advice, dropped))
    if kept:
        few = f"; the others did not fit into {size(kept.limit)}" if kept.is_full else ""
        console.line("Decoded", f"{counted(len(kept), 'example')} once for all networks{few}")
    return found


def _beaten(
    ready: Prepared,
    rivals: Sequence[Rival],
    backbone: Backbone,
    store: Store,
    settings: Settings,
    console: Console,
) -> str:
    """Why this backbone can't win, as far as parts of the examples show; ``""`` where it may."""
    measured = [r for r in rivals if r.evidence is not None]
    if not measured:
        return ""
    champion = max(measured, key=lambda r: r.evidence.best.score if r.evidence else 0.0)
    data, seed = ready.development, settings.seed
    assert champion.features is not None
    parts, names = strata(data)
    for share in SHARES:
        if share * len(data) < LEAST:
            continue
        part, missing = deal(parts, data.groups, np.array([share, 1 - share]), np.array([2, 0]), seed=0)
        if missing:
            continue
        rows = np.flatnonzero(part == 0)
        some = data.subset(rows)
        fold_of, _, _ = assign_folds(parts[rows], some.groups, folds=settings.folds, seed=seed, classes=names)
        features, _ = measure(backbone, some, store, settings, console)
        known = {keep: tensor[torch.as_tensor(rows)] for keep, tensor in champion.features.cuts.items()}
        both = [
            probe(f, ready.targets[rows], fold_of, data.logits, groups=some.groups)
            for f in (Features(known, champion.features.key), features)
        ]
        if not any(number == 1 for number, _ in _in_set(both, seed=seed)):
            best = both[0].best
            return (
                f"on {len(rows):,} examples its best depth has {percent(both[1].best.score, 1)}, and every "
                f"depth is measurably worse than {champion.backbone.source} ({percent(best.score, 1)})"
            )
    return ""


def together(evidences: Sequence[Evidence]) -> tuple[Evidence, list[tuple[int, int]]]:
    """The evidence of several backbones as one, its depths numbered through.

    Returns
    -------
    Evidence, list
        And for each number, from 1, which evidence and which of its depths it stands for.
    """
    first = evidences[0]
    if any(
        not (np.array_equal(e.fold_of, first.fold_of) and np.array_equal(e.targets, first.targets))
        for e in evidences
    ):
        raise ValueError("backbones can only be compared on the same examples in the same folds")
    cuts: list[CutEvidence] = []
    stands_for: list[tuple[int, int]] = []
    for number, evidence in enumerate(evidences):
        for cut in evidence.cuts:
            stands_for.append((number, cut.keep))
            cuts.append(replace(cut, keep=len(stands_for)))
    return replace(first, cuts=tuple(cuts)), stands_for


def _in_set(evidences: Sequence[Evidence], *, seed: int) -> list[tuple[int, int]]:
    """Which evidence and depth can't be told from the best."""
    joined, stands_for = together(evidences)
    found = advise_depth(joined, {cut.keep: float(cut.keep) for cut in joined.cuts}, seed=seed)
    return [stands_for[number - 1] for number in found.in_set]


def advise_backbone(rivals: Sequence[Rival], *, prefer: str = "small", seed: int = 0) -> BackboneAdvice:
    """Among all depths of all backbones, the cheapest that can't be told from the best.

    One confidence set is made over all of them (see :func:`topgraft.advise.advise_depth`), so that having
    looked at several networks is allowed for.

    Parameters
    ----------
    rivals
        What was measured; those that were dropped do not take part.
    prefer
        As for :func:`topgraft.stages.advise`: ``small`` counts the parameters kept, ``fast`` the
        multiply-adds of a prediction.
    seed
        Of the bootstrap.
    """
    measured = [(r.backbone, r.evidence) for r in rivals if r.evidence is not None]
    joined, stands_for = together([evidence for _, evidence in measured])
    costs = [cost_of_cuts(backbone.chain, prefer) for backbone, _ in measured]
    cost = {number: costs[which][keep] for number, (which, keep) in enumerate(stands_for, start=1)}
    found = advise_by(joined, cost, prefer=prefer, seed=seed, whole=cost[joined.best.keep])

    def place(number: int) -> Place:
        which, keep = stands_for[number - 1]
        return measured[which][0].source, keep

    p_best: dict[str, float] = {backbone.source: 0.0 for backbone, _ in measured}
    for number, share in found.p_best.items():
        p_best[place(number)[0]] += share
    source, keep = place(found.keep)
    best = place(found.best)
    beside = "" if found.keep == found.best else f"; the best measured is keep {best[1]} of {best[0]}"
    return BackboneAdvice(
        source,
        keep,
        best,
        tuple(place(number) for number in found.in_set),
        p_best,
        found.smallest_difference,
        found.reason + beside,
    )


def rivals_table(console: Console, rivals: Sequence[Rival], advice: BackboneAdvice) -> None:
    """One row a backbone: its best score, what is advised among its depths, and what it costs."""
    rows = []
    for rival in rivals:
        chain, own = rival.backbone.chain, rival.advice
        mark = ">" if rival.backbone.source == advice.backbone else ""
        if rival.evidence is None or own is None:
            rows.append([mark, rival.backbone.source, "", "", "", "", duration(rival.seconds), "dropped"])
            continue
        best = rival.evidence.best
        rows.append(
            [
                mark,
                rival.backbone.source,
                f"{100 * best.score:.1f} ± {50 * (best.high - best.low):.1f}",
                percent(advice.p_best[rival.backbone.source]),
                f"{own.keep} of {len(chain)}",
                f"{cost_of_cuts(chain)[own.keep] / 1e6:.1f} M",
                duration(rival.seconds),
                _remark(rival, advice),
            ]
        )
    console.text()
    header = ["", "backbone", "best score", "best of all", "keep", "parameters", "measured in", ""]
    console.table(header, rows, left=(0, 1, 7))
    console.text()


def _remark(rival: Rival, advice: BackboneAdvice) -> str:
    source = rival.backbone.source
    if source == advice.backbone:
        return "advised"
    if source == advice.best[0]:
        return "best"
    return "can't be told from the best" if any(source == name for name, _ in advice.in_set) else ""


def rivals_json(rivals: Sequence[Rival]) -> list[dict[str, Any]]:
    """One entry a backbone, as plain JSON."""
    return [
        {
            "backbone": rival.backbone.source,
            "seconds": rival.seconds,
            "dropped": rival.dropped or None,
            "weights": rival.backbone.report.digest,
            "best": None if rival.evidence is None else rival.evidence.best.keep,
            "score": None if rival.evidence is None else rival.evidence.best.score,
            "keep": None if rival.advice is None else rival.advice.keep,
        }
        for rival in rivals
    ]
