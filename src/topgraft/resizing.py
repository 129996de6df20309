"""How pictures are brought to the network's size: as the weights were made, or squashed where that is better.

Most networks were trained on the middle of a picture, which is cut out of it. Where what tells the classes
apart reaches to the edges, that loses it; a picture that is stretched to the network's size shows all of
itself, out of shape. Which is better depends on the pictures, so both are measured on the folds of the depth.
(fastai offers the same choice by hand, as ``ResizeMethod``, and timm as ``crop_mode``.)
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.backbones.types import PRETRAINED, Backbone
from topgraft.choices import AUTO
from topgraft.cost import Costs, Stage
from topgraft.data.splits import strata
from topgraft.data.types import Data
from topgraft.evidence import CutEvidence, Features, paired_gain
from topgraft.features.batching import SAMPLE, lacking
from topgraft.features.engine import BATCH
from topgraft.features.passes import one_pass, pooled_shelf
from topgraft.features.shelf import Shelf
from topgraft.features.store import Store
from topgraft.objective import encoded, scale_of
from topgraft.probe import probe
from topgraft.settings import Settings
from topgraft.stages import Prepared
from topgraft.underway import Underway

SQUASH = "squash"
LEAST, MOST = 200, SAMPLE
"""Pictures of a sample that both ways are measured on; see :func:`most_measured`."""
SPENT = 0.15
"""Share of the time left that measuring may take."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ResizeAdvice:
    """What squashing pictures measured, beside cropping them as the weights were made.

    Parameters
    ----------
    backbone
        That squashes.
    count
        Pictures measured.
    gain, error
        By how much the out-of-fold loss of a probe at the last cut is lower, in nats, and the standard error
        of that.
    reason
        In words.
    fresh
        For the way of the weights and for squashing: of how many of all pictures what the network gives was
        not stored before and is now, and in how many seconds it ran.
    """

    backbone: Backbone
    count: int
    gain: float
    error: float
    reason: str
    fresh: tuple[tuple[int, float], tuple[int, float]]

    @property
    def worth(self) -> bool:
        """Whether squashing lost less. Neither way costs more, so that the better one needs no margin."""
        return self.gain > 0

    @property
    def how(self) -> str:
        """``squash`` or ``pretrained``."""
        return SQUASH if self.worth else PRETRAINED

    def to_json(self) -> dict[str, Any]:
        """What was measured."""
        names = ("how", "count", "gain", "error", "worth", "reason")
        return {name: getattr(self, name) for name in names}


def can_be_squashed(backbone: Backbone) -> bool:
    """Whether it reads pictures of which something is cut off."""
    return isinstance(backbone.preprocess, PicturePreprocess) and backbone.preprocess.mode == "crop"


def most_measured(count: int) -> int:
    """How many of ``count`` pictures are measured where there is time: all, or a sample of many.

    Those of the way that is taken are the first of the one pass; those of the other run in vain.

    Examples
    --------
    >>> most_measured(800), most_measured(801)
    (800, 400)
    """
    return count if count <= 2 * MOST else MOST


def affordable(count: int, *, example: float, left: float) -> int:
    """How many of ``count`` pictures are measured, 0 if there is no time.

    At most :func:`most_measured`; a sample is whole batches of the one pass.

    Parameters
    ----------
    count
        Pictures that there are.
    example
        Seconds that one takes through the network.
    left
        Seconds of the budget.
    """
    possible = SPENT * left / max(example, 1e-9)
    if most_measured(count) == count <= possible:
        return count
    some = min(MOST, int(possible / BATCH) * BATCH)
    return some if LEAST <= some < count else 0


