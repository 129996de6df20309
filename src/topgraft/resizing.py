"""How pictures are brought to the network's size: as the weights were made, or squashed where that is better.

Most networks were trained on the middle of a picture, which is cut out of it. Where what tells the classes
apart reaches to the edges, that loses it; a picture that is stretched to the network's size shows all of
itself, out of shape. Which is better depends on the pictures, so both are measured on the folds of the depth.
(fastai offers the same choice by hand, as ``ResizeMethod``, and timm as ``crop_mode``.)
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.backbones.types import PRETRAINED, Backbone
from topgraft.choices import AUTO
from topgraft.data.splits import strata
from topgraft.data.types import Data
from topgraft.evidence import CutEvidence, Features, paired_gain
from topgraft.features.passes import one_pass, pooled_shelf
from topgraft.features.store import Store
from topgraft.objective import encoded, scale_of
from topgraft.probe import probe
from topgraft.settings import Settings
from topgraft.underway import Underway

SQUASH = "squash"
LEAST, MOST = 200, 2000
"""Pictures that both ways are measured on, unless there are fewer at all."""
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
        For the way of the weights and for squashing: how many of the pictures were not stored before and are
        now, and in how many seconds the network ran.
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


def affordable(count: int, *, example: float, left: float) -> int:
    """How many of ``count`` pictures are measured, 0 if there is no time.

    Where all of them are, only the way that is not taken costs anything: the other's are those of the one
    pass.

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
    if count <= min(MOST, possible):
        return count
    some = min(MOST, int(possible / 2))
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
        Where activations are kept, those of a sample excepted.
    settings
        With engine and precision decided.
    most
        Examples measured, evenly from first to last; see :func:`affordable`.
    advance
        Told of progress, in examples.

    Returns
    -------
    ResizeAdvice or None
        ``None`` if a sample lacks examples of a class in two folds.
    """
    if most < len(data):
        rows = np.unique(np.linspace(0, len(data) - 1, most).astype(int))
        data, fold_of = data.subset(rows), fold_of[rows]
        with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
            # batches of a sample are not those of the one pass, whose every bit a repeat must find again
            return _advise(backbone, data, fold_of, Store(Path(folder)), settings, advance, kept=False)
    return _advise(backbone, data, fold_of, store, settings, advance, kept=True)


def _advise(
    backbone: Backbone,
    data: Data,
    fold_of: Array,
    store: Store,
    settings: Settings,
    advance: Callable[[int], None] | None,
    *,
    kept: bool,
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
        features, reused = one_pass(
            one, data, store, engine=settings.engine, precision=settings.precision, advance=advance
        )
        fresh.append((len(data) - reused, time.monotonic() - began) if kept else (0, 0.0))
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
        if reason := _why_not(at):
            return PRETRAINED, reason
        example = at.costs.speed.example
        most = affordable(len(ready.development), example=example, left=at.left)
        if not most:
            at.skipped.append("measuring whether pictures are better squashed: no time")
            return PRETRAINED, at.skipped[-1]
        return measured(most, example)

    def measured(most: int, example: float) -> tuple[str, str]:
        nonlocal advice
        squashed = pooled_shelf(
            ready.backbone.resized(SQUASH), at.store, engine=settings.engine, precision=settings.precision
        )
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
        at.ledger.predict("resizing", seconds=example * most * (1 if most == len(ready.development) else 2))
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


def _why_not(at: Underway) -> str | None:
    """Why nothing is to be measured, if so."""
    settings = at.settings
    if not can_be_squashed(at.ready.backbone):
        return "nothing is cut off" if at.ready.backbone.modality == "picture" else "these are no pictures"
    if AUTO not in (settings.keep, settings.freeze):
        return "keep and freeze were given, and nothing else"
    if at.plan.is_repeat:
        return "the plan says nothing else"
    return None
