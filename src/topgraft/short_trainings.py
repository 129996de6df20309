"""Short trainings of the search over N and M: here, or by workers elsewhere; each is written down once."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from topgraft import search
from topgraft.candidates import Candidate, Outcome, Trying
from topgraft.console import counted
from topgraft.device import has_gpu
from topgraft.errors import RunningError
from topgraft.features.sending import NotSendable
from topgraft.files import DamagedFile, read_json, write_json
from topgraft.history import Epoch
from topgraft.objective import marks
from topgraft.underway import Underway
from topgraft.workers import elsewhere


@dataclass(frozen=True)
class Short:
    """A short training on the training part, scored on the validation part.

    Parameters
    ----------
    keep, freeze
        Blocks kept, and of these frozen.
    epochs
        For which it was laid out; its rate had ended at zero by then.
    loss, score
        Mean loss (nats, at the temperature that suits it best) and share correct on the validation part, by
        the weights that it kept: by these the winner is chosen.
    seconds
        That it took, what it reads stored.
    seed
        How much more than that of the fit its seed was.
    lowest
        The lowest mean loss on the validation part after any of its epochs, by which a rung is halved.
    """

    keep: int
    freeze: int
    epochs: int
    loss: float
    score: float
    seconds: float
    seed: int = 0
    lowest: float = math.inf

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Short:
        """From a decision of a plan; earlier ones have one loss only, the lowest."""
        return cls(**{"lowest": value["loss"], **value})

    @property
    def name(self) -> str:
        """Of the decision that holds it, and of its files."""
        return name_of(self.keep, self.freeze, self.epochs, self.seed)


def name_of(keep: int, freeze: int, epochs: int, seed: int) -> str:
    """Of a short training.

    Examples
    --------
    >>> name_of(18, 12, 4, 0), name_of(18, 12, 4, 2)
    ('short_18_12_4', 'short_18_12_4_2')
    """
    return f"short_{keep}_{freeze}_{epochs}" + (f"_{seed}" if seed else "")


Choice = tuple[int, int, int, int]
"""Blocks kept and frozen, epochs, and how much more than that of the fit the seed is."""


def try_all(at: Underway, material: search.Material, tried: Sequence[Choice]) -> list[Short]:
    """Short trainings of several choices, side by side where others do pieces of the work."""
    if elsewhere() is not None and not has_gpu():  # workers compute by cores
        _try_elsewhere(at, material, tried)
    found = (_try(at, material, *one) for one in tried)
    return [short for short in found if short]


def _try(
    at: Underway, material: search.Material, keep: int, freeze: int, epochs: int, seed: int = 0
) -> Short | None:
    """A short training, or what was found before; ``None`` where it would not be one of this M."""
    name = name_of(keep, freeze, epochs, seed)
    if name not in at.plan.decisions and (problem := _unlike(material, keep, freeze)):
        at.skipped.append(problem)
        return None

    def make() -> tuple[dict[str, Any], str]:
        short = _train(at, material, keep, freeze, epochs, seed)
        return asdict(short), f"a training of {epochs} epochs"

    return Short.read(at.plan.decide(name, make))


def _unlike(material: search.Material, keep: int, freeze: int) -> str:
    """Why training from stored states would not be one of this M; empty where it is."""
    if 0 < freeze < keep:
        try:
            search.must_train_alike(material.backbone.chain, freeze)
        except RunningError as problem:
            return str(problem)
    return ""


def _try_elsewhere(at: Underway, material: search.Material, tried: Sequence[Choice]) -> None:
    """Have workers train what is not decided yet; what can't be sent to them is left to be trained here."""
    workers = elsewhere()
    assert workers is not None
    open_ones = [one for one in tried if name_of(*one) not in at.plan.decisions]
    open_ones = [one for one in open_ones if not _unlike(material, *one[:2])]
    waiting = []
    for keep, freeze, epochs, seed in open_ones:
        own, views = _with_seed(material, seed), at.views(keep, freeze)
        search.source_at(own, keep, freeze, views=views)  # stored now, so that sending only reads
        waiting.append(Candidate(own, keep, freeze, views, epochs, at.left / 2))
    label = f"{counted(len(waiting), 'choice')} on the cluster"
    with at.console.progress("Trying", len(waiting), label) as bar:
        done = workers.in_order(Trying(torch.get_num_threads()), waiting, at_once=1)
        try:
            for one, outcome in zip(open_ones, done, strict=True):
                short = _note(at, material, *one, outcome)
                at.plan.decide(short.name, partial(_of_worker, short))
                bar(1)
        except NotSendable as problem:
            at.console.line("Search", f"trained here, not on the cluster: {problem}")


