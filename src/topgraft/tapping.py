"""Whether the head reads earlier cuts, too: measured on the same folds as the depth, decided once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from topgraft import search
from topgraft.evidence import Evidence
from topgraft.taps import (
    TapsAdvice,
    advise_taps,
    resolve_taps,
    said_of_taps,
    side_by_side,
    taps_in_words,
    usual_taps,
    with_taps,
)
from topgraft.underway import Underway

SPENT = 0.1
"""Share of the time left that measuring may take."""


def settle_taps(
    at: Underway, material: search.Material, keeps: Sequence[int], evidence: Evidence, *, probing: float
) -> tuple[search.Material, tuple[int, ...], Evidence]:
    """Decide which taps the head has, and give what trainings and their judges then go by.

    Where neither they nor both of keep and freeze are given, those of :func:`topgraft.taps.usual_taps` are
    scored on the folds that the depth was measured on, and taken where they lower the loss by more than the
    error of the difference.

    Parameters
    ----------
    at
        The fit under way; its backbone is the tapped one afterwards.
    material
        What trainings share, without taps.
    keeps
        Depths that are open; taps are measured at the first, and where they are taken it is the only one.
    evidence
        Of every cut, without taps.
    probing
        Seconds that measuring took, for all cuts.

    Returns
    -------
    Material, tuple of int, Evidence
        What trainings share, the depths that are still open, and the probes, with the taps.
    """
    chain, features, keep = material.backbone.chain, material.features, keeps[0]
    asked = resolve_taps(at.settings.taps, chain, material.backbone.source, keep)
    decided = at.settings.is_decided
    cuts = usual_taps(keep) if asked is None else asked
    measured: tuple[search.Material, TapsAdvice] | None = None

    def score(cuts: tuple[int, ...]) -> tuple[search.Material, TapsAdvice]:
        began, backbone = time.monotonic(), with_taps(material.backbone, cuts)
        joined = side_by_side(features, keep, cuts)
        found = advise_taps(backbone.chain, joined, keep, evidence)
        at.ledger.spend("probes", seconds=time.monotonic() - began)
        return replace(material, backbone=backbone, features=joined), found

    def choose() -> tuple[list[int], str]:
        nonlocal measured
        if asked is not None:
            return list(cuts), "as asked"
        if decided:
            return [], "keep and freeze were given, and no taps"
        if at.plan.is_repeat:
            return [], "the plan has none"
        if not cuts:
            return [], "there is no earlier cut"
        widths = {cut: x.shape[1] for cut, x in features.cuts.items()}
        share = sum(widths[cut] for cut in (keep, *cuts)) / sum(widths.values())
        if probing * share > SPENT * at.left:
            at.skipped.append("a head that reads earlier cuts: no time")
            return [], at.skipped[-1]
        measured = score(cuts)
        advice = measured[1]
        at.console.line("Taps", said_of_taps(chain, advice))
        return list(cuts) if advice.worth else [], advice.reason

    taken = tuple(at.plan.decide("taps", choose))
    if not taken:
        return material, tuple(keeps), evidence
    if measured is None:
        reason = at.plan.reason("taps")
        at.console.line("Taps", f"the head also reads cuts {taps_in_words(chain, taken)}: {reason}")
        measured = score(taken)
    material, advice = measured
    at.ready = replace(at.ready, backbone=material.backbone)
    return material, (keep,), advice.evidence
