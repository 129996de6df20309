"""How far what another runtime gives is from what the graft gives in PyTorch, and how far it may be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from topgraft.errors import RunningError
from topgraft.export.outputs import outputs_of
from topgraft.pooling import pool

if TYPE_CHECKING:
    from topgraft.data.types import Task
    from topgraft.saved import Model

Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""A preprocessed batch -> the outputs, each ``(batch, ...)``, see :mod:`topgraft.export.outputs`."""
ROUNDINGS = 10
"""Times what PyTorch's own head rounds by: another runtime may be as far off, limits or not."""


@dataclass(frozen=True)
class Difference:
    """Largest differences over a number of examples.

    Parameters
    ----------
    probabilities
        Of a probability, 0 to 1; ``None`` where numbers are predicted.
    logits
        Of a logit, as a share of the largest logit in size (of 1 where that is smaller); ``None`` there, too.
    numbers
        Of a predicted number, as a share of its standard deviation where it was learned; ``None`` of classes.
    """

    probabilities: float | None = None
    logits: float | None = None
    numbers: float | None = None

    def to_json(self) -> dict[str, float]:
        """What there is of them, as JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def is_within(self, limit: Difference) -> bool:
        """Whether none is over its limit; what is not a number is over any.

        Examples
        --------
        >>> Difference(0.0, 2e-3).is_within(TOLERANCE), Difference(numbers=1e-9).is_within(OF_NUMBERS)
        (False, True)
        """
        given, most = self.to_json(), limit.to_json()
        return given.keys() == most.keys() and all(given[name] <= most[name] for name in most)

    def in_words(self) -> str:
        """To stand after "differ by up to".

        Examples
        --------
        >>> TOLERANCE.in_words()
        'probabilities by 1e-04, logits by 1e-03 of the largest'
        """
        of = {"logits": " of the largest", "numbers": " of their standard deviation"}
        return ", ".join(f"{name} by {_short(v)}{of.get(name, '')}" for name, v in self.to_json().items())


TOLERANCE, OF_NUMBERS = Difference(probabilities=1e-4, logits=1e-3), Difference(numbers=1e-3)
"""Over these an export in fp32 is refused: far more than rounding, far less than what changes an answer."""


def tolerance(model: Model, batches: Sequence[Mapping[str, Tensor]]) -> Difference:
    """How far an export in fp32 may be off on these examples.

    That is :data:`TOLERANCE` or :data:`OF_NUMBERS`, except for a head whose weights are so large beside its
    answers (features hardly vary, or numbers lie far from 0) that its sums round by about as much.
    """
    limit = OF_NUMBERS if model.task == "regression" else TOLERANCE
    rounded = measured(_in_double(model), model, batches).to_json()
    return Difference(**{n: max(most, ROUNDINGS * rounded[n]) for n, most in limit.to_json().items()})


def _in_double(model: Model) -> Run:
    """The graft with a head that computes in double precision, from the same features."""
    read: list[Any] = []
    head = copy.deepcopy(model.graft.head).double()

    def keep(_module: nn.Module, given: tuple[Any, ...]) -> None:
        read.append(given[0])

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode(), model.graft.head.register_forward_pre_hook(keep):
            model.graft.eval()(dict(batch))
            return outputs_of(model.task, head(pool(read.pop(), head.layout).double()))

    return run


def apart(task: Task, found: Sequence[Tensor], given: Tensor, spread: Sequence[float] = ()) -> Difference:
    """How far outputs are from those that follow from what the graft gives.

    Parameters
    ----------
    task
        Of the model.
    found
        The outputs.
    given
        ``(batch, outputs)``: logits or numbers, of the graft.
    spread
        Standard deviation of each predicted number.

    Examples
    --------
    >>> given = torch.tensor([[0.0, 10.0]])
    >>> apart("classification", (given + 1.0, torch.softmax(given, 1)), given)
    Difference(probabilities=0.0, logits=0.1, numbers=None)
    >>> apart("regression", (given + 1.0,), given, spread=(2.0, 4.0)).numbers
    0.5
    """
    expected = outputs_of(task, given)
    fits = all(a.shape == b.shape for a, b in zip(found, expected, strict=True))
    inf = float("inf")
    if task == "regression":
        unit = torch.tensor(spread, dtype=torch.float64)
        return Difference(numbers=_most(found[0] / unit, given / unit) if fits else inf)
    if not fits:
        return Difference(inf, inf)
    scale = max(1.0, float(given.abs().max()))
    return Difference(_most(found[1], expected[1]), _most(found[0].double() / scale, given.double() / scale))


def _most(a: Tensor, b: Tensor) -> float:
    return round_up(float((a.double() - b.double()).abs().max()))


def round_up(number: float) -> float:
    """The number with six digits, so that what is told does not depend on the last bits."""
    return float(f"{number:.6g}")


def measured(run: Run, model: Model, batches: Sequence[Mapping[str, Tensor]]) -> Difference:
    """The largest difference from a graft that PyTorch runs in fp32, over all batches."""
    found = []
    for batch in batches:
        with torch.inference_mode():
            given = model.graft.eval()(dict(batch)).float()
        spread = model.spread if model.task == "regression" else ()
        found.append(apart(model.task, run(batch), given, spread).to_json())
    return Difference(**{name: _largest([one[name] for one in found]) for name in found[0]})


def _largest(values: Sequence[float]) -> float:
    """The largest, and not a number where one of them is not."""
    return next(filter(math.isnan, values), max(values))


def must_hold(difference: Difference, most: Difference, runtime: str) -> None:
    """Refuse an export that computes something else.

    Raises
    ------
    RunningError
        If it differs by more than ``most``, see :func:`tolerance`.
    """
    if not difference.is_within(most):
        raise RunningError(
            f"{runtime} computes something else than PyTorch. They differ by up to: {difference.in_words()}; "
            f"expected at most: {most.in_words()}. Nothing was written."
        )


def _short(value: float) -> str:
    """Two digits, or one where there is no more."""
    return f"{value:.0e}" if value == float(f"{value:.0e}") else f"{value:.1e}"
