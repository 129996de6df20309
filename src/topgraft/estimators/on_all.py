"""A fit on every example that is given, for those who score elsewhere, as scikit-learn's folds do."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topgraft import search
from topgraft.advise import DepthAdvice
from topgraft.backbones import load
from topgraft.backbones.packaged import HUB_NAMES
from topgraft.backbones.types import Backbone, Modality
from topgraft.calibration import NOT_CALIBRATED, Calibration
from topgraft.choices import resolve_freeze, resolve_keep
from topgraft.console import Console
from topgraft.cutmix import must_be_pasted
from topgraft.data import assign_folds
from topgraft.data.splits import strata
from topgraft.data.types import Data
from topgraft.errors import TopgraftError, TopgraftWarning
from topgraft.evidence import Evidence, Features
from topgraft.features.augmentation import must_augment
from topgraft.features.batching import batches
from topgraft.features.engine import BATCH, engine_of, usable
from topgraft.features.passes import one_pass
from topgraft.features.reading import batch_of
from topgraft.features.store import Store
from topgraft.finalists import depths_to_try
from topgraft.graft import Graft
from topgraft.job import Job
from topgraft.kept_evidence import probe_all
from topgraft.objective import Scale, scale_of
from topgraft.plan import Plan
from topgraft.predict import Predictor
from topgraft.run import RunFolder
from topgraft.saved import Model, describe
from topgraft.settings import Settings
from topgraft.side_by_side import in_order, single_threaded
from topgraft.stages import Prepared, advise, as_resized, load_for, measure, whole_if_random
from topgraft.tapping import settle_taps
from topgraft.taps import resolve_taps, side_by_side, with_taps

Array = np.ndarray[Any, np.dtype[Any]]


class NotMeasuredWarning(TopgraftWarning):
    """There were too few examples for folds: depth was not measured, and nothing but a head was fitted."""


@dataclass(frozen=True)
class FittedOnAll:
    """What a fit on every example gives.

    Parameters
    ----------
    graft
        In eval mode.
    evidence, advice
        On depth; ``None`` where nothing was left to choose, so that nothing was probed.
    calibration
        Of the probabilities, by examples that were not trained on.
    settings
        With the engine and the precision that were used.
    reasons
        Why keep, freeze and the rest are what they are, by name.
    """

    graft: Graft
    evidence: Evidence | None
    advice: DepthAdvice | None
    calibration: Calibration
    settings: Settings
    reasons: dict[str, str]

    def model(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        *,
        outputs: Sequence[str] = (),
        separator: str = "",
        is_ordered: bool = False,
        scale: Scale | None = None,
    ) -> Model:
        """The same as an opened model, which can be saved and predicts."""
        description = describe(
            self.graft,
            backbone,
            classes=classes,
            outputs=outputs,
            separator=separator,
            is_ordered=is_ordered,
            scale=scale,
            columns={},
            engine=self.settings.engine_or_torch,
            precision=self.settings.precision_or_fp32,
            seed=self.settings.seed,
            calibration=self.calibration.to_json(),
        )
        return Model(
            graft=self.graft.eval(),
            preprocess=backbone.preprocess,
            classes=tuple(classes),
            modality=backbone.modality,
            columns={},
            engine=self.settings.engine_or_torch,
            precision=self.settings.precision_or_fp32,
            description=description,
        )


def backbone_for(data: Data, given: str | nn.Module | Backbone | None, settings: Settings) -> Backbone:
    """The backbone for these data; a published network with its own weights is loaded once a process.

    Parameters
    ----------
    data
        What it is to read.
    given
        As for :func:`topgraft.load`, or what that gave; ``None`` for the packaged one.
    settings
        With the weights and the seed.
    """
    if isinstance(given, (nn.Module, Backbone)):
        return load_for(data, settings, given=given)
    if (given is None or _is_published(given)) and settings.weights in ("auto", "none"):
        found = _published(given, data.modality, settings.weights, settings.size, settings.seed)
        return as_resized(found, settings)
    return load_for(data, replace(settings, backbone=given))


def _is_published(source: str) -> bool:
    """Whether a name means the same network all the time, unlike a folder or a function."""
    return source.startswith(("timm/", "torchvision/")) or source.removeprefix("hf/") in HUB_NAMES


@lru_cache(maxsize=2)
def _published(source: str | None, modality: Modality, weights: str, size: int | None, seed: int) -> Backbone:
    return load(source, modality=modality, weights=weights, size=size, seed=seed)


def choose_depth(
    data: Data, backbone: Backbone, settings: Settings, store: Store
) -> tuple[Evidence, DepthAdvice]:
    """Probe every cut on folds of labelled examples, and advise how many blocks to keep.

    Raises
    ------
    TopgraftError
        If a class has too few examples for two folds.
    """
    features, _ = measure(backbone, data, store, settings, Console())
    fold_of, _, _ = _folds(data, settings)
    evidence, _ = probe_all(features, data, fold_of, store=store, of=backbone)
    return evidence, advise(evidence, backbone.chain, prefer=settings.prefer, seed=settings.seed)


def _folds(data: Data, settings: Settings) -> tuple[Array, int, tuple[str, ...]]:
    targets, classes = strata(data)
    return assign_folds(targets, data.groups, folds=settings.folds, seed=settings.seed, classes=classes)


def fit_on_all(
    data: Data, backbone: Backbone, settings: Settings, store: Store, *, console: Console | None = None
) -> FittedOnAll:
    """Measure, advise and train as :func:`topgraft.fit` does, on all the examples: no part is held out.

    Where keep and freeze are given and nothing but the head is new, nothing is probed either.

    Parameters
    ----------
    data
        Labelled examples.
    backbone
        Reads them.
    settings
        ``held_out`` means nothing here.
    store
        Where activations are kept.
    console
        Where results and progress are written; nowhere by default.

    Raises
    ------
    TopgraftError
        If keep or freeze is out of range; if blocks or hidden layers are to be trained, and there are too few
        examples for a validation part.

    Warns
    -----
    NotMeasuredWarning
        If depth was to be measured and a class has too few examples for folds.
    """
    began, console = time.monotonic(), console or Console()
    settings, asked = whole_if_random(settings, backbone)
    must_be_pasted(settings, backbone)
    must_augment(settings, data)
    chain, source = backbone.chain, backbone.source
    keep = resolve_keep(settings.keep, chain, source)
    freeze = resolve_freeze(settings.freeze, chain, source, keep or len(chain))
    features, told = measure(backbone, data, store, settings, console)
    settings = replace(settings, engine=told["engine"], precision=told["precision"])
    head_trains = bool(settings.hidden or settings.dropout)
    if keep is not None and freeze == keep and not head_trains:
        return _frozen(data, backbone, settings, store, features, keep, reason=asked)
    try:
        fold_of, _, notes = _folds(data, settings)
    except TopgraftError as problem:
        if head_trains or freeze not in (None, keep or len(chain)):
            raise
        kept = keep or len(chain)
        warnings.warn(
            f"{problem} Depth was not measured: {kept} of {len(chain)} blocks are kept, all of them frozen.",
            NotMeasuredWarning,
            stacklevel=3,
        )
        return _frozen(data, backbone, settings, store, features, kept, reason=f"not measured: {problem}")
    before = time.monotonic()
    evidence, _ = probe_all(features, data, fold_of, store=store, of=backbone)
    probing = time.monotonic() - before
    advice = advise(evidence, chain, prefer=settings.prefer, seed=settings.seed)
    ready = Prepared(settings, backbone, data, data, data.subset([]), fold_of, notes, scale_of(data), asked)
    material = _material(ready, store, features)
    with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
        plan = Plan()
        job = Job(ready, RunFolder(Path(folder), {}), plan, store, console, began)
        keeps = depths_to_try(job, evidence, advice, keep)
        if len(keeps) == 1:
            plan.decide("keep", lambda: (keep, asked) if keep else (advice.keep, advice.reason))
        material, keeps, scored = settle_taps(job, material, keeps, evidence, probing=probing)
        job.calibration = Calibration.of_probe(scored[keeps[0]], scored.targets)
        graft, _, _ = job.settle(material, keeps, scored, advice.reason)
    graft.head.finished(job.calibration.temperature, ready.scale, is_ordered=data.is_ordered)
    reasons = {name: plan.reason(name) for name in plan.decisions}
    return FittedOnAll(graft.eval(), evidence, advice, job.calibration, settings, reasons)


def _material(ready: Prepared, store: Store, features: Features) -> search.Material:
    return search.Material(
        backbone=ready.backbone,
        data=ready.data,
        store=store,
        settings=ready.settings,
        features=features,
        targets=ready.targets,
        rows=np.flatnonzero(ready.fold_of != 0).tolist(),
        validation=np.flatnonzero(ready.fold_of == 0).tolist(),
    )


def _frozen(
    data: Data,
    backbone: Backbone,
    settings: Settings,
    store: Store,
    features: Features,
    keep: int,
    *,
    reason: str,
) -> FittedOnAll:
    """The probe's head on every example, without anything measured on folds."""
    no_folds = np.ones(len(data), dtype=np.int64)
    nobody = Prepared(settings, backbone, data, data, data.subset([]), no_folds, (), scale_of(data))
    cuts = resolve_taps(settings.taps, backbone.chain, backbone.source, keep) or ()
    nobody = replace(nobody, backbone=with_taps(backbone, cuts))
    graft = search.frozen_graft(_material(nobody, store, side_by_side(features, keep, cuts)), keep)
    graft.head.finished(1.0, nobody.scale, is_ordered=data.is_ordered)
    reasons = {"keep": reason, "freeze": f"{reason}, so that only the head is new"}
    return FittedOnAll(graft.eval(), None, None, NOT_CALIBRATED, settings, reasons)