def _of_worker(short: Short) -> tuple[dict[str, Any], str]:
    return asdict(short), f"a training of {short.epochs} epochs, on the cluster"


def _with_seed(material: search.Material, seed: int) -> search.Material:
    """With the seed of a short training, which is one worker's, so that several run side by side."""
    seeded = replace(material.settings, seed=material.settings.seed + seed, training_workers=1)
    return replace(material, settings=seeded)


def _train(at: Underway, material: search.Material, keep: int, freeze: int, epochs: int, seed: int) -> Short:
    """Train, and write down what each validation example lost."""
    began = time.monotonic()
    views = at.views(keep, freeze)
    label = f"keep {keep}, freeze {freeze}" + (f", seed {seed}" if seed else "")
    name = name_of(keep, freeze, epochs, seed)
    own = _with_seed(material, seed)

    def advance(epoch: Epoch) -> None:
        bar(1 if epoch.number else 0)
        at.tracking.epoch(f"search/{name}", epoch)

    with at.console.progress("Trying", epochs, label) as bar:
        source, _ = search.source_at(own, keep, freeze, views=views)
        _, trial = search.run_trial(
            own,
            keep,
            freeze,
            source,
            epochs=epochs,
            stop_after=None,
            checkpoint=at.run.work / f"{name.replace('_', '-')}.safetensors",
            deadline=time.monotonic() + at.left / 2,
            from_start=False,
            advance=advance,
        )
    assert trial.logits is not None
    outcome = Outcome(trial.history, trial.logits, time.monotonic() - began)
    return _note(at, material, keep, freeze, epochs, seed, outcome)


def _note(
    at: Underway,
    material: search.Material,
    keep: int,
    freeze: int,
    epochs: int,
    seed: int,
    outcome: Outcome,
) -> Short:
    """Write down what each validation example lost, and sum it up."""
    name = name_of(keep, freeze, epochs, seed)
    at.tracking.history(f"search/{name}", outcome.history)
    wanted = material.targets[list(material.validation)]
    lost = search.losses_of(outcome.logits.numpy(), wanted.numpy())
    found = {"losses": lost.tolist(), "marks": marks(outcome.logits, wanted).double().tolist()}
    write_json(at.run.work / f"{name}.json", found)
    history = outcome.history
    score = history.epochs[history.best].validation_score
    lowest = min(_bounded(epoch.validation_loss) for epoch in history.epochs[1:] or history.epochs)
    return Short(
        keep, freeze, epochs, _bounded(float(lost.mean())), score, outcome.seconds, seed=seed, lowest=lowest
    )


def _bounded(loss: float) -> float:
    """As JSON can hold it, that of a training that ran away being large."""
    return min(loss, 1e9) if math.isfinite(loss) else 1e9


def outcome_of(at: Underway, material: search.Material, short: Short) -> dict[str, Any]:
    """``losses`` and ``marks`` of the validation examples; a lost file is made again from the checkpoint."""
    place = at.run.work / f"{short.name}.json"
    for _ in range(2):
        try:
            if place.is_file():
                found: dict[str, Any] = read_json(place)
                return found
        except DamagedFile:
            pass
        _train(at, material, short.keep, short.freeze, short.epochs, short.seed)
    raise RunningError(f"{place} can't be read although it was just written.")


def shorts(decisions: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The short trainings of a plan, by rung, seed, depth and most frozen first, for ``fit --json``."""
    found = [asdict(Short.read(d["value"])) for name, d in decisions.items() if name.startswith("short_")]
    return sorted(found, key=lambda one: (one["epochs"], one["seed"], one["keep"], -one["freeze"]))
