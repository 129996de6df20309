"""Are the gradients healthy? Readings of single steps, block by block, and a verdict for each block."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HEALTHY, VANISHING, EXPLODING, DEAD, STILL = "healthy", "vanishing", "exploding", "dead", "barely moving"
VERDICTS = (HEALTHY, VANISHING, EXPLODING, DEAD, STILL)
VANISHED = 1e-5
"""Relative gradient of a block, as a share of the largest block's, below which it has vanished."""
EXPLODED = 10.0
"""Relative gradient above which a block explodes: a gradient ten times as large as the weights."""
TOO_FAR = 0.1
"""Update-to-weight ratio above which a step throws the weights away."""
TOO_SHORT = 1e-5
"""Update-to-weight ratio below which nothing moves: a hundredth of the usual 1e-3."""
USUAL = 1e-3
"""Update-to-weight ratio that goes well."""
SILENT = 0.9
"""Share of rectified units that are silent above which a block is dead."""
SATURATED = 0.75
"""Share of sigmoid and tanh outputs at their bounds above which a block is dead."""
STRANGE = 3.0
"""How many times larger the relative gradients of the first third are where inputs look strange."""


@dataclass(frozen=True)
class Reading:
    """One block in one step of a training.

    Parameters
    ----------
    step
        From 0.
    block
        Its number in the chain, from 1; the head is one more than the kept blocks.
    gradient
        Norm of the gradient of the loss in the block's parameters that train, before clipping.
    relative
        The same over the norm of the parameters (RGN, Lee et al. 2023).
    update
        Norm of what the step changed over the norm of the parameters.
    share
        Share of the peak rate at this step.
    signal
        Signal-to-noise ratio of the gradient over the last steps; ``None`` where there are too few.
    dead, saturated
        Share of the block's rectified units that are zero for the whole batch, and of its sigmoid and tanh
        outputs within a hundredth of their bounds; ``None`` where there are no such units.
    bad
        Numbers of the gradient that are not finite.
    """

    step: int
    block: int
    gradient: float
    relative: float
    update: float
    share: float
    signal: float | None = None
    dead: float | None = None
    saturated: float | None = None
    bad: int = 0


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on a block.

    Parameters
    ----------
    block
        Its number; the head is one more than the kept blocks.
    name
        Its name.
    verdict
        One of :data:`VERDICTS`.
    why
        The numbers, in words; empty where the block is healthy.
    remedy
        What to do, in words; empty where the block is healthy.
    options
        The same as settings of a fit (``rate``, ``clip``, ``freeze``, ``normalise``).
    """

    block: int
    name: str
    verdict: str
    why: str = ""
    remedy: str = ""
    options: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "options": dict(self.options)}


@dataclass(frozen=True)
class Typical:
    """A block over all the steps that were read."""

    block: int
    relative: float
    update: float
    bad: int
    dead: float
    saturated: float
    dead_at_first: float


def typical(readings: Sequence[Reading], block: int) -> Typical:
    """Medians of a block's readings; of its updates the largest, since the rate rises and falls."""
    own = sorted((r for r in readings if r.block == block), key=lambda r: r.step)
    finite = [r for r in own if math.isfinite(r.relative) and not r.bad]

    def middle(numbers: Sequence[float | None]) -> float:
        known = [n for n in numbers if n is not None]
        return statistics.median(known) if known else 0.0

    return Typical(
        block=block,
        relative=middle([r.relative for r in finite]),
        update=max((r.update for r in finite if math.isfinite(r.update)), default=0.0),
        bad=sum(r.bad for r in own),
        dead=middle([r.dead for r in own]),
        saturated=middle([r.saturated for r in own]),
        dead_at_first=own[0].dead or 0.0,
    )


def diagnose(
    readings: Sequence[Reading],
    names: Mapping[int, str],
    *,
    rate: float,
    clip: float,
    head: int = 0,
    normalised: bool = False,
) -> list[Diagnosis]:
    """A verdict for each block that was read, in the order of the blocks.

    Parameters
    ----------
    readings
        Of one training.
    names
        Of the blocks, by number.
    rate, clip
        Peak learning rate and largest gradient norm of that training.
    head
        Number of a head that started at a solution, and need not move from there; 0 where there is none.
    normalised
        Whether the head learned on standardised features already.

    Returns
    -------
    list of Diagnosis
        Empty where nothing was read.

    Notes
    -----
    The first that applies. *Exploding*: numbers that are not finite, an update of over a tenth of the
    weights, or a median relative gradient over 10. *Dead*: over nine tenths of the rectified units silent in
    a whole batch, or three quarters of the sigmoid and tanh outputs at their bounds. *Vanishing*: a median
    relative gradient under 1e-5 of the largest block's. *Barely moving*: no update over 1e-5 of the weights.

    References
    ----------
    Vanishing gradients and saturation: Glorot & Bengio (2010), Understanding the difficulty of training
    deep feedforward neural networks. Exploding ones, and clipping: Pascanu et al. (2013), On the difficulty
    of training recurrent neural networks. Updates of about 1e-3 of the weights: Karpathy, Stanford CS231n,
    Neural Networks Part 3. Dead units: Lu et al. (2020), Dying ReLU and Initialization. Relative gradient
    norm: Lee et al. (2023), Surgical Fine-Tuning Improves Adaptation to Distribution Shifts.

    Examples
    --------
    >>> steps = [Reading(0, 1, 1e-9, 1e-9, 1e-3, 1.0), Reading(0, 2, 0.1, 0.1, 1e-3, 1.0)]
    >>> [d.verdict for d in diagnose(steps, {1: "stem", 2: "head"}, rate=1e-3, clip=1.0)]
    ['vanishing', 'healthy']
    """
    blocks = [typical(readings, block) for block in sorted({r.block for r in readings})]
    largest = max((b.relative for b in blocks), default=0.0)
    vanished = [b.block for b in blocks if b.relative < VANISHED * largest]
    first = blocks[0].block if blocks else 0
    through = _unbroken(vanished, first)
    found = [_verdict(b, names[b.block], largest, through, rate, clip, normalised=normalised) for b in blocks]
    return [
        Diagnosis(d.block, d.name, HEALTHY) if d.block == head and d.verdict == STILL else d for d in found
    ]


