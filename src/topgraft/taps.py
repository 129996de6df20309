"""Taps: earlier cuts whose pooled activations the head reads beside those of the last kept block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.types import Backbone
from topgraft.chain import Block, Chain, Pool
from topgraft.choices import AUTO, resolve_keep
from topgraft.errors import TopgraftError
from topgraft.evidence import Evidence, Features, paired_gain
from topgraft.mapped import room
from topgraft.pooling import Pooling, width
from topgraft.probe import probe

NONE = "none"
SHARES = (0.25, 0.5, 0.75)
"""Of the kept blocks, after which the usual taps are."""


def usual_taps(keep: int) -> tuple[int, ...]:
    """The cuts that are tried beside the last kept block: after a quarter, half and three quarters of them.

    Examples
    --------
    >>> usual_taps(18), usual_taps(7), usual_taps(2), usual_taps(1)
    ((4, 9, 14), (2, 4, 5), (1,), ())
    """
    found = {round(share * keep) for share in SHARES}
    return tuple(sorted(cut for cut in found if 0 < cut < keep))


def resolve_taps(given: str, chain: Chain, source: str, keep: int) -> tuple[int, ...] | None:
    """The cuts that ``--taps`` means; ``None`` for ``auto``.

    Parameters
    ----------
    given
        ``auto``, ``none``, or counts and names of blocks with commas between them.
    chain, source
        Of the backbone.
    keep
        Blocks kept; a tap is before the last of them.

    Raises
    ------
    TopgraftError
        If one is out of range or names no block.
    """
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not words or words == [NONE]:
        return ()
    if words == [AUTO]:
        return None
    cuts = set()
    for word in words:
        cut = resolve_keep(word, chain, source)
        if cut is None or cut >= keep:
            raise TopgraftError(
                f"taps={given}: {word} is not before the last of the {keep} kept blocks of {source}. "
                f"Give {AUTO}, {NONE}, or counts from 1 to {keep - 1} or names of blocks, such as 4,9."
            )
        cuts.add(cut)
    return tuple(sorted(cuts))


def tapped(chain: Chain, cuts: Sequence[int]) -> Chain:
    """The same chain, whose states carry along what was pooled at earlier cuts.

    A state after block b has, behind its own activations, one ``vector`` for each cut before b, earliest
    first; so has its layout. Everything that reads states (storing, mixing, pooling, heads) takes them as
    activations like any other. Weights and blocks are shared.

    Parameters
    ----------
    chain
        With or without taps, which are replaced.
    cuts
        Numbers of blocks after which the taps are; none for a chain without.

    References
    ----------
    Heads on features of several depths: Evci et al. (2022), Head2Toe.

    Examples
    --------
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> chain = Chain.of(network, torch.randn(2, 4))
    >>> state = tapped(chain, [1])[:2](torch.randn(5, 4))
    >>> [tuple(t.shape) for t in state.tensors]
    [(5, 6), (5, 8)]
    """
    cuts = sorted(set(cuts))
    blocks = [_without(block, len(_before(chain, block.index))) for block in chain]
    widths = {cut: width(blocks[cut - 1]) for cut in cuts}
    pools: dict[int, Pool] = {cut: Pooling(blocks[cut - 1].layout) for cut in cuts}
    carrying = []
    for block in blocks:
        before_it = [cut for cut in cuts if cut < block.index]
        layout = "+".join([block.layout, *("vector" for _ in before_it)])
        carrying.append(
            replace(block, layout=layout, others=(*block.others, *((widths[cut],) for cut in before_it)))
        )
    return Chain(
        chain.network, carrying, replace(chain.anatomy, taps=pools), chain.refused, example=chain.example
    )


def _before(chain: Chain, cut: int) -> list[int]:
    """The taps of a chain before a cut."""
    return [tap for tap in chain.taps if tap < cut]


def _without(block: Block, carried: int) -> Block:
    """A block as it is in the chain without taps, of which its state carries so many."""
    layout = "+".join(block.layout.split("+")[: len(block.shapes) - carried])
    return replace(block, layout=layout, others=block.others[: len(block.others) - carried])


def with_taps(backbone: Backbone, cuts: Sequence[int]) -> Backbone:
    """A backbone whose chain is :func:`tapped`."""
    return replace(backbone, chain=tapped(backbone.chain, cuts))


def side_by_side(features: Features, keep: int, cuts: Sequence[int]) -> Features:
    """Features whose last kept cut has those of the taps behind its own, as the tapped chain pools them."""
    if not cuts:
        return features
    parts = [features.cuts[cut] for cut in (keep, *cuts)]
    joined = torch.from_numpy(room((len(parts[0]), sum(part.shape[1] for part in parts)), np.float32))
    begin = 0
    for part in parts:
        joined[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]
    return replace(features, cuts={**features.cuts, keep: joined})


def emphasis(chain: Chain, keep: int) -> Tensor | None:
    """How much each standardised feature of a tapped cut counts in a probe, ``(width,)``; ``None`` untapped.

    A cut has as many columns as its network gave it: with every column the same, a tap of few channels would
    say next to nothing; with every cut the same, its few columns would be hardly penalised. This is the mean
    of the two (geometric): the fourth root of the share of columns.
    """
    count = len(_before(chain, keep))
    if not count:
        return None
    block = chain.blocks[keep - 1]
    widths = [shape[0] for shape in block.others[-count:]]
    own = width(block) - sum(widths)
    return torch.cat([torch.full((size,), math.sqrt(math.sqrt(own / size))) for size in (own, *widths)])


@dataclass(frozen=True)
class TapsAdvice:
    """What a head that also reads earlier cuts measured, beside one that does not.

    Parameters
    ----------
    keep
        Blocks kept.
    cuts
        After which it also reads.
    evidence
        In which the last kept cut is scored with them; all other cuts as they were.
    gain, error
        By how much the out-of-fold loss is lower, in nats, and the standard error of that.
    reason
        In words.
    """

    keep: int
    cuts: tuple[int, ...]
    evidence: Evidence
    gain: float
    error: float
    reason: str

    @property
    def worth(self) -> bool:
        """Whether the gain is over its error."""
        return self.gain > self.error

    def to_json(self) -> dict[str, Any]:
        """What was measured, without each example's."""
        scored = self.evidence[self.keep]
        told = {name: getattr(scored, name) for name in ("score", "low", "high", "loss")}
        told |= {name: getattr(self, name) for name in ("gain", "error", "worth", "reason")}
        return {"cuts": list(self.cuts), **told}


