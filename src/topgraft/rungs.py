"""Which M: short real trainings of several choices, the better half of which trains on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from topgraft import search
from topgraft.console import Console, duration, percent
from topgraft.cost import Candidate
from topgraft.errors import RunningError
from topgraft.rehearsal import candidate
from topgraft.underway import Underway

SHARES = (0.875, 0.75, 0.5, 0.25, 0.0)
"""Of the kept blocks, that are frozen in what is tried beside the right-most third trained."""
EPOCHS = 2
"""Of the first rung; each further one has twice as many."""
SPENT = 0.35
"""Share of the time left that all short trainings together may take."""
WORTH = 6
"""Epochs for which a winner must have time: what would win and then not train is not tried."""
LONGEST = 8
"""Epochs of a short training at most: the winner then trains for real."""


@dataclass(frozen=True)
class Short:
    """A short training on the training part, scored on the validation part.

    Parameters
    ----------
    freeze
        Blocks frozen.
    epochs
        For which it was laid out; its rate had ended at zero by then.
    loss, score
        Mean loss (nats) and share correct on the validation part, at its best epoch.
    seconds
        That it took, what it reads stored.
    """

    freeze: int
    epochs: int
    loss: float
    score: float
    seconds: float


def choices(keep: int) -> list[int]:
    """What may be frozen when ``keep`` blocks are kept: most first, everything left out.

    Examples
    --------
    >>> choices(18), choices(7), choices(2), choices(1)
    ([16, 14, 12, 9, 4, 0], [6, 5, 4, 2, 0], [1, 0], [0])
    """
    found = {search.right_most_third(keep), *(round(share * keep) for share in SHARES)}
    return sorted(found - {keep}, reverse=True)


def settle(at: Underway, material: search.Material, keep: int) -> int:
    """Which M a full training is worth for, among those that there is time to try; decided once.

    Each choice trains for :data:`EPOCHS` epochs from the activations stored at its cut, those with the lower
    loss on the validation part for twice as many, until one is left. Loss decides, since among a hundred
    examples it tells apart what accuracy can't. Where there is no time for two, it is the one that there is
    time for; where there is none, the one with the shortest epochs.

    Parameters
    ----------
    at
        The fit under way: its clock, its plan, where it says what it does.
    material
        What trainings share.
    keep
        Blocks kept.

    References
    ----------
    Jamieson & Talwalkar (2016), successive halving.
    """
    usual = search.right_most_third(keep)
    if "candidate" in at.plan.decisions:
        return int(at.plan.decisions["candidate"]["value"])
    began, allowed = time.monotonic(), SPENT * at.left
    known = shorts(at.plan.decisions)
    at.note_reuse("search", len(known), sum(one["seconds"] for one in known))
    costs = [candidate(at.costs, at.ready, at.store, keep, freeze) for freeze in choices(keep)]
    field = worth_trying(costs, usual, at.left)
    left_out = [one.freeze for one in costs if one not in field]
    if field and left_out:
        names = ", ".join(str(freeze) for freeze in left_out)
        at.skipped.append(f"short trainings of freeze {names}: no time")
    if len(field) < 2:
        only = min(field or costs, key=lambda one: one.epoch).freeze
        return at.plan.decide("candidate", lambda: (only, "there is no time to try two choices"))
    at.ledger.predict("search", seconds=sum(map(_seconds, field)))
    tried: list[Short] = []
    epochs, remaining = EPOCHS, [one.freeze for one in field]
    while len(remaining) > 1 and epochs <= LONGEST:
        rung = [short for freeze in remaining if (short := _try(at, material, keep, freeze, epochs))]
        tried += rung
        best = sorted(rung, key=lambda short: (short.loss, -short.freeze))
        remaining = [short.freeze for short in best[: math.ceil(len(best) / 2)]]
        epochs *= 2
        again = sum(epochs * one.epoch for one in field if one.freeze in remaining)
        if time.monotonic() - began + again > allowed:
            break
    at.ledger.spend("search", seconds=time.monotonic() - began)
    winner = remaining[0] if remaining else usual
    _show(at.console, tried, winner)
    told = f"the lowest loss of {len(field)} choices in short trainings on the validation part"
    return at.plan.decide("candidate", lambda: (winner, told))


def worth_trying(costs: Sequence[Candidate], usual: int, left: float) -> list[Candidate]:
    """The choices that there is time to try and, were they to win, to train.

    Parameters
    ----------
    costs
        Of each choice.
    usual
        The choice that comes first; then those with the shortest epochs.
    left
        Seconds until the budget's end.
    """
    allowed = SPENT * left
    field: list[Candidate] = []
    for one in sorted(costs, key=lambda one: (one.freeze != usual, one.epoch)):
        fits = sum(map(_seconds, [*field, one])) <= allowed
        if fits and search.affordable_epochs(left - allowed, one.epoch, 1, refit=True) >= WORTH:
            field.append(one)
    return field


def _seconds(one: Candidate) -> float:
    """Of the first rung: what it reads stored, and its epochs."""
    return one.storing + EPOCHS * one.epoch


def _try(at: Underway, material: search.Material, keep: int, freeze: int, epochs: int) -> Short | None:
    """A short training, or what an earlier process found; ``None`` where it would not be one of this M."""

    def train() -> tuple[dict[str, Any], str]:
        began = time.monotonic()
        views = at.views(keep, freeze)
        label = f"freeze {freeze}"
        with at.console.progress("Trying", epochs, label) as bar:
            source, _ = search.source_at(material, keep, freeze, views=views)
            _, trial = search.run_trial(
                material,
                keep,
                freeze,
                source,
                epochs=epochs,
                stop_after=None,
                checkpoint=at.run.work / f"short-{freeze}-{epochs}.safetensors",
                deadline=time.monotonic() + at.left / 2,
                from_start=False,
                advance=lambda epoch: bar(1 if epoch.number else 0),
            )
        best = min(trial.history.epochs[1:] or trial.history.epochs, key=lambda epoch: epoch.validation_loss)
        loss = best.validation_loss if math.isfinite(best.validation_loss) else math.inf
        seconds = time.monotonic() - began
        short = Short(freeze, epochs, min(loss, 1e9), best.validation_score, seconds)
        return asdict(short), f"a training of {epochs} epochs"

    if 0 < freeze < keep:
        try:
            search.must_train_alike(material.backbone.chain, freeze)
        except RunningError as problem:
            at.skipped.append(str(problem))
            return None
    return Short(**at.plan.decide(f"short_{freeze}_{epochs}", train))


def _show(console: Console, tried: list[Short], winner: int) -> None:
    rows = [
        [
            ">" if short.freeze == winner else "",
            str(short.freeze),
            str(short.epochs),
            f"{short.loss:.3f}",
            percent(short.score, 1),
            duration(short.seconds),
        ]
        for short in tried
    ]
    console.text()
    console.table(["", "freeze", "epochs", "loss", "score", "in"], rows, left=(0,))
    console.text()


def shorts(decisions: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The short trainings of a plan, by rung and most frozen first, for ``fit --json``."""
    found = [dict(d["value"]) for name, d in decisions.items() if name.startswith("short_")]
    return sorted(found, key=lambda one: (one["epochs"], -one["freeze"]))
