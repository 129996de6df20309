"""The stages before training: data and backbone together, the one pass, the probes, the advice on depth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from topgraft.advise import DepthAdvice, advise_depth
from topgraft.backbones import load
from topgraft.backbones.row_network import is_row_network
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.backbones.types import Backbone
from topgraft.chain import Chain
from topgraft.choices import AUTO
from topgraft.console import Console
from topgraft.cutmix import must_be_pasted
from topgraft.data import assign_folds, hold_out, read_test
from topgraft.data.columns import Rows
from topgraft.data.splits import strata
from topgraft.data.types import Data, Watch
from topgraft.errors import TopgraftError
from topgraft.evidence import Evidence, Features
from topgraft.features.augmentation import must_augment
from topgraft.features.engine import engine_of
from topgraft.features.passes import one_pass
from topgraft.features.reading import batch_of
from topgraft.features.store import Store
from topgraft.features.trial import Choice, choose_engine
from topgraft.mapped import give_back
from topgraft.mixup import alpha_for
from topgraft.objective import Scale, encoded, scale_of
from topgraft.sampling import must_suit
from topgraft.settings import Settings
from topgraft.windows import must_window, windowed

Array = np.ndarray[Any, np.dtype[Any]]
AS_ASKED = "as asked"

MARGIN = (1.0, 0.02)
"""Percentage points of score and nats of loss that a cheaper depth may have measured worse than the best.