def advise_taps(chain: Chain, features: Features, keep: int, evidence: Evidence) -> TapsAdvice:
    """Score the last kept cut with taps, on the same folds, and compare.

    Parameters
    ----------
    chain
        :func:`tapped` before ``keep``.
    features
        :func:`side_by_side`.
    keep
        Blocks kept.
    evidence
        Of every cut, without taps.
    """
    weight = emphasis(chain, keep)
    assert weight is not None
    found = probe(
        Features({keep: features.cuts[keep]}, features.key),
        evidence.targets,
        evidence.fold_of,
        evidence.classes,
        emphasis={keep: weight},
        groups=evidence.groups,
    )
    plain, with_them = evidence[keep], found.cuts[0]
    both = replace(evidence, cuts=tuple(with_them if cut.keep == keep else cut for cut in evidence.cuts))
    gain, error = paired_gain(plain.losses, with_them.losses)
    said = (
        f"loss {with_them.loss:.3f} instead of {plain.loss:.3f} (a gain of {gain:.3f} ± {error:.3f}), "
        f"score {100 * with_them.score:.1f} % instead of {100 * plain.score:.1f} %"
    )
    return TapsAdvice(keep, tuple(_before(chain, keep)), both, gain, error, said)


def said_of_taps(chain: Chain, advice: TapsAdvice) -> str:
    """The line on taps, as a person reads it."""
    if not advice.worth:
        return f"none; cuts {', '.join(map(str, advice.cuts))} gain nothing: {advice.reason}"
    return f"the head also reads cuts {taps_in_words(chain, advice.cuts)}: {advice.reason}"


def taps_in_words(chain: Chain, cuts: Sequence[int]) -> str:
    """``4 (blocks.1.2), 9 (blocks.3.1)``."""
    return ", ".join(f"{cut} ({chain.blocks[cut - 1].name})" for cut in cuts)