def logits_of(
    model: Model, data: Data, *, backbone: Backbone | None = None, store: Store | None = None
) -> Array:
    """Logits ``(n, classes)`` float64 of examples.

    Parameters
    ----------
    model
        What :meth:`FittedOnAll.model` gave.
    data
        Of the same kind as those that it was fitted on.
    backbone, store
        Where both are given and nothing but the head is new, activations come from the one pass: those that
        the store has are not computed again, and the others are stored. Else the kept blocks run.
    """
    graft = model.graft
    if backbone is not None and store is not None and graft.freeze == graft.keep:
        features, _ = one_pass(backbone, data, store, engine=usable(model.engine), precision=model.precision)
        return head_logits(graft.head, side_by_side(features, graft.keep, graft.taps).cuts[graft.keep])
    predictor = Predictor(model, store=store)
    return (
        _side_by_side(data, lambda rows: predictor.logits(batch_of(model.preprocess, data, rows)))
        .double()
        .numpy()
    )


def head_logits(head: nn.Module, features: Tensor) -> Array:
    """Logits ``(n, classes)`` in float64, so that an example's do not depend on those beside it."""
    with torch.inference_mode():
        logits: Tensor = copy.deepcopy(head).cpu().double().eval()(features.double())
    return logits.numpy()


def features_at(
    backbone: Backbone, keep: int, data: Data, store: Store | None, *, engine: str, precision: str
) -> Array:
    """Pooled features ``(n, width)`` float32 at a cut: from the one pass, or without a store live.

    Parameters
    ----------
    backbone
        Reads the examples.
    keep
        The cut.
    data
        The examples.
    store
        Where activations at every cut are kept; with ``None`` nothing is kept, and later blocks do not run.
    engine, precision
        Of the blocks.
    """
    if store is not None:
        found, _ = one_pass(backbone, data, store, engine=engine, precision=precision)
        return found.cuts[keep].numpy()
    runner = engine_of(backbone.chain[:keep], name=engine, precision=precision)
    layouts = {block.index: block.layout for block in backbone.chain.blocks[:keep]}
    return _side_by_side(
        data, lambda rows: runner.pooled(batch_of(backbone.preprocess, data, rows), layouts)[keep]
    ).numpy()


def _side_by_side(data: Data, work: Callable[[list[int]], Tensor]) -> Tensor:
    """One row an example, in the order of the data, from batches that run side by side."""
    chunks = batches(data, range(len(data)), batch_size=BATCH)
    with single_threaded() as cores:
        made = torch.cat(list(in_order(work, chunks, workers=cores)))
    rows = torch.empty_like(made)
    rows[[i for chunk in chunks for i in chunk]] = made
    return rows
