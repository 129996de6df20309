"""How a training is told to run, and what became of each of its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from topgraft.health import Reading

RAN_AWAY = 10.0
"""How many times the loss of guessing, or of the start, an epoch may have before training ends."""


@dataclass(frozen=True)
class Recipe:
    """How a training is done.

    Parameters
    ----------
    epochs
        Times through the training part for which the schedule is laid out.
    batch_size
        Examples a step.
    rate
        Peak learning rate of the head and the last kept block.
    decay
        Layer-wise learning-rate decay: each block further from the head learns at ``decay`` times the rate
        of the one after it (Howard & Ruder 2018).
    weight_decay
        Of AdamW (Loshchilov & Hutter 2019); not applied to biases and norms.
    warmup
        Share of the steps in which the rate rises from zero; then it falls along a cosine.
    clip
        Largest norm of the gradient.
    patience
        Epochs in a row that fall behind the best one on the validation part, after which training stops.
    seed
        Of the order and of every random choice; each epoch has its own, so that a killed run goes on exactly.
    class_weights
        Per class how much an example of it counts; empty for 1.
    precision
        ``no`` or ``bf16``: mixed precision of the trainable part.
    mixup
        ``alpha`` of the mixtures that are trained on, see :func:`topgraft.mixup.mixed`; 0 for none.
    cutmix
        ``alpha`` of boxes that are pasted, see :func:`topgraft.cutmix.mixture`; 0 for none.
    smoothing
        Of the labels that are trained on, see :func:`topgraft.objective.mean_loss`; 0 for none.
    balanced
        Whether each class is drawn as often as the others, see :func:`topgraft.sampling.order_of`.
    parts
        Parts of each step's batch, whose gradients are added in their order, see
        :mod:`topgraft.data_parallel`.
    """

    epochs: int = 10
    batch_size: int = 32
    rate: float = 1e-4
    decay: float = 0.9
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    patience: int = 5
    seed: int = 0
    class_weights: tuple[float, ...] = ()
    precision: str = "no"
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    balanced: bool = False
    parts: int = 1


@dataclass
class Epoch:
    """What one epoch gave. Epoch 0 is the start, before the first step."""

    number: int
    loss: float
    validation_loss: float
    validation_score: float
    rate: float
    seconds: float


@dataclass
class History:
    """A training as it went.

    Parameters
    ----------
    epochs
        The start and each epoch.
    best
        Number of the epoch whose weights were kept: the last that keeps up with the one that scored highest.
    top
        Number of the epoch that scored highest; -1 where there is none.
    steps_an_epoch
        Optimiser steps in an epoch.
    trained
        Parameters that trained.
    stopped
        Why it ended, in words.
    resumed
        Epochs that an earlier process had done.
    marks
        Per validation example what the best weights score on it, see :func:`topgraft.objective.marks`.
    top_marks
        The same for the epoch that scored highest.
    steps, clipped
        Steps that were made, and those whose gradient was longer than ``clip``.
    readings
        Of the gradients, block by block, in some of the steps.
    diverged
        What was seen when the loss ran away, in words; empty where it did not.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    top: int = -1
    steps_an_epoch: int = 0
    trained: int = 0
    stopped: str = ""
    resumed: int = 0
    marks: list[float] = field(default_factory=list)
    top_marks: list[float] = field(default_factory=list)
    steps: int = 0
    clipped: int = 0
    readings: list[Reading] = field(default_factory=list)
    diverged: str = ""

    def to_json(self) -> dict[str, Any]:
        """The history as plain JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import history

        return history(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> History:
        """The history that :meth:`to_json` wrote."""
        return cls(
            **{
                **value,
                "epochs": [Epoch(**e) for e in value["epochs"]],
                "readings": [Reading(**r) for r in value["readings"]],
            }
        )


def ran_away(history: History, guessing: float) -> str:
    """What the last epoch's validation loss says of a training that ran away, in words; else nothing.

    The loss of the training part says less: with dropout it is high without harm. ``guessing`` is what
    knowing nothing loses.
    """
    worst = max(guessing, history.epochs[0].validation_loss)
    last = history.epochs[-1]
    if last.validation_loss > RAN_AWAY * worst:
        return f"the validation loss is {last.validation_loss:.3g} after epoch {last.number}, not {worst:.3g}"
    return ""
