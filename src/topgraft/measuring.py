"""The command that measures every depth and saves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from topgraft.backbones.types import PRETRAINED, Backbone
from topgraft.choices import AUTO
from topgraft.console import Console
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.evidence import Features
from topgraft.features.store import Store
from topgraft.forecast import foretell
from topgraft.kept_evidence import probe_all
from topgraft.resizing import ResizeAdvice, advise_resize, can_be_squashed, most_measured
from topgraft.rivals import (
    advise_backbone,
    measure_rivals,
    must_be_open,
    must_differ,
    rivals_json,
    rivals_table,
)
from topgraft.settings import Settings
from topgraft.show import backbone_lines, data_lines, evidence_table, probe_json
from topgraft.stages import (
    Prepared,
    advise,
    development_of,
    engine_for,
    engine_in_words,
    load_for,
    measure,
    prepare,
    reuse,
    time_one_batch,
)
from topgraft.taps import TapsAdvice, advise_taps, said_of_taps, side_by_side, tapped, usual_taps
from topgraft.transferability import Secondary, secondary


def run_probe(
    data: Data,
    settings: Settings,
    *,
    backbones: Sequence[str] = (),
    test: Any,
    allow_overlap: bool,
    dry_run: bool,
    timed: bool,
    began: float,
    console: Console,
) -> dict[str, Any]:
    """Probe every cut on the part of the data that choices may use, and show it.

    Parameters
    ----------
    data
        All examples.
    settings
        As for a fit.
    backbones
        Names; the packaged one for the data when none is given. Several are compared.
    test, allow_overlap
        A separate test set, see :func:`topgraft.data.read_test`.
    dry_run
        Whether to say what it costs, and stop.
    timed
        Whether what an earlier run saved is wanted in seconds, for which a batch is run where need be.
    began
        ``time.monotonic()`` at the start.
    console
        Where results and progress go.

    Returns
    -------
    dict
        The fixed form of ``probe --json``, or the forecast.
    """
    store = Store()
    if len(backbones) > 1:
        must_be_open(settings, None)
    known = development_of(data, settings, test)
    names: list[str | None] = list(backbones) or [settings.backbone]
    networks = [load_for(data, replace(settings, backbone=name), learned_from=known) for name in names]
    must_differ(networks)
    backbone = networks[0]
    ready = prepare(data, backbone, settings, test=test, allow_overlap=allow_overlap, watch=console.reading)
    for network in networks:
        backbone_lines(console, network)
    data_lines(console, data, untouched=f"{len(ready.untouched):,} kept untouched for the final score")
    if ready.notes:
        console.line("Folds", *ready.notes)
    if ready.in_windows:
        console.line("Windows", ready.in_windows)
    if len(networks) > 1:
        if dry_run:
            raise TopgraftError(f"--dry-run is for one backbone at a time; {len(networks)} were given.")
        return _several(ready, networks, store, console)
    if dry_run:
        return foretell(ready, store, console, began=began, choices=False).to_json()
    resized, ready, settings = _settle_resize(ready, store, console)
    begun = (0, 0.0) if resized is None else resized.fresh[resized.worth]
    backbone = ready.backbone
    features, passed = measure(backbone, ready.development, store, settings, console, begun=begun)
    evidence, earlier = probe_all(features, ready.development, ready.fold_of, store=store, of=backbone)
    advice = advise(evidence, backbone.chain, prefer=settings.prefer, seed=settings.seed)
    beside = _beside(features, ready)
    evidence_table(console, backbone.chain, evidence, advice, beside)
    for note in evidence.notes:
        console.line("Note", note)
    block = backbone.chain.blocks[advice.keep - 1].name
    console.line("Advice", f"keep {advice.keep} of {len(backbone.chain)} (to {block}): {advice.reason}")
    taps: TapsAdvice | None = None
    if cuts := usual_taps(advice.keep):
        joined = side_by_side(features, advice.keep, cuts)
        taps = advise_taps(tapped(backbone.chain, cuts), joined, advice.keep, evidence)
        console.line("Taps", said_of_taps(backbone.chain, taps))
    rate = passed["seconds_an_example"]
    if timed and passed["items_reused"] and not rate:
        chosen = replace(settings, engine=passed["engine"], precision=passed["precision"])
        rate = time_one_batch(backbone, ready.development, chosen, store)
    resumed = reuse("pass", passed["items_reused"], passed["items_reused"] * rate)
    if earlier is not None:
        resumed += reuse("probe", len(evidence.cuts), earlier)
    document = probe_json(backbone, evidence, advice, resumed, beside)
    beside_depth = {"resize": resized, "taps": taps}
    return document | {n: None if a is None else a.to_json() for n, a in beside_depth.items()}


def _beside(features: Features, ready: Prepared) -> Mapping[int, Secondary] | None:
    """Nearest neighbours and LogME at every cut; ``None`` where the task is another than classification."""
    if ready.data.task != "classification":
        return None
    return secondary(features, np.asarray(ready.development.targets), ready.fold_of, seed=ready.settings.seed)


def _settle_resize(
    ready: Prepared, store: Store, console: Console
) -> tuple[ResizeAdvice | None, Prepared, Settings]:
    """Measure how pictures are brought to size, where that is open; the backbone that does so."""
    settings = ready.settings
    if settings.resize != AUTO or not can_be_squashed(ready.backbone):
        return None, ready, settings
    choice = engine_for(ready.backbone, ready.development, store, settings)
    console.line("Engine", engine_in_words(choice))
    settings = replace(settings, engine=choice.engine, precision=choice.precision)
    most = most_measured(len(ready.development))
    with console.progress("Resizing", 2 * most, "pictures") as advance:
        advice = advise_resize(
            ready.backbone,
            ready.development,
            ready.fold_of,
            store,
            settings,
            most=most,
            advance=advance,
        )
    if advice is None:
        console.line("Resizing", f"{PRETRAINED}: a sample of {most:,} pictures has too few of some class")
        return None, ready, settings
    console.line("Resizing", f"{advice.how}: {advice.reason}")
    ready = replace(ready, backbone=ready.backbone.resized(advice.how), settings=settings)
    return advice, ready, settings


def _several(ready: Prepared, networks: Sequence[Backbone], store: Store, console: Console) -> dict[str, Any]:
    """Every depth of each backbone, one table each, and the advice over all."""
    settings = ready.settings
    rivals = measure_rivals(ready, networks, store, console)
    documents = []
    for rival, summary in zip(rivals, rivals_json(rivals), strict=True):
        if rival.features is None or rival.evidence is None or rival.advice is None:
            documents.append({**summary, "cuts": []})
            continue
        beside = _beside(rival.features, ready)
        console.line("Depths", rival.backbone.source)
        evidence_table(console, rival.backbone.chain, rival.evidence, rival.advice, beside)
        own = probe_json(rival.backbone, rival.evidence, rival.advice, [], beside)
        documents.append({**summary, "cuts": own["cuts"], "advice": own["advice"]})
    advice = advise_backbone(rivals, prefer=settings.prefer, seed=settings.seed)
    rivals_table(console, rivals, advice)
    console.line("Advice", f"keep {advice.keep} of {advice.backbone}: {advice.reason}")
    return {"backbones": documents, "advice": advice.to_json()}
