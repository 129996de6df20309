"""The fit on all of the development part: several trainings from one start, whose weights are averaged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from topgraft.checkpoint import put, weights_of
from topgraft.console import counted, duration
from topgraft.features.sources import Source
from topgraft.graft import Graft
from topgraft.history import Epoch, History
from topgraft.search import Material, Trial, train_again
from topgraft.underway import Underway
from topgraft.workload import REFITS


def members_for(asked: int | None, *, timeless: bool, seconds: float, left: float) -> tuple[int, str]:
    """How many trainings are averaged, and why.

    Parameters
    ----------
    asked
        By ``--soup``.
    timeless
        Whether epochs were given, or a plan: time then decides nothing, so that the same seed gives the same
        bits.
    seconds
        That one takes.
    left
        Seconds of the budget.

    Examples
    --------
    >>> members_for(None, timeless=False, seconds=30, left=100)
    (2, 'a training takes about 30 s, 100 s left')
    >>> (
    ...     members_for(2, timeless=False, seconds=30, left=0),
    ...     members_for(None, timeless=True, seconds=1, left=9),
    ... )
    ((2, 'as asked (--soup)'), (1, 'epochs or a plan were given, and no --soup'))
    """
    if asked is not None:
        return asked, "as asked (--soup)"
    if timeless:
        return 1, "epochs or a plan were given, and no --soup"
    possible = int(0.85 * left / max(seconds, 1e-3))
    told = f"a training takes about {duration(seconds)}, {duration(left)} left"
    return max(1, min(REFITS, possible)), told


def refit(
    material: Material,
    trial: Trial,
    source: Source,
    *,
    members: int = 1,
    checkpoint: Path | None,
    advance: Callable[[Epoch], None] | None,
) -> tuple[Graft, list[History]]:
    """Fit again on training and validation part together, for the steps that early stopping found.

    The schedule is laid out for these steps, so that the rate ends at zero. Several trainings start at the
    same weights and differ in the order of examples and in every random choice; they end in one basin, so
    that the mean of their weights is a model, as good as their ensemble at the cost of one (Wortsman et al.
    2022, model soups).

    Parameters
    ----------
    members
        Trainings that are averaged.
    checkpoint
        As for :func:`topgraft.train.train`; further members have a file of their own beside it.

    Returns
    -------
    Graft, list of History
        The graft, and how each training went.
    """
    histories, ends = [], []
    for member in range(members):
        place = checkpoint
        if checkpoint is not None and member:
            place = checkpoint.with_stem(f"{checkpoint.stem}-{member}")
        graft, history = train_again(
            material, trial, source, material.everything, seed=1 + member, checkpoint=place, advance=advance
        )
        histories.append(history)
        ends.append(weights_of(graft))
    put(graft, {name: mean_of([end[name] for end in ends]) for name in ends[0]})
    return graft, histories


def refitted(at: Underway, material: Material, graft: Graft, trial: Trial, source: Source) -> Graft:
    """The graft of :func:`refit`, unless that is not wanted; the number of members is decided once."""
    history, count = trial.history, len(material.everything)
    if not at.settings.refit:
        return graft
    share = history.best / max(1, len(history.epochs) - 1) * count / max(1, len(material.rows))
    members = at.plan.decide(
        "soup",
        lambda: members_for(
            at.settings.soup,
            timeless=at.settings.epochs is not None or at.plan.is_repeat,
            seconds=trial.seconds * share,
            left=at.left,
        ),
    )
    if members > at.settings.refits:
        at.ledger.enlarge("training", seconds=(members - at.settings.refits) * trial.seconds * share)
    began = time.monotonic()
    with at.console.progress("Refit", members * history.best, "epochs") as bar:
        graft, again = refit(
            material,
            trial,
            source,
            members=members,
            checkpoint=at.run.work / "refit.safetensors",
            advance=lambda e: bar(1 if e.number else 0),
        )
    spent = sum(e.seconds for one in again for e in one.epochs[: one.resumed + 1])
    for number, one in enumerate(again, 1):
        at.tracking.history(f"refit/{number}", one)
    at.note_reuse("refit", sum(one.resumed for one in again), spent)
    at.ledger.spend("training", seconds=time.monotonic() - began + spent)
    steps = counted(history.best * history.steps_an_epoch, "step")
    several = f"; the mean of {members} trainings' weights (--soup)" if members > 1 else ""
    at.console.line(
        "Refit", f"on training and validation part together, {counted(count, 'example')}, {steps}{several}"
    )
    return graft


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """The mean, in the tensors' own dtype; of whole numbers, which count steps, the last.

    Examples
    --------
    >>> mean_of([torch.tensor([1.0, 3.0]), torch.tensor([2.0, 5.0])])
    tensor([1.5000, 4.0000])
    """
    if len(tensors) == 1 or not tensors[0].is_floating_point():
        return tensors[-1]
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(tensors[0].dtype)
