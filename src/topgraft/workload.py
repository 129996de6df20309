"""How fast this machine was in a short trial, and what is to be done: from these every forecast follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BACKWARD = 2.0
"""Forward passes that a backward pass costs where nothing was measured."""
REFITS = 3
"""Trainings on all of the development part that are averaged at most, unless more were asked for."""


@dataclass(frozen=True)
class Speed:
    """What a short trial measured on this machine.

    Parameters
    ----------
    example
        Seconds an example of the one pass: decoding and the whole chain, batches side by side.
    decoding
        Seconds to decode and prepare one example on one core, the others being as busy as in the pass.
    cores
        Batches side by side.
    head, fit
        Seconds a multiply-add of the probes takes on one core, and what each of their fits takes beyond that.
    training
        Seconds of forward and backward pass of one example through the whole chain, as training runs it;
        where it was not measured (``None``), a backward pass counts as two forward ones of the pass.
    update
        Seconds in which AdamW changes one parameter once.
    length
        Steps of a sequence whose length the inputs decide, on average; 1 where there is none.
    held
        Bytes that the process held before the trial; 0 where the system does not tell.
    kept
        Examples whose part of the pass the trial has done and stored.
    converting
        Seconds in which the engine converted the whole chain, be it now or earlier; 0 where it does not.
    batches
        Bytes that the batches of the pass under way take beyond that; 0 where the system does not tell.
    """

    example: float
    decoding: float
    cores: int = 1
    head: float = 0.0
    fit: float = 0.0
    training: float | None = None
    update: float = 0.0
    length: float = 1.0
    held: float = 0.0
    converting: float = 0.0
    batches: float = 0.0
    kept: int = 0

    @property
    def chain(self) -> float:
        """Seconds an example of the whole chain alone, as the pass runs it; a tenth of its time at least."""
        return max(self.example - self.decoding / self.cores, 0.1 * self.example)

    @property
    def step(self) -> float:
        """Seconds of forward and backward pass of one example through the whole chain."""
        return (1 + BACKWARD) * self.chain if self.training is None else self.training


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Parameters
    ----------
    examples
        In the part on which choices are made.
    distinct
        Of these, how many differ in content: the others are computed and stored with their like.
    stored
        Of the distinct ones, how many the store has already at every cut.
    validation
        Of these, how many are the validation part of trainings.
    classes, folds
        Of the probes.
    budget, spent
        Seconds for the whole, and those that are gone.
    epochs, epochs_with_views
        For which a training is laid out; where it reads changed views of each picture it can use more.
    least_epochs
        Fewer than these are not worth starting unless asked for.
    batch_size
        Examples in a step.
    precision
        Of the frozen part, ``fp32`` or ``bf16``.
    hidden
        Widths of hidden layers in the head.
    head_trains
        Whether the head is trained even where every block is frozen.
    refits
        How often a training is done again on training and validation part together.
    more_refits
        Whether up to :data:`REFITS` are done where there is time left.
    """

    examples: int
    distinct: int
    stored: int
    validation: int
    classes: int
    folds: int
    budget: float
    epochs: int
    spent: float = 0.0
    least_epochs: int = 2
    batch_size: int = 32
    precision: str = "fp32"
    hidden: tuple[int, ...] = ()
    head_trains: bool = False
    refits: int = 1
    more_refits: bool = False
    epochs_with_views: int = 0


def head_macs(rows: float, width: int, classes: int) -> float:
    """Multiply-adds of fitting one linear head, roughly.

    The products of the features, their eigenvalues and axes (4.5 cubes of the smaller side: Golub and Van
    Loan 2013, 8.3), and a hundred times the scores, for penalties tried and the logistic regression's steps.
    """
    small = min(rows, width)
    return rows * width * small + 4.5 * small**3 + 100 * rows * small * classes


def head_parameters(width: int, classes: int, hidden: Sequence[int] = ()) -> int:
    """Numbers in the head: its linear layer, and hidden layers beside it.

    Examples
    --------
    >>> head_parameters(10, 3), head_parameters(10, 3, (4,))
    (33, 112)
    """
    linear = width * classes + classes
    if not hidden:
        return linear
    sizes = [width, *hidden, classes]
    return linear + 2 * width + sum(a * b + b for a, b in pairwise(sizes))
