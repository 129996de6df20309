"""Was pretraining worth it? The same blocks from random values, random features, and a simple baseline."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topgraft.backbones.types import Backbone
from topgraft.baselines import NAMES, answers, fit_baseline, raw_features
from topgraft.console import Console, counted, duration
from topgraft.curves import BASELINE, MAJORITY, PRETRAINED, RANDOM, SCRATCH, Comparison, Outcome
from topgraft.data import assign_folds
from topgraft.data.splits import deal
from topgraft.errors import TopgraftError
from topgraft.evaluating import predict_logits
from topgraft.evidence import Features
from topgraft.features.sources import LiveSource
from topgraft.features.store import Store
from topgraft.features.views import standard_augmentation
from topgraft.files import canonical_json, read_json, write_json
from topgraft.graft import Graft
from topgraft.head import Head
from topgraft.history import Recipe
from topgraft.pooling import width
from topgraft.probe import fit_head, probe
from topgraft.settings import Settings
from topgraft.stages import Prepared, advise, load_for, measure
from topgraft.train import seconds_an_example, train

SHARES = (0.1, 0.25, 0.5, 1.0)
SEEDS = 3
SPENT_ON_SCRATCH = 0.75
"""Of the time given: training from random values is what takes long."""
LONGEST, FAIR = 100, 30
"""Epochs from random values at most; with fewer than the second, fewer seeds are trained, longer."""
RATE = 1e-3
"""Peak rate of AdamW from random values: its usual one."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Arms:
    """What every way shares: data, networks, features, and what is there from before.

    Parameters
    ----------
    ready
        Data and pretrained network.
    random
        The same network with random values.
    store, console
        As for a fit.
    file
        Where outcomes are kept, so that a killed comparison goes on; nowhere when ``None``.
    began
        ``time.monotonic()`` at the start.
    """

    ready: Prepared
    random: Backbone
    store: Store
    console: Console
    file: Path | None
    began: float
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """As given."""
        return self.ready.settings

    def done(self, arm: str, share: float, seed: int) -> bool:
        """Whether this one is there already."""
        return any((o.arm, o.share, o.seed) == (arm, share, seed) for o in self.outcomes)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, on disk too where there is a file."""
        self.outcomes.append(outcome)
        if self.file is not None:
            made_from = self.made_from()
            write_json(self.file, {"made_from": made_from, "outcomes": [o.to_json() for o in self.outcomes]})

    def read(self) -> None:
        """Take up what an earlier process kept, if it was made from the same."""
        if self.file is not None and self.file.is_file():
            known = read_json(self.file)
            if canonical_json(known["made_from"]) == canonical_json(self.made_from()):
                self.outcomes = [Outcome.from_json(o) for o in known["outcomes"]]

    def made_from(self) -> dict[str, Any]:
        """What outcomes depend on."""
        return {
            "data": self.ready.data.fingerprint,
            "untouched": self.ready.untouched.fingerprint,
            "weights": self.ready.backbone.report.digest,
            "settings": self.settings.to_json(),
        }


def subset(arms: Arms, share: float, seed: int) -> Array | None:
    """Rows of the development part: a stratified share, groups whole; ``None`` where a class is too small."""
    development = arms.ready.development
    targets = np.asarray(development.targets)
    if share == 1.0:
        return np.arange(len(targets))
    part, missing = deal(
        targets, development.groups, np.array([share, 1 - share]), np.array([2, 0]), seed=seed
    )
    return None if missing else np.flatnonzero(part == 0)


def all_features(
    arms: Arms, backbone: Backbone, settings: Settings
) -> tuple[Features, Features, dict[str, Any]]:
    """Pooled activations of the development and the untouched part, and how fast the pass was."""
    features, told = measure(backbone, arms.ready.development, arms.store, settings, arms.console)
    settled = replace(settings, engine=told["engine"], precision=told["precision"])
    untouched, _ = measure(backbone, arms.ready.untouched, arms.store, settled, Console())
    return features, untouched, told


def run_pretrained(
    arms: Arms, features: Features, untouched: Features, rate: float
) -> dict[tuple[float, int], int]:
    """Depth by evidence on the share alone, everything frozen; the depth for each share and seed."""
    chain, targets = arms.ready.backbone.chain, np.asarray(arms.ready.development.targets)
    keeps = {(o.share, o.seed): o.keep for o in arms.outcomes if o.arm == PRETRAINED}
    for share, seed, rows in _draws(arms):
        if arms.done(PRETRAINED, share, seed):
            continue
        began, groups = time.monotonic(), arms.ready.development.groups[rows]
        part = Features({k: x[torch.from_numpy(rows)] for k, x in features.cuts.items()}, features.key)
        classes = len(arms.ready.data.classes)
        fold_of, _, _ = assign_folds(targets[rows], groups, folds=arms.settings.folds, seed=seed)
        evidence = probe(part, targets[rows], fold_of, classes, groups=groups)
        keep = keeps[share, seed] = advise(evidence, chain, seed=seed).keep
        _add_linear(arms, PRETRAINED, (share, seed, rows), part, untouched, keep, began - rate * len(rows))
    return keeps


def run_random(
    arms: Arms, features: Features, untouched: Features, keeps: dict[tuple[float, int], int], rate: float
) -> None:
    """The same head on the same depth of a network of random values."""
    for share, seed, rows in _draws(arms):
        if not arms.done(RANDOM, share, seed):
            part = Features({k: x[torch.from_numpy(rows)] for k, x in features.cuts.items()}, features.key)
            began = time.monotonic() - rate * len(rows)
            _add_linear(arms, RANDOM, (share, seed, rows), part, untouched, keeps[share, seed], began)


def _add_linear(
    arms: Arms,
    arm: str,
    draw: tuple[float, int, Array],
    part: Features,
    untouched: Features,
    keep: int,
    began: float,
) -> None:
    share, seed, rows = draw
    y = torch.as_tensor(np.asarray(arms.ready.development.targets)[rows])
    head = fit_head(part.cuts[keep], y, len(arms.ready.data.classes))
    seconds = time.monotonic() - began
    train_score = float((head.logits(part.cuts[keep]).argmax(1) == y).double().mean())
    said = head.logits(untouched.cuts[keep]).argmax(1).numpy()
    correct = said == np.asarray(arms.ready.untouched.targets)
    told = f"keep {keep}, all frozen"
    right = tuple(correct.tolist())
    arms.add(Outcome(arm, share, seed, len(rows), right, train_score, seconds, told, keep))


def run_simple(arms: Arms) -> None:
    """The baseline of the field, and the most frequent class."""
    ready = arms.ready
    targets, wanted = np.asarray(ready.development.targets), np.asarray(ready.untouched.targets)
    began = time.monotonic()
    features, untouched = raw_features(ready.development), raw_features(ready.untouched)
    rate = (time.monotonic() - began) / (len(targets) + len(wanted))
    for share, seed, rows in _draws(arms):
        began = time.monotonic() - rate * len(rows)
        if not arms.done(BASELINE, share, seed):
            model = fit_baseline(ready.data.modality, features[rows], targets[rows], seed=seed)
            seconds = time.monotonic() - began
            train_score = float((answers(model, features[rows]) == targets[rows]).mean())
            correct = answers(model, untouched) == wanted
            told = NAMES[ready.data.modality]
            arms.add(
                Outcome(BASELINE, share, seed, len(rows), tuple(correct.tolist()), train_score, seconds, told)
            )
        if not arms.done(MAJORITY, share, seed):
            most = int(np.bincount(targets[rows]).argmax())
            train_score = float((targets[rows] == most).mean())
            correct = wanted == most
            arms.add(Outcome(MAJORITY, share, seed, len(rows), tuple(correct.tolist()), train_score, 0.0))


def run_scratch(arms: Arms, keeps: dict[tuple[float, int], int]) -> None:
    """The same kept blocks from random values, all of them trained, for as long as the time given allows."""
    draws = [d for d in _draws(arms) if not arms.done(SCRATCH, *d[:2])]
    if not draws:
        return
    left = SPENT_ON_SCRATCH * max(1.0, arms.settings.budget - (time.monotonic() - arms.began))
    each = _seconds_of_scratch(arms, keeps[1.0, 0])
    epochs = _epochs(left, each, draws)
    if epochs < FAIR:
        first = [d for d in draws if d[1] == 0]
        if len(first) < len(draws):
            draws, epochs = first, _epochs(left, each, first)
            arms.notes.append(
                "Training from random values takes too long for several seeds: one was trained."
            )
    if epochs < FAIR:
        arms.notes.append(
            f"Training from random values had time for {counted(epochs, 'epoch')} only, less than the {FAIR} "
            "that would be fair: give a longer --budget before you believe that it lost."
        )
    arms.console.line("Scratch", f"{counted(epochs, 'epoch')} each, {1000 * each:.0f} ms an example and step")
    for draw in draws:
        _train_scratch(arms, draw, keeps[draw[0], draw[1]], epochs)


def _epochs(left: float, each: float, draws: Sequence[tuple[float, int, Array]]) -> int:
    return max(1, min(LONGEST, int(left / (each * sum(len(rows) for _, _, rows in draws)))))


def _seconds_of_scratch(arms: Arms, keep: int) -> float:
    graft, source = _scratch(arms, keep, 0)
    targets = torch.as_tensor(arms.ready.development.targets)
    recipe = Recipe(batch_size=arms.settings.batch_size)
    return seconds_an_example(graft, source, targets, range(min(64, len(targets))), recipe)


def _scratch(arms: Arms, keep: int, seed: int) -> tuple[Graft, LiveSource]:
    """Kept blocks and a head, all of random values, and the examples, changed at random where pictures."""
    ready, chain = arms.ready, arms.random.chain
    block = chain.blocks[keep - 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(block.layout, width(block), len(ready.data.classes))
    graft = Graft(chain, keep, 0, head, tune_norms=True, drop=True)
    change = standard_augmentation if ready.data.modality == "picture" else None
    return graft, LiveSource(ready.development, arms.random.preprocess, engine=None, augment=change)


def _train_scratch(arms: Arms, draw: tuple[float, int, Array], keep: int, epochs: int) -> None:
    share, seed, rows = draw
    ready = arms.ready
    targets = torch.as_tensor(ready.development.targets)
    graft, source = _scratch(arms, keep, seed)
    recipe = Recipe(
        epochs=epochs, batch_size=arms.settings.batch_size, rate=RATE, decay=1.0, weight_decay=0.05, seed=seed
    )
    began = time.monotonic()
    with arms.console.progress("Scratch", epochs, f"epochs, {len(rows):,} examples") as bar:
        train(
            graft, source, targets, rows.tolist(), recipe=recipe, advance=lambda e: bar(1 if e.number else 0)
        )
    seconds = time.monotonic() - began
    seen = predict_logits(graft, source, rows.tolist()).argmax(1)
    untouched = LiveSource(ready.untouched, arms.random.preprocess, engine=None, augment=None)
    said = predict_logits(graft, untouched, range(len(ready.untouched))).argmax(1).numpy()
    correct = said == np.asarray(ready.untouched.targets)
    train_score = float((seen == targets[rows]).double().mean())
    told = f"keep {keep}, {counted(epochs, 'epoch')}"
    arms.add(Outcome(SCRATCH, share, seed, len(rows), tuple(correct.tolist()), train_score, seconds, told))


def _draws(arms: Arms) -> Iterator[tuple[float, int, Array]]:
    """Each share and seed with its rows; everything first, so that the verdict has its numbers early."""
    for share in sorted(SHARES, reverse=True):
        for seed in range(SEEDS):
            rows = subset(arms, share, seed)
            if rows is not None:
                yield share, seed, rows


def compare(
    ready: Prepared, *, store: Store, console: Console, file: Path | None = None
) -> tuple[Comparison, list[str]]:
    """Score the pretrained network and what can be had without it, on the same untouched examples.

    Parameters
    ----------
    ready
        Data and pretrained network; ``settings.budget`` bounds the whole.
    store, console
        As for a fit.
    file
        Where outcomes are kept as they come; a killed comparison of the same data and settings goes on.

    Returns
    -------
    Comparison, list of str
        And what the time given left out, in sentences.

    Raises
    ------
    TopgraftError
        If the network has random values itself, or can't be made anew with such.
    """
    if ready.backbone.report.matched == "random":
        raise TopgraftError("The network has random values itself; there is no pretraining to compare with.")
    settings = ready.settings
    random = load_for(ready.data, replace(settings, weights="none"))
    if random.source != ready.backbone.source:
        raise TopgraftError(
            f"{ready.backbone.source} can't be made anew with random values: name it by backbone=, "
            "such as timm/NAME or package.module:function."
        )
    arms = Arms(ready, random, store, console, file, time.monotonic())
    arms.read()
    features, untouched, told = all_features(arms, ready.backbone, settings)
    rate = float(told["seconds_an_example"])
    settled = replace(settings, engine=told["engine"], precision=told["precision"])
    with _stage(console, PRETRAINED):
        keeps = run_pretrained(arms, features, untouched, rate)
    with _stage(console, BASELINE):
        run_simple(arms)
    features, untouched, told = all_features(arms, random, settled)
    with _stage(console, RANDOM):
        run_random(arms, features, untouched, keeps, float(told["seconds_an_example"]) or rate)
    run_scratch(arms, keeps)
    return Comparison(arms.outcomes, ready.untouched.groups, settings.seed), arms.notes


@contextmanager
def _stage(console: Console, arm: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    console.line("Done", f"{arm} in {duration(time.monotonic() - began)}")