def advise_resize(
    backbone: Backbone,
    data: Data,
    fold_of: Array,
    store: Store,
    settings: Settings,
    *,
    most: int,
    advance: Callable[[int], None] | None = None,
) -> ResizeAdvice | None:
    """Score a probe at the last cut on pictures brought to size in both ways, on the same folds.

    Parameters
    ----------
    backbone
        See :func:`can_be_squashed`.
    data, fold_of
        Labelled examples and their folds ``(len(data),)``.
    store
        Where activations are kept; not those of a sample on a GPU, which runs fewer in other batches.
    settings
        With engine and precision decided.
    most
        Examples measured, the first that the one pass takes; see :func:`affordable`.
    advance
        Told of progress, in examples.

    Returns
    -------
    ResizeAdvice or None
        ``None`` if a sample lacks examples of a class in two folds.
    """
    whole, apart = data.digests, _is_apart(most, data, settings)
    if most < len(data):
        rows = _sampled(data, most)
        data, fold_of = data.subset(rows), fold_of[rows]
    if not apart:
        return _advise(backbone, data, fold_of, store, settings, advance, networks=store, whole=whole)
    with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
        own = Store(Path(folder))
        found = _advise(backbone, data, fold_of, own, settings, advance, networks=store, whole=())
    return None if found is None else replace(found, fresh=((0, 0.0), (0, 0.0)))


def _sampled(data: Data, most: int) -> list[int]:
    """The first examples that the one pass takes, spread evenly over all."""
    return lacking(data, frozenset())[:most]


def _is_apart(most: int, data: Data, settings: Settings) -> bool:
    """Whether a sample's batches are not those of the one pass, whose every bit a repeat must find again."""
    return most < len(data) and settings.engine == "cuda"


def _advise(
    backbone: Backbone,
    data: Data,
    fold_of: Array,
    store: Store,
    settings: Settings,
    advance: Callable[[int], None] | None,
    *,
    networks: Store,
    whole: Sequence[str],
) -> ResizeAdvice | None:
    targets, (parts, names) = encoded(data, scale_of(data)), strata(data)
    if parts.ndim == 1:
        pairs = np.unique(np.stack([parts, fold_of]), axis=1)
        if np.bincount(pairs[0], minlength=len(names)).min() < 2:
            return None
    both = (backbone, backbone.resized(SQUASH))
    scored: list[CutEvidence] = []
    fresh: list[tuple[int, float]] = []
    for one in both:
        began = time.monotonic()
        known = _shelf(one, store, settings).known()
        features, _ = one_pass(
            one,
            data,
            store,
            engine=settings.engine,
            precision=settings.precision,
            networks=networks,
            advance=advance,
        )
        new = set(data.digests) - known
        fresh.append((sum(digest in new for digest in whole), time.monotonic() - began))
        last = len(one.chain)
        found = probe(
            Features({last: features.cuts[last]}, features.key),
            targets,
            fold_of,
            data.logits,
            groups=data.groups,
        )
        scored.append(found.cuts[0])
    own, squashed = scored
    gain, error = paired_gain(own.losses, squashed.losses)
    said = (
        f"on {len(data):,} pictures, loss {squashed.loss:.3f} squashed, {own.loss:.3f} cropped as the "
        f"weights were made (a gain of {gain:.3f} ± {error:.3f}), score {100 * squashed.score:.1f} % and "
        f"{100 * own.score:.1f} %"
    )
    return ResizeAdvice(both[1], len(data), gain, error, said, (fresh[0], fresh[1]))


def take_up_resize(at: Underway) -> None:
    """Resize as the plan says, where it says so already."""
    if "resize" in at.plan.decisions:
        _take(at, str(at.plan.decisions["resize"]["value"]))


def _take(at: Underway, how: str) -> None:
    at.ready = replace(at.ready, backbone=at.ready.backbone.resized(how))