def _unbroken(blocks: Sequence[int], first: int) -> int | None:
    """The last of the blocks that follow one another from the first; ``None`` if the first is not there."""
    last = None
    while first in blocks:
        last, first = first, first + 1
    return last


def _verdict(
    block: Typical,
    name: str,
    largest: float,
    through: int | None,
    rate: float,
    clip: float,
    *,
    normalised: bool,
) -> Diagnosis:
    def sick(verdict: str, why: str, remedy: str, **options: float) -> Diagnosis:
        return Diagnosis(block.block, name, verdict, why, remedy, options)

    if block.bad:
        lower = _rounded(rate / 10)
        why = f"{block.bad:,} numbers of its gradients are not finite"
        return sick(EXPLODING, why, f"lower the rate (--rate {lower:g}) and warm up longer", rate=lower)
    if block.update > TOO_FAR:
        lower = _rounded(rate * USUAL / block.update)
        why = f"a step changes it by up to {_percent(block.update)} of its weights; 0.1 % goes well"
        return sick(EXPLODING, why, f"lower the rate (--rate {lower:g})", rate=lower)
    if block.relative > EXPLODED:
        why = f"its gradient is {block.relative:.2g} times as large as its weights"
        remedy, options = _against_gain(clip, normalised=normalised)
        return sick(EXPLODING, why, remedy, **options)
    if block.dead > SILENT:
        why = f"{_percent(block.dead)} of its rectified units are silent whatever the input"
        if block.dead_at_first > SILENT:
            return sick(DEAD, f"{why}, from the start", "they came so: check the weights that were loaded")
        lower = _rounded(rate / 10)
        return sick(DEAD, why, f"lower the rate (--rate {lower:g}) and warm up longer", rate=lower)
    if block.saturated > SATURATED:
        lower = _rounded(rate / 10)
        why = f"{_percent(block.saturated)} of its sigmoid and tanh outputs stand at their bounds"
        return sick(DEAD, why, f"lower the rate (--rate {lower:g})", rate=lower)
    if block.relative < VANISHED * largest:
        why = f"its relative gradient is {block.relative / largest:.0e} of the largest block's"
        if through is not None and block.block <= through:
            return sick(VANISHING, why, f"freeze it, nothing reaches it (--freeze {through})", freeze=through)
        return sick(VANISHING, why, "its output hardly counts: check the weights that were loaded")
    if block.update < TOO_SHORT:
        higher = _rounded(rate * USUAL / max(block.update, 1e-12))
        why = f"no step changes it by more than {block.update:.0e} of its weights; 1e-3 goes well"
        remedy = f"raise the rate (--rate {min(higher, 10 * rate):g}), or freeze it"
        return sick(STILL, why, remedy, rate=min(higher, 10 * rate))
    return Diagnosis(block.block, name, HEALTHY)


def _against_gain(clip: float, *, normalised: bool) -> tuple[str, dict[str, float]]:
    """What helps where gradients are large, in words and as settings: what was not done yet."""
    if clip > 1:
        return "clip gradients (--clip 1)", {"clip": 1.0}
    if not normalised:
        return "normalise what the head reads (--normalise)", {"normalise": True}
    return "normalise what goes into it: --tune-norms, or a network with norms", {}


def inputs_look_strange(readings: Sequence[Reading], head: int) -> float | None:
    """How many times larger relative gradients are in the first third of the blocks than in the last.

    Parameters
    ----------
    readings
        Of one training.
    head
        Number of the head, which is left out.

    Returns
    -------
    float or None
        Only where it is over 3: a sign that the inputs differ from what the backbone knew, for which early
        blocks are best tuned (Lee et al. 2023). ``None`` with fewer than three blocks.
    """
    blocks = [typical(readings, block) for block in sorted({r.block for r in readings} - {head})]
    third = len(blocks) // 3
    if not third:
        return None
    early = statistics.median(b.relative for b in blocks[:third])
    late = statistics.median(b.relative for b in blocks[-third:])
    return early / late if late > 0 and early > STRANGE * late else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _rounded(rate: float) -> float:
    """To one digit, as people write rates.

    Examples
    --------
    >>> _rounded(0.000347)
    0.0003
    """
    return float(f"{rate:.0e}")
