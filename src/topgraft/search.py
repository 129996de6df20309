"""What trainings share and read: graft, recipe, rates, and a short real training from stored activations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.types import Backbone
from topgraft.calibration import cooled_losses
from topgraft.chain import Block, Chain
from topgraft.chain.proof import GRADIENTS
from topgraft.cutmix import alphas
from topgraft.data.types import Data
from topgraft.errors import RunningError
from topgraft.evaluating import predict_logits
from topgraft.evidence import Features
from topgraft.features.augmentation import augmentation_of
from topgraft.features.engine import engine_of
from topgraft.features.passes import is_storable, mended, states
from topgraft.features.sources import FeatureSource, LiveSource, Source, StateSource, ViewSource
from topgraft.features.store import Store
from topgraft.graft import Graft
from topgraft.head import Head, steadiness
from topgraft.history import Epoch, History, Recipe
from topgraft.objective import are_labels, are_numbers, are_steps
from topgraft.ordered import ranks_of
from topgraft.pooling import width
from topgraft.probe import fit_head
from topgraft.settings import Settings
from topgraft.taps import emphasis
from topgraft.training_elsewhere import train_by_parts

Array = np.ndarray[Any, np.dtype[Any]]

MOST_EPOCHS, MOST_WITH_VIEWS, MOST_UNTRAINED = 10, 20, 50
"""Epochs of a training at most; more where pictures are changed, since it then learns them by heart later,
and where a network for rows begins from random values."""
LEAST_EPOCHS = 2
RATES = {"tokens": 1e-4, "map": 3e-4, "map_last": 3e-4, "vector": 1e-3}
"""Peak rates that suit transformers, convolutional networks and plain layers, chosen in trials."""


@dataclass(frozen=True)
class Material:
    """What trainings share.

    Parameters
    ----------
    backbone, data, store, settings
        As they are.
    features
        Pooled, for the development part.
    targets
        Of the development part, as :mod:`topgraft.objective` has them: ``(n,)`` int64 indices of classes, or
        ``(n, outputs)`` standardised numbers.
    rows, validation
        Training and validation part, as rows of the development part.
    """

    backbone: Backbone
    data: Data
    store: Store
    settings: Settings
    features: Features
    targets: Tensor
    rows: Sequence[int]
    validation: Sequence[int]

    @property
    def everything(self) -> list[int]:
        """Training and validation part together."""
        return list(range(len(self.targets)))


def must_train_alike(chain: Chain, freeze: int) -> None:
    """Check on the example that training from stored states is training with ``freeze`` blocks frozen.

    Raises
    ------
    RunningError
        If gradients differ by more than rounding explains.
    """
    apart, where = chain.gradients_apart(freeze)
    if not apart <= GRADIENTS:
        raise RunningError(
            f"Training from stored activations after {chain.blocks[freeze - 1].name} (--freeze {freeze}) is "
            f"not training with these blocks frozen: gradients differ by {apart:.1e} at {where}. Another "
            "--freeze may do."
        )


def right_most_third(keep: int) -> int:
    """How many blocks are frozen when the right-most third of the kept ones trains.

    Examples
    --------
    >>> [right_most_third(keep) for keep in (1, 2, 7, 18)]
    [0, 1, 4, 12]
    """
    return keep - math.ceil(keep / 3)


def new_graft(
    material: Material, keep: int, freeze: int, rows: Sequence[int], *, class_weights: Tensor | None = None
) -> Graft:
    """A graft whose head is the probe's solution on ``rows``: training starts there, not from noise."""
    block: Block = material.backbone.chain.blocks[keep - 1]
    settings, features = material.settings, material.features.cuts[keep][list(rows)]
    weight = emphasis(material.backbone.chain, keep)
    if freeze < keep or settings.tune_norms:
        weight = steadiness(features) if weight is None else weight * steadiness(features)
    wanted = material.targets[list(rows)]
    fitted = fit_head(features, wanted, material.data.logits, class_weights=class_weights, emphasis=weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        outputs = material.data.width
        head = Head(block.layout, width(block), outputs, hidden=settings.hidden, dropout=settings.dropout)
    head.start_from(fitted)
    if settings.normalise and freeze < keep:
        head.standardise(features)
    return Graft(material.backbone.chain, keep, freeze, head, tune_norms=settings.tune_norms)


def starting_graft(material: Material, keep: int, freeze: int) -> Graft:
    """The graft with which a training on the training part starts."""
    weights = class_weights(material, material.rows)
    return new_graft(material, keep, freeze, material.rows, class_weights=weights)


def class_weights(material: Material, rows: Sequence[int]) -> Tensor | None:
    """Per class how much an example counts, inversely to their number; ``None`` where not asked for.

    Balanced sampling asks for them too: what is fitted in closed form draws nothing.
    """
    if "balanced" not in (material.settings.class_weights, material.settings.sampling):
        return None
    return balanced(material.targets[list(rows)], len(material.data.classes))


def balanced(targets: Tensor, classes: int) -> Tensor:
    """``(classes,)`` float64 weights, inversely to the number of examples of each class.

    Of labels: how many times those that an example has must count to be as many as those that it lacks.
    Steps of ordered classes are counted by their classes.

    Examples
    --------
    >>> balanced(torch.tensor([0, 0, 0, 1]), 2).round(decimals=3).tolist()
    [0.667, 2.0]
    """
    if are_labels(targets):
        held = targets.double().sum(0)
        return (len(targets) - held).clamp(min=1) / held.clamp(min=1)
    counts = torch.bincount(ranks_of(targets) if are_steps(targets) else targets, minlength=classes).double()
    return len(targets) / (classes * counts.clamp(min=1))


def augments(material: Material, freeze: int) -> bool:
    """Whether pictures are changed at random in training: where nothing is frozen, or when asked for."""
    return changes_pictures(material.backbone, material.settings, freeze)


def changes_pictures(backbone: Backbone, settings: Settings, freeze: int) -> bool:
    """:func:`augments`, before there is anything to train on."""
    if backbone.modality != "picture":
        return False
    return settings.changes_anew or (settings.augment == "auto" and freeze == 0)


def reads_examples(backbone: Backbone, settings: Settings, freeze: int) -> bool:
    """Whether training decodes each example in each epoch, instead of reading what is stored at a cut."""
    if freeze == 0 or changes_pictures(backbone, settings, freeze):
        return True
    return not is_storable(backbone.chain.blocks[freeze - 1])


def reads_views(backbone: Backbone, settings: Settings, keep: int, freeze: int) -> bool:
    """Whether training may read changed views of each picture, stored at the cut where it begins."""
    if backbone.modality != "picture" or settings.augment != "auto" or not 0 < freeze < keep:
        return False
    return (
        not reads_examples(backbone, settings, freeze) and -1 not in backbone.chain.blocks[freeze - 1].shape
    )


def source_at(
    material: Material,
    keep: int,
    freeze: int,
    *,
    views: int = 0,
    advance: Callable[[int], None] | None = None,
) -> tuple[Source, int]:
    """What training reads when ``freeze`` blocks are frozen, and how many examples were stored before.

    ``views`` says how many changed views of each picture are stored beside it.
    """
    settings, backbone = material.settings, material.backbone
    if freeze == keep and not settings.changes_anew:
        return FeatureSource(material.features.cuts[keep]), 0
    if reads_examples(backbone, settings, freeze):
        change = augmentation_of(settings) if augments(material, freeze) else None
        engine = (
            engine_of(
                backbone.chain[:freeze],
                name=settings.engine_or_torch,
                precision=settings.precision_or_fp32,
                store=material.store,
            )
            if freeze
            else None
        )
        return LiveSource(material.data, backbone.preprocess, engine=engine, augment=change), 0

    def fill(view: int) -> tuple[StateSource, int]:
        shelf, reused = states(
            backbone,
            material.data,
            material.store,
            freeze,
            engine=settings.engine_or_torch,
            precision=settings.precision_or_fp32,
            advance=advance,
            view=view,
        )
        return StateSource(shelf, material.data.digests, among=views + 1), reused

    filled = [mended(partial(fill, view)) for view in range(views + 1)]
    reused = sum(count for _, count in filled)
    return (ViewSource([source for source, _ in filled]) if views else filled[0][0]), reused


def recipe_for(material: Material, keep: int, epochs: int, rows: Sequence[int]) -> Recipe:
    """The recipe that suits the network and the settings."""
    settings = material.settings
    drawn = settings.sampling == "balanced"
    weights = None if drawn else class_weights(material, rows)
    layouts = material.backbone.chain.blocks[max(0, keep // 2 - 1)].layout.split("+")
    rate = settings.rate or min(RATES[layout] for layout in layouts)
    mixup, cutmix = alphas(settings, material.data.modality)
    return Recipe(
        epochs=epochs,
        batch_size=settings.batch_size,
        rate=rate,
        clip=settings.clip,
        warmup=settings.warmup,
        seed=settings.seed,
        class_weights=() if weights is None else tuple(weights.tolist()),
        mixup=mixup,
        cutmix=cutmix,
        smoothing=settings.label_smoothing,
        balanced=drawn,
        parts=settings.training_workers or 1,
    )


def most_epochs(views: int, *, untrained: bool = False) -> int:
    """Epochs for which a training is laid out that reads so many changed views of each example.

    ``untrained`` says whether the network has learned nothing yet.

    Examples
    --------
    >>> most_epochs(0), most_epochs(4), most_epochs(0, untrained=True)
    (10, 20, 50)
    """
    if untrained:
        return MOST_UNTRAINED
    return MOST_WITH_VIEWS if views else MOST_EPOCHS


def affordable_epochs(
    seconds: float, seconds_an_example: float, examples: int, *, refits: int, most: int = MOST_EPOCHS
) -> int:
    """Epochs for which the time is enough, the fits on all of the development part included."""
    each = seconds_an_example * examples * (1.1 + 1.3 * refits)
    return int(min(most, seconds / max(each, 1e-9)))


@dataclass(frozen=True)
class Trial:
    """A short training and how it did; its logits on the validation part, ``(n, outputs)`` float32."""

    keep: int
    freeze: int
    history: History
    seconds: float
    logits: Tensor | None = None


def run_trial(
    material: Material,
    keep: int,
    freeze: int,
    source: Source,
    *,
    epochs: int,
    stop_after: int | None,
    checkpoint: Path | None,
    deadline: float | None,
    from_start: bool,
    advance: Callable[[Epoch], None] | None,
) -> tuple[Graft, Trial]:
    """Train on the training part and keep the weights that did best on the validation part."""
    began = time.monotonic()
    graft = starting_graft(material, keep, freeze)
    history = train_by_parts(
        graft,
        source,
        material.targets,
        material.rows,
        recipe=recipe_for(material, keep, epochs, material.rows),
        validation=material.validation,
        epochs=stop_after,
        checkpoint=checkpoint,
        deadline=deadline,
        from_start=from_start,
        advance=advance,
    )
    logits = predict_logits(graft, source, material.validation)
    return graft, Trial(keep, freeze, history, time.monotonic() - began, logits)


def train_again(
    material: Material,
    trial: Trial,
    source: Source,
    rows: Sequence[int],
    *,
    seed: int,
    checkpoint: Path | None,
    advance: Callable[[Epoch], None] | None,
) -> tuple[Graft, History]:
    """A training like a trial's on other rows, for the steps that early stopping found.

    The schedule is laid out for these steps, so that the rate ends at zero. ``seed`` is added to its own.
    """
    graft = new_graft(material, trial.keep, trial.freeze, rows, class_weights=class_weights(material, rows))
    recipe = recipe_for(material, trial.keep, trial.history.best, rows)
    steps = trial.history.best * trial.history.steps_an_epoch
    history = train_by_parts(
        graft,
        source,
        material.targets,
        rows,
        recipe=replace(recipe, seed=recipe.seed + seed),
        steps=steps,
        schedule_steps=steps,
        checkpoint=checkpoint,
        advance=advance,
    )
    return graft, history


def losses_of(outputs: Array, wanted: Array) -> Array:
    """``(n,)``: what each example loses by logits, at the temperature that suits them best, or by numbers.

    Parameters
    ----------
    outputs
        ``(n, outputs)`` of a training.
    wanted
        ``(n,)`` indices of classes, or ``(n, outputs)`` standardised numbers.
    """
    return np.square(outputs - wanted).mean(1) if are_numbers(wanted) else cooled_losses(outputs, wanted)


def head_trains(material: Material) -> bool:
    """Whether the head has layers that no probe can fit."""
    return bool(material.settings.hidden or material.settings.dropout)


def frozen_graft(material: Material, keep: int) -> Graft:
    """Everything frozen: the head is the probe's solution, on training and validation part with ``refit``."""
    rows = material.everything if material.settings.refit else list(material.rows)
    return new_graft(material, keep, keep, rows, class_weights=class_weights(material, rows))


def bytes_of_states(material: Material, freeze: int) -> float:
    """Bytes that the stored states of all examples take."""
    block = material.backbone.chain.blocks[freeze - 1]
    each = float(np.prod([abs(s) if s != -1 else 40 for s in block.shape]))
    return each * (4 if material.settings.precision_or_fp32 == "fp32" else 2) * len(material.targets)


def trained_parameters(graft: Graft) -> tuple[int, list[str]]:
    """How many numbers train, and the names of the parameters."""
    items: list[tuple[str, Any]] = [(name, p.numel()) for name, p, _ in graft.trainable()]
    return sum(n for _, n in items), [name for name, _ in items]