def settle_resize(at: Underway, begun: tuple[int, float]) -> tuple[int, float]:
    """Decide how pictures are brought to the network's size; the fit's backbone does so afterwards.

    Parameters
    ----------
    at
        The fit under way, its costs known.
    begun
        How many examples of the one pass are done, and in how many seconds, with the backbone as it is.

    Returns
    -------
    int, float
        The same, with the backbone as it is afterwards.
    """
    ready, settings = at.ready, at.settings
    advice: ResizeAdvice | None = None

    def choose() -> tuple[str, str]:
        if settings.resize != AUTO:
            return settings.resize, "as asked"
        if reason := _why_not(ready.backbone, settings, repeat=at.plan.is_repeat):
            return PRETRAINED, reason
        most = affordable(len(ready.development), example=at.costs.speed.example, left=at.left)
        if not most:
            at.skipped.append("measuring whether pictures are better squashed: no time")
            return PRETRAINED, at.skipped[-1]
        return measured(most)

    def measured(most: int) -> tuple[str, str]:
        nonlocal advice
        squashed = _squashed_shelf(ready, at.store)
        foreseen = _stage(most, ready, squashed, at.costs)
        before, began = squashed.size(), time.monotonic()
        with at.console.progress("Resizing", 2 * most, "pictures") as advance:
            advice = advise_resize(
                ready.backbone,
                ready.development,
                ready.fold_of,
                at.store,
                settings,
                most=most,
                advance=advance,
            )
        at.ledger.predict("resizing", seconds=foreseen.seconds)
        taken = 0.0 if advice is None else advice.fresh[advice.worth][1]
        at.ledger.spend("resizing", seconds=time.monotonic() - began - taken)
        if advice is None:
            return PRETRAINED, f"a sample of {most:,} pictures has too few of some class"
        grown = squashed.size() - before if advice.worth else 0.0
        at.ledger.spend("pass", seconds=taken, disk=float(grown))
        return advice.how, advice.reason

    known = "resize" in at.plan.decisions
    how = at.plan.decide("resize", choose)
    if at.ready.backbone.modality == "picture":
        at.console.line("Resizing", f"{how}: {at.plan.reason('resize')}")
    if known or how == settings.resize:
        return begun
    _take(at, how)
    if advice is None:
        return begun
    count, seconds = advice.fresh[advice.worth]
    return (count, seconds) if advice.worth else (begun[0] + count, begun[1] + seconds)


def _why_not(backbone: Backbone, settings: Settings, *, repeat: bool) -> str | None:
    """Why nothing is to be measured, if so."""
    if not can_be_squashed(backbone):
        return "nothing is cut off" if backbone.modality == "picture" else "these are no pictures"
    if settings.is_decided:
        return "keep and freeze were given, and nothing else"
    if repeat:
        return "the plan says nothing else"
    return None


def resizing_foreseen(
    ready: Prepared, store: Store, costs: Costs, *, repeat: bool, choices: bool
) -> Stage | None:
    """What measuring both ways will cost beside the pass; ``None`` where it will not be done.

    Parameters
    ----------
    ready, store
        Data and backbone, engine and precision decided, and where activations are kept.
    costs
        From a trial.
    repeat
        Whether a plan is followed.
    choices
        Whether keep and freeze are chosen, too, as by a fit; the probes alone know no budget.
    """
    settings, count = ready.settings, len(ready.development)
    if settings.resize != AUTO or not can_be_squashed(ready.backbone):
        return None
    most = most_measured(count)
    if choices:
        if _why_not(ready.backbone, settings, repeat=repeat):
            return None
        left = max(0.0, settings.budget - costs.work.spent)
        most = affordable(count, example=costs.speed.example, left=left)
    return _stage(most, ready, _squashed_shelf(ready, store), costs) if most else None


def _squashed_shelf(ready: Prepared, store: Store) -> Shelf:
    return _shelf(ready.backbone.resized(SQUASH), store, ready.settings)


def _shelf(backbone: Backbone, store: Store, settings: Settings) -> Shelf:
    return pooled_shelf(backbone, store, engine=settings.engine, precision=settings.precision)


def _stage(most: int, ready: Prepared, squashed: Shelf, costs: Costs) -> Stage:
    """Both ways, where that is not kept; else squashed, since the crops are those of the one pass."""
    data, memory = ready.development, costs.one_pass().memory
    if _is_apart(most, data, ready.settings):
        return Stage(2 * most * costs.speed.example, memory, 0.0)
    measured = data.digests if most >= len(data) else [data.digests[i] for i in _sampled(data, most)]
    fresh = len(set(measured) - squashed.known())
    return Stage(fresh * costs.speed.example, memory, fresh * costs.bytes_pooled)
