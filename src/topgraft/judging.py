"""Whether a training is taken, not the frozen probe: by the same examples, of as many folds as can tell."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topgraft import search
from topgraft.console import counted
from topgraft.evaluating import predict_logits
from topgraft.evidence import Evidence, paired_gain
from topgraft.features.sources import Source
from topgraft.files import DamagedFile, read_json, write_json
from topgraft.history import Epoch
from topgraft.objective import marks
from topgraft.underway import Underway

Array = np.ndarray[Any, np.dtype[Any]]

SETTLED = 3
"""Epochs from which on a training is taken unless it is measurably worse."""
CLEAR = 2.0
"""Standard errors that a difference must exceed for no further fold to be asked."""
SPARE = 0.85
"""Share of the time left that a further fold, and the refits after it, may take."""


@dataclass(frozen=True)
class Seen:
    """What trainings said of examples that they had not learned from.

    Parameters
    ----------
    rows
        ``(n,)`` places of the examples.
    losses, marks
        ``(n,)``: what each lost, and how right it was.
    """

    rows: Array
    losses: Array
    marks: Array


def is_better(
    trial: search.Trial,
    evidence: Evidence,
    validation: Sequence[int],
    *,
    probed: int,
    more: Sequence[Seen] = (),
) -> tuple[bool, str]:
    """Whether a training is taken, not the frozen probe, by the same examples; and why, in words.

    Compared is the loss: a hundred examples tell it more exactly than how many are right. Of classes the
    training's is at the temperature that suits it best, since it is saved with one; the probe's is already.
    The lower loss is taken, after fewer than :data:`SETTLED` epochs only where the gain exceeds its error: on
    the packaged pictures one epoch gained a point of validation and lost 7 untouched ones. A training that
    changed no prediction is not better.

    Parameters
    ----------
    trial
        With its logits on the validation part.
    evidence
        Of the probes, out of fold.
    validation
        Places of the validation part.
    probed
        Depth that is kept without a training.
    more
        What trainings without other folds said of these.
    """
    before, after, gain, error = _compared(trial, evidence, validation, probed, more)
    folds = f" of {counted(1 + len(more), 'fold')}" if more else ""
    said = (
        f"{100 * before.marks.mean():.1f} % frozen, {100 * after.marks.mean():.1f} % trained on "
        f"{len(after.rows)} examples{folds}, loss {before.losses.mean():.3f} and {after.losses.mean():.3f}"
    )
    if gain <= 0 or (before.marks == after.marks).all():
        return False, f"{said}: no gain"
    gained = f"{said}: a gain of {gain:.3f} ± {error:.3f}"
    if trial.history.best >= SETTLED or gain > error:
        return True, gained
    return False, f"{gained}, too little after so short a training"


def _compared(
    trial: search.Trial, evidence: Evidence, validation: Sequence[int], probed: int, more: Sequence[Seen]
) -> tuple[Seen, Seen, float, float]:
    """The probe and the training on the same examples; by how much the training lost less, and its error."""
    assert trial.logits is not None
    first, frozen = np.asarray(validation), evidence[probed]
    lost = search.losses_of(trial.logits.numpy(), evidence.targets[first])
    every = [Seen(first, lost, np.array(trial.history.marks, dtype=frozen.marks.dtype)), *more]
    rows, losses, found = (
        np.concatenate([getattr(one, name) for one in every]) for name in ("rows", "losses", "marks")
    )
    before, after = Seen(rows, frozen.losses[rows], frozen.marks[rows]), Seen(rows, losses, found)
    return before, after, *paired_gain(before.losses, after.losses)


def judge(
    at: Underway,
    material: search.Material,
    trial: search.Trial,
    evidence: Evidence,
    source: Source,
    *,
    probed: int,
) -> tuple[bool, str]:
    """:func:`is_better`, by as many folds as it takes to tell and as there is time for.

    The validation part is the first fold, and its few examples often can't tell. The probe has losses out of
    fold of all the others; so a training for the steps that did best, as the last fit is, learns from all but
    one of them and is scored on that, fold after fold, until the difference exceeds :data:`CLEAR` of its
    errors.

    Parameters
    ----------
    at
        The fit under way: its clock, its plan, its folder.
    material, source
        What trainings share, and what this one reads.
    trial, evidence, probed
        As for :func:`is_better`.
    """
    more: list[Seen] = []
    verdict = is_better(trial, evidence, material.validation, probed=probed)
    best = trial.history.best
    if not best or at.plan.is_repeat:
        return verdict
    each = trial.seconds * best / max(1, len(trial.history.epochs) - 1)
    for fold in np.unique(at.ready.fold_of).tolist()[1:]:
        *_, gain, error = _compared(trial, evidence, material.validation, probed, more)
        if abs(gain) > CLEAR * error:
            break
        if f"fold_{fold}" not in at.plan.decisions and each * (1 + at.settings.refits) > SPARE * at.left:
            at.skipped.append("judging the training on further folds: no time")
            break
        began = time.monotonic()
        at.ledger.enlarge("training", seconds=each)
        more.append(_without(at, material, trial, source, fold))
        at.ledger.spend("training", seconds=time.monotonic() - began)
        verdict = is_better(trial, evidence, material.validation, probed=probed, more=more)
    return verdict


def _without(at: Underway, material: search.Material, trial: search.Trial, source: Source, fold: int) -> Seen:
    """What a training on all other folds says of one; read back where it was there before."""
    place, rows = at.run.work / f"fold-{fold}.json", np.flatnonzero(at.ready.fold_of == fold)
    if f"fold_{fold}" in at.plan.decisions:
        try:
            known = read_json(place)
            return Seen(rows, np.array(known["losses"]), np.array(known["marks"]))
        except (DamagedFile, FileNotFoundError, KeyError):
            pass
    others, best = np.flatnonzero(at.ready.fold_of != fold).tolist(), trial.history.best

    def advance(epoch: Epoch) -> None:
        bar(1 if epoch.number else 0)

    checkpoint = at.run.work / f"fold-{fold}.safetensors"
    with at.console.progress("Judging", best, f"fold {fold + 1}") as bar:
        graft, _ = search.train_again(
            material, trial, source, others, seed=fold, checkpoint=checkpoint, advance=advance
        )
    logits, wanted = predict_logits(graft, source, rows.tolist()), material.targets[rows.tolist()]
    lost, found = search.losses_of(logits.numpy(), wanted.numpy()), marks(logits, wanted).numpy()
    write_json(place, {"losses": lost.tolist(), "marks": found.tolist()})
    at.plan.decide(f"fold_{fold}", lambda: (float(lost.mean()), "loss of a training on the other folds"))
    return Seen(rows, lost, found)
