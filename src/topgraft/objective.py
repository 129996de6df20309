"""What a head learns: classes or labels, by cross-entropy, or numbers, by squared error.

The dtype of targets tells which. Whole numbers ``(n,)`` are indices of classes, and outputs ``(n, classes)``
are logits. Booleans ``(n, labels)`` say which labels each example has, and outputs of that shape are logits,
each for itself. Bytes (uint8) ``(n, classes - 1)`` are steps of ordered classes (:mod:`topgraft.ordered`),
and outputs of that shape are logits, too. Floats ``(n, outputs)`` are standardised numbers (:class:`Scale`),
and outputs of that shape are predictions. Everything between reading the data and saving the model goes by
these functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from topgraft.errors import TopgraftError
from topgraft.ordered import agreement, ranks_of, smoothed, steps_of

if TYPE_CHECKING:
    from topgraft.data.types import Data

Array = np.ndarray[Any, np.dtype[Any]]


def are_numbers(targets: Tensor | Array) -> bool:
    """Whether targets are numbers to be predicted, and not indices of classes.

    Examples
    --------
    >>> are_numbers(torch.tensor([0, 1])), are_numbers(np.array([[0.5], [1.5]]))
    (False, True)
    """
    if isinstance(targets, Tensor):
        return targets.is_floating_point()
    return bool(targets.dtype.kind == "f")


def are_labels(targets: Tensor | Array) -> bool:
    """Whether targets say which of several labels each example has: booleans ``(n, labels)``.

    Examples
    --------
    >>> are_labels(torch.tensor([0, 1])), are_labels(np.array([[True, False], [False, False]]))
    (False, True)
    """
    if isinstance(targets, Tensor):
        return targets.dtype == torch.bool
    return bool(targets.dtype.kind == "b")


def are_steps(targets: Tensor | Array) -> bool:
    """Whether targets are steps of ordered classes: uint8 ``(n, classes - 1)``, see :mod:`topgraft.ordered`.

    Examples
    --------
    >>> are_steps(torch.tensor([0, 1])), are_steps(np.array([[1, 0]], dtype=np.uint8))
    (False, True)
    """
    if isinstance(targets, Tensor):
        return targets.dtype == torch.uint8
    return targets.dtype == np.uint8


def are_binary(targets: Tensor | Array) -> bool:
    """Whether each output is a logit for itself: of labels, or of steps of ordered classes.

    Examples
    --------
    >>> are_binary(torch.tensor([0, 1])), are_binary(torch.tensor([[True]]))
    (False, True)
    """
    return are_labels(targets) or are_steps(targets)


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Loss of every example, ``(n,)``: cross-entropy in nats, or the squared error, mean over the outputs.

    Of standardised numbers always guessing the mean loses 1 on average. Of labels it is the binary
    cross-entropy, mean over the labels; of ordered classes over their steps.

    Examples
    --------
    >>> losses(torch.zeros(1, 2), torch.tensor([1])).round(decimals=4)
    tensor([0.6931])
    >>> losses(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    tensor([5.])
    >>> losses(torch.zeros(1, 3), torch.tensor([[True, False, False]])).round(decimals=4)
    tensor([0.6931])
    """
    if are_binary(targets):
        wanted = targets.to(outputs.dtype)
        return nn.functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(1)
    if are_numbers(targets):
        return (outputs - targets.to(outputs.dtype)).square().mean(1)
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def mean_loss(
    outputs: Tensor, targets: Tensor, weight: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Mean of :func:`losses`; with ``weight`` ``(classes,)`` the weighted mean of cross-entropies.

    ``smoothing`` is the share of each label that is spread evenly over the classes (Szegedy et al. 2016), or
    of each of several labels over having it and not. Of several labels ``weight`` says how many times those
    that an example has count; of ordered classes it has a number for each class.

    Examples
    --------
    >>> sure = torch.tensor([[9.0, -9.0]])
    >>> [round(float(mean_loss(sure, torch.tensor([0]), smoothing=s)), 3) for s in (0.0, 0.1)]
    [0.0, 0.9]
    >>> round(float(mean_loss(sure, torch.tensor([[True, False]]), smoothing=0.1)), 3)
    0.45
    """
    if are_labels(targets):
        wanted = targets.to(outputs.dtype) * (1 - smoothing) + smoothing / 2
        times = None if weight is None else weight.to(outputs.dtype)
        return nn.functional.binary_cross_entropy_with_logits(outputs, wanted, pos_weight=times)
    if are_steps(targets):
        wanted = smoothed(targets, smoothing).to(outputs.dtype)
        each = nn.functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(1)
        if weight is None:
            return each.mean()
        own = weight.to(outputs.dtype)[ranks_of(targets)]
        return (own * each).sum() / own.sum()
    if are_numbers(targets):
        return losses(outputs, targets).mean()
    return nn.functional.cross_entropy(outputs, targets, weight=weight, label_smoothing=smoothing)


def marks(outputs: Tensor, targets: Tensor) -> Tensor:
    """What a score is the mean of, by example ``(n,)``: whether the class is right, or one less the loss.

    The mean of the first is the accuracy; of the second, over standardised numbers, the coefficient of
    determination (R², the share of the variance that is explained). Of several labels it is their average
    precision in the example: see :func:`ranking_precision`. Of ordered classes it is
    :func:`topgraft.ordered.agreement`.

    Examples
    --------
    >>> marks(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    tensor([ True, False])
    >>> marks(torch.tensor([[0.5]]), torch.tensor([[1.0]]))
    tensor([0.7500])
    """
    if are_labels(targets):
        return ranking_precision(outputs, targets)
    if are_steps(targets):
        return agreement(outputs, targets)
    if are_numbers(targets):
        return 1 - losses(outputs, targets)
    return outputs.argmax(1) == targets


def ranking_precision(outputs: Tensor, targets: Tensor) -> Tensor:
    """Label ranking average precision of each example, ``(n,)`` float64 (Schapire and Singer 2000).

    With its labels ordered by their outputs: the share of labels that it has among those that stand no lower,
    averaged over the labels that it has. 1 where it has none or all of them, since nothing can be ranked.

    Parameters
    ----------
    outputs, targets
        ``(n, labels)`` float and bool.

    Examples
    --------
    >>> ranking_precision(torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[True, False, True]])).round(
    ...     decimals=4
    ... )
    tensor([0.8333], dtype=torch.float64)
    """
    said, count = outputs.double().contiguous(), targets.sum(1)
    own = said.masked_fill(~targets, -math.inf)
    # How many stand no lower than each: all less those that stand below it.
    among = targets.shape[1] - torch.searchsorted(said.sort(1).values, said)
    hits = targets.shape[1] - torch.searchsorted(own.sort(1).values, own)
    precision = torch.where(targets, hits.double() / among, 0.0).sum(1) / count.clamp_min(1)
    return torch.where((count == 0) | (count == targets.shape[1]), 1.0, precision)


def loss_of_guessing(outputs: int, targets: Tensor) -> float:
    """What knowing nothing loses: the logarithm of the number of classes, or the variance of numbers, 1.

    Of several labels each may be there or not, so that it is the logarithm of 2; so with steps.
    """
    if are_binary(targets):
        return math.log(2)
    return 1.0 if are_numbers(targets) else math.log(max(2, outputs))


@dataclass(frozen=True)
class Scale:
    """Numbers to be predicted, brought to mean 0 and standard deviation 1, an output each.

    Parameters
    ----------
    mean, spread
        ``(outputs,)``: of the examples that choices are made on, in the target's own unit.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def of(cls, targets: Array, names: tuple[str, ...] = ()) -> Scale:
        """The scale of ``(n, outputs)`` float64 numbers.

        Raises
        ------
        TopgraftError
            If an output is the same number everywhere, so that there is nothing to learn.
        """
        mean, spread = targets.mean(0), targets.std(0)
        for place, (middle, width) in enumerate(zip(mean, spread, strict=True)):
            if not width > 1e-12 * max(1.0, abs(middle)):
                name = f'"{names[place]}"' if place < len(names) else f"output {place + 1}"
                raise TopgraftError(
                    f"All {len(targets):,} numbers of {name} are {targets[0, place]:g}. "
                    "Two or more different ones are needed to learn from."
                )
        return cls(tuple(mean.tolist()), tuple(spread.tolist()))

    def standardised(self, targets: Array) -> Tensor:
        """``(n, outputs)`` float64 numbers in units of the spread, the mean at 0."""
        return torch.from_numpy((targets - np.array(self.mean)) / np.array(self.spread))


def scale_of(data: Data) -> Scale | None:
    """The scale of the numbers that these examples are to teach; ``None`` for classes.

    Raises
    ------
    TopgraftError
        As :meth:`Scale.of` does.
    """
    return Scale.of(np.asarray(data.targets), data.outputs) if data.outputs else None


def encoded(data: Data, scale: Scale | None) -> Tensor:
    """Targets as probes and training take them: indices, labels, steps, or standardised numbers."""
    targets = np.asarray(data.targets)
    if data.is_ordered:
        return steps_of(torch.as_tensor(targets), len(data.classes))
    return torch.as_tensor(targets) if scale is None else scale.standardised(targets)