Without it, on the packaged pictures, keep 14 of 18 was advised, which 516 examples could not tell from the
best, and which was 5 points worse on average over the untouched parts of six splits.
"""


@dataclass(frozen=True)
class Prepared:
    """Data and backbone, split and ready.

    Parameters
    ----------
    settings
        As given.
    backbone
        With its chain.
    data
        All examples that were read (without a separate test set).
    development
        What choices are made on.
    untouched
        What only the final score uses.
    fold_of
        ``(len(development),)`` int64. Fold 0 is the validation part of trainings.
    notes
        Of the splitting.
    scale
        Mean and spread of the numbers to be predicted, in the development part; ``None`` for classes.
    asked
        Why keep and freeze are what the settings say.
    in_windows
        How many texts are read in windows, in words.
    """

    settings: Settings
    backbone: Backbone
    data: Data
    development: Data
    untouched: Data
    fold_of: Array
    notes: tuple[str, ...]
    scale: Scale | None = None
    asked: str = AS_ASKED
    in_windows: str = ""

    @property
    def targets(self) -> torch.Tensor:
        """Targets of the development part as training and probes take them."""
        return encoded(self.development, self.scale)


def load_for(
    data: Data,
    settings: Settings,
    *,
    given: nn.Module | Backbone | None = None,
    learned_from: Data | None = None,
) -> Backbone:
    """The backbone given or asked for, or the packaged one for this kind of data.

    Parameters
    ----------
    data
        All examples; how columns of rows fit those that the backbone knows is told in its report.
    settings
        With its name, weights and seed.
    given
        A module, or what :func:`topgraft.load` gave.
    learned_from
        The part of ``data`` that a new network for rows may know (means, categories); all of it by default.

    Raises
    ------
    TopgraftError
        If it reads another kind of data, or as :func:`topgraft.load` does.
    """
    if isinstance(given, Backbone):
        if given.modality != data.modality:
            raise TopgraftError(f"{given.source} reads {given.modality}s; the data are {data.modality}s.")
        if settings.size is not None:
            raise TopgraftError(
                f"size={settings.size} is for a backbone by name. Load this one with it: tg.load(…, size=…)."
            )
        return matched(as_resized(given, settings), data)
    source = settings.backbone if given is None else given
    rows = (learned_from or data).inputs
    is_new = isinstance(rows, Rows) and (source is None or is_row_network(source))
    found = load(
        source,
        modality=data.modality,
        weights=settings.weights,
        allow_missing=settings.allow_missing,
        size=settings.size,
        seed=settings.seed,
        example=_array_example(data),
        preprocess=RowPreprocess.of(rows) if is_new and isinstance(rows, Rows) else None,
    )
    return matched(as_resized(found, settings), data)


def matched(backbone: Backbone, data: Data) -> Backbone:
    """The backbone, whose report tells how the columns of rows fit those that it knows.

    Raises
    ------
    TopgraftError
        If they do not, see :meth:`topgraft.backbones.RowPreprocess.matched`.
    """
    known, rows = backbone.preprocess, data.inputs
    if not (isinstance(known, RowPreprocess) and isinstance(rows, Rows)):
        return backbone
    notes = (*backbone.report.notes, *known.matched(rows, data.origin))
    return replace(backbone, report=replace(backbone.report, notes=notes))


def development_of(data: Data, settings: Settings, test: Any = None) -> Data:
    """What choices are made on, and all that may be learned from: without the part kept untouched."""
    if test is not None or data.targets is None or settings.nested:
        return data
    return data.subset(hold_out(data, share=settings.held_out, seed=settings.seed)[0])


def whole_if_random(settings: Settings, backbone: Backbone) -> tuple[Settings, str]:
    """Keep and freeze where the network for rows has random values; and why they are what they are.

    There is nothing yet that a cut could keep: where nobody says otherwise, every block is kept and trained.
    """
    if not backbone.is_untrained or AUTO not in (settings.keep, settings.freeze):
        return settings, AS_ASKED
    keep, freeze = ("all" if settings.keep == AUTO else settings.keep), "0"
    return replace(settings, keep=keep, freeze=freeze if settings.freeze == AUTO else settings.freeze), (
        "the network has random values, so that every block is trained"
    )


def as_resized(backbone: Backbone, settings: Settings) -> Backbone:
    """With its pictures resized as asked; what is to be measured is as the weights were made at first."""
    return backbone if settings.resize == AUTO else backbone.resized(settings.resize)


def _array_example(data: Data) -> torch.Tensor | None:
    if data.modality != "array":
        return None
    return torch.stack([torch.as_tensor(np.asarray(data.inputs[i])) for i in range(2)]).float()


def prepare(
    data: Data,
    backbone: Backbone,
    settings: Settings,
    *,
    test: Any = None,
    allow_overlap: bool = False,
    watch: Watch | None = None,
) -> Prepared:
    """Split what is untouched from what choices are made on, and give the latter its folds."""
    alpha_for(settings.mixup, data.modality)  # refused before anything is measured
    settings, asked = whole_if_random(settings, backbone)
    must_be_pasted(settings, backbone)
    must_augment(settings, data)
    must_window(settings, backbone)
    if data.targets is None:
        raise TopgraftError(
            f"{data.origin} has no labels. Name their column (--label), or one folder a class."
        )
    if settings.nested:
        development = untouched = data
    elif test is None:
        kept, away = hold_out(data, share=settings.held_out, seed=settings.seed)
        development, untouched = data.subset(kept), data.subset(away)
    else:
        development = data
        untouched = read_test(test, data, allow_overlap=allow_overlap, watch=watch)
        matched(backbone, untouched)  # what could not be scored is refused before anything is learned
    if len(untouched) > 1 and len(np.unique(untouched.groups)) == 1:
        raise TopgraftError(
            f"All {len(untouched):,} examples for the final score are duplicates of one another or of one "
            "group, so it would say nothing of others. Add examples, or give a test set (--test)."
        )
    must_suit(settings, data)
    if settings.score:
        from topgraft.scorers import must_be_scorers

        known, wanted = np.asarray(development.targets), np.asarray(untouched.targets)
        must_be_scorers(settings.score, data.task, known, classes=len(data.classes), untouched=wanted)
    development, in_windows = windowed(development, backbone, settings.windows)
    targets, classes = strata(development)
    fold_of, _, notes = assign_folds(
        targets, development.groups, folds=settings.folds, seed=settings.seed, classes=classes
    )
    scale = scale_of(development)
    return Prepared(
        settings, backbone, data, development, untouched, fold_of, notes, scale, asked, in_windows
    )


def engine_for(backbone: Backbone, data: Data, store: Store, settings: Settings) -> Choice:
    """The engine and precision asked for, or those that a trial finds the fastest."""
    return choose_engine(backbone, data, store, engine=settings.engine, precision=settings.precision)


def planned(settings: Settings, decisions: Mapping[str, Mapping[str, Any]]) -> Settings:
    """With the engine and precision of a plan, as far as it has them."""
    return replace(settings, **{n: decisions[n]["value"] for n in ("engine", "precision") if n in decisions})


def engine_in_words(choice: Choice) -> str:
    """``openvino in bf16: …``."""
    return f"{choice.engine} in {choice.precision}: {choice.reason}"


def measure(
    backbone: Backbone,
    data: Data,
    store: Store,
    settings: Settings,
    console: Console,
    *,
    begun: tuple[int, float] = (0, 0.0),
) -> tuple[Features, dict[str, Any]]:
    """The one pass, with a progress bar; what it reused and how fast it was.

    ``begun`` says how many examples a trial has done already, and in how many seconds.
    """
    if "auto" in (settings.engine, settings.precision):
        choice = engine_for(backbone, data, store, settings)
        settings = replace(settings, engine=choice.engine, precision=choice.precision)
        console.line("Engine", engine_in_words(choice))
    began = time.monotonic()
    with console.progress("One pass", len(data), f"{len(backbone.chain)} cuts") as advance:
        features, reused = one_pass(
            backbone,
            data,
            store,
            engine=settings.engine,
            precision=settings.precision,
            advance=advance,
        )
    give_back()
    seconds = time.monotonic() - began + begun[1]
    reused -= begun[0]
    fresh = len(data) - reused
    rate = seconds / fresh if fresh else 0.0
    console.line(
        "One pass",
        f"{len(backbone.chain)} cuts of {len(data):,} examples in {seconds:.1f} s"
        + (f"; {reused:,} were stored by an earlier run" if reused else ""),
        *store.moved(),
    )
    told = {"items_reused": reused, "seconds": seconds, "seconds_an_example": rate, "fresh": fresh}
    return features, told | {"engine": settings.engine, "precision": settings.precision}


def time_one_batch(backbone: Backbone, data: Data, settings: Settings, store: Store | None = None) -> float:
    """Seconds an example takes through the whole chain, measured on a few (by PyTorch where undecided)."""
    count = min(8, len(data))
    chain = backbone.chain
    engine = engine_of(
        chain[: len(chain)],
        name=settings.engine_or_torch,
        precision=settings.precision_or_fp32,
        store=store,
    )
    began = time.monotonic()
    batch = batch_of(backbone.preprocess, data, range(count))
    engine.pooled(batch, {block.index: block.layout for block in chain})
    return (time.monotonic() - began) / count


def reuse(stage: str, items: int, seconds: float) -> list[dict[str, Any]]:
    """The entry in ``resumed`` of a stage that found ``items`` done already; none where it found nothing."""
    return [{"stage": stage, "items_reused": items, "seconds_saved": round(seconds, 3)}] if items else []


def cost_of_cuts(chain: Chain, prefer: str = "small") -> dict[int, float]:
    """Per number of blocks kept how many parameters that is; multiply-adds where ``fast`` is preferred."""
    costs = np.cumsum([block.macs if prefer == "fast" else block.parameters for block in chain])
    return {block.index: float(total) for block, total in zip(chain, costs, strict=True)}


def advise(evidence: Evidence, chain: Chain, *, prefer: str = "small", seed: int = 0) -> DepthAdvice:
    """How many blocks to keep: the cheapest cut that can't be told from the best and measured as well.

    "As well" is within :data:`MARGIN` of the best member of the set. ``prefer`` moves the choice in the set:
    ``small`` goes by parameters, ``fast`` by the work of a prediction, ``accuracy`` by the highest score.
    """
    return advise_by(evidence, cost_of_cuts(chain, prefer), prefer=prefer, seed=seed)


def advise_by(
    evidence: Evidence, cost: Mapping[int, float], *, prefer: str, seed: int, whole: float | None = None
) -> DepthAdvice:
    """:func:`advise` where the cost of each cut is known; ``whole`` is what savings are a share of."""
    if prefer == "accuracy":
        return advise_depth(evidence, cost, prefer="accuracy", whole=whole, seed=seed)
    saving = "less work in each prediction" if prefer == "fast" else "fewer parameters"
    return advise_depth(evidence, cost, saving=saving, margin=MARGIN, whole=whole, seed=seed)
