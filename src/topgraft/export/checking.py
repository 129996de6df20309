"""How far what another runtime gives is from what the graft gives in PyTorch, and how far it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from topgraft.errors import RunningError
from topgraft.graft import Graft

Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]
"""A preprocessed batch -> logits and probabilities, each ``(batch, classes)``."""


@dataclass(frozen=True)
class Difference:
    """Largest differences over a number of examples.

    Parameters
    ----------
    probabilities
        Of a probability, 0 to 1.
    logits
        Of a logit, as a share of the largest logit in size (of 1 where that is smaller).
    """

    probabilities: float
    logits: float

    def to_json(self) -> dict[str, float]:
        """Both as JSON."""
        return asdict(self)

    def is_within(self, limit: Difference) -> bool:
        """Whether neither is over its limit; what is not a number is over any."""
        return self.probabilities <= limit.probabilities and self.logits <= limit.logits


TOLERANCE = Difference(probabilities=1e-4, logits=1e-3)
"""Over this an export in fp32 is refused: far more than rounding, far less than what changes an answer."""


def apart(found: tuple[Tensor, Tensor], logits: Tensor) -> Difference:
    """How far logits and probabilities are from the given logits and their softmax.

    Examples
    --------
    >>> given = torch.tensor([[0.0, 10.0]])
    >>> apart((given + 1.0, torch.softmax(given, 1)), given)
    Difference(probabilities=0.0, logits=0.1)
    """
    expected = (logits, torch.softmax(logits, 1))
    if any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return Difference(float("inf"), float("inf"))
    of_logits, of_probabilities = (
        float((a.double() - b.double()).abs().max()) for a, b in zip(found, expected, strict=True)
    )
    scale = max(1.0, float(logits.abs().max()))
    return Difference(round_up(of_probabilities), round_up(of_logits / scale))


def round_up(number: float) -> float:
    """The number with six digits, so that what is told does not depend on the last bits."""
    return float(f"{number:.6g}")


def measured(run: Run, graft: Graft, batches: Sequence[Mapping[str, Tensor]]) -> Difference:
    """The largest difference from a graft that PyTorch runs in fp32, over all batches."""
    found = []
    for batch in batches:
        with torch.inference_mode():
            logits = graft.eval()(dict(batch)).float()
        found.append(apart(run(batch), logits))
    if any(d.probabilities != d.probabilities or d.logits != d.logits for d in found):
        return Difference(float("nan"), float("nan"))
    return Difference(max(d.probabilities for d in found), max(d.logits for d in found))


def must_hold(difference: Difference, runtime: str) -> None:
    """Refuse an export that computes something else.

    Raises
    ------
    RunningError
        If it differs by more than :data:`TOLERANCE`.
    """
    if not difference.is_within(TOLERANCE):
        raise RunningError(
            f"{runtime} computes something else than PyTorch: probabilities differ by up to "
            f"{difference.probabilities:.1e} and logits by {difference.logits:.1e} of the largest; expected "
            f"at most {TOLERANCE.probabilities:g} and {TOLERANCE.logits:g}. Nothing was written."
        )
