"""Which N go into the search: the depth that the probes advise, and others that they can't tell from it.

A probe scores features as they are; training changes them, and deeper blocks the more. So the depth at which
a probe does best need not be the one at which a training does, and short trainings of a few depths settle
it, as they settle M.
"""

from __future__ import annotations

from collections.abc import Sequence

from topgraft.advise import DepthAdvice
from topgraft.choices import is_open, named, share_in_words
from topgraft.evidence import Evidence
from topgraft.stages import AS_ASKED
from topgraft.underway import Underway

MOST = 3
"""Depths whose trainings are tried, the advised one included."""
APART = 1 / 9
"""Of the chain's blocks, by which two finalists differ at least: neighbours of a deep chain train alike."""


def finalists(evidence: Evidence, advice: DepthAdvice, blocks: int) -> tuple[int, ...]:
    """The advised depth, then those of the confidence set whose probes lose least.

    Parameters
    ----------
    evidence, advice
        Of the probes.
    blocks
        Of the chain.
    """
    least, chosen = max(1, round(APART * blocks)), [advice.keep]
    for keep in sorted(advice.in_set, key=lambda keep: (evidence[keep].loss, keep)):
        if len(chosen) < MOST and all(abs(keep - other) >= least for other in chosen):
            chosen.append(keep)
    return tuple(chosen)


def depths_to_try(
    at: Underway, evidence: Evidence, advice: DepthAdvice, asked: int | None
) -> tuple[int, ...]:
    """The :func:`finalists` where the depth is open; else the one that was asked for or decided before.

    The first is the depth that is kept where nothing trains. A killed fit that goes on has the same ones.
    """
    decided = at.plan.decisions.get("keep")
    if asked is None and decided is not None and (at.plan.is_repeat or "backbone" in at.plan.decisions):
        asked = int(decided["value"])
    if asked is not None:
        return (asked,)
    if at.plan.is_repeat or not is_open(at.settings.freeze):
        return (advice.keep,)
    return finalists(evidence, advice, len(at.ready.backbone.chain))


def said_of_depth(at: Underway, advice: DepthAdvice, asked: int | None, keeps: Sequence[int]) -> list[str]:
    """What the probes advise, and who decided otherwise."""
    chain = at.ready.backbone.chain
    said = [f"keep {advice.keep} of {len(chain)} (to {chain.blocks[advice.keep - 1].name}): {advice.reason}"]
    if asked is not None and at.ready.asked != AS_ASKED:
        said.append(f"Keep {named(chain, asked)}: {at.ready.asked} (--keep, --freeze).")
    elif asked is not None:
        share = share_in_words(at.settings.keep, len(chain))
        said.append(f"You decided: keep {named(chain, asked)}{f': {share}' if share else ''}.")
    elif at.plan.is_repeat:
        said.append(f"The plan says: keep {named(chain, keeps[0])}.")
    elif keeps[0] != advice.keep:
        said.append(f"Over all backbones: keep {named(chain, keeps[0])}.")
    return said
