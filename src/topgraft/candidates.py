"""Candidates of the search, each trained by a worker elsewhere: with the bits of training here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from topgraft import search
from topgraft.evaluating import predict_logits
from topgraft.history import History
from topgraft.side_by_side import of_threads
from topgraft.train import train
from topgraft.training_elsewhere import Training
from topgraft.workers import Item


@dataclass(frozen=True, eq=False)
class Candidate(Item):
    """A short training that waits: what it reads is taken from the store when it is sent.

    Parameters
    ----------
    material
        What trainings share, with the seed of this one.
    keep, freeze, views
        As for :func:`topgraft.search.source_at`.
    epochs
        For which it is laid out.
    seconds
        After which no further epoch starts.
    is_filled
        Whether it is sent with the content of files.
    """

    material: search.Material
    keep: int
    freeze: int
    views: int
    epochs: int
    seconds: float
    is_filled: bool = False

    def __str__(self) -> str:
        """Which one, in few words."""
        return f"the training of keep {self.keep}, freeze {self.freeze} for {self.epochs} epochs"

    def filled(self) -> Candidate:
        """The same, sent with the content of files."""
        return replace(self, is_filled=True)

    def packed(self) -> Sent:
        """With all that another process needs.

        Raises
        ------
        NotSendable
            As :func:`topgraft.features.sending.sendable`.
        """
        own = self.material
        source, _ = search.source_at(own, self.keep, self.freeze, views=self.views)
        training = Training.of(
            search.starting_graft(own, self.keep, self.freeze),
            source,
            own.targets,
            own.rows,
            own.validation,
            search.recipe_for(own, self.keep, self.epochs, own.rows),
        )
        return Sent(training.filled() if self.is_filled else training, self.seconds)


@dataclass(frozen=True, eq=False)
class Sent(Item):
    """A candidate on its way."""

    training: Training
    seconds: float

    def lacks(self) -> tuple[str, ...]:
        """Files of examples that this process can't find."""
        return self.training.lacks()


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: its history, logits ``(n, outputs)`` of the validation part, seconds."""

    history: History
    logits: Tensor
    seconds: float


@dataclass(frozen=True)
class Trying:
    """The training of a candidate; a task for other processes.

    Parameters
    ----------
    threads
        That operations use, since bits depend on their number: those of the plan, whatever the worker has.
    """

    threads: int

    def start(self) -> Callable[[Sent], Outcome]:
        """What trains one."""
        return self._train

    def _train(self, sent: Sent) -> Outcome:
        began, given = time.monotonic(), sent.training
        with of_threads(self.threads):
            history = train(
                given.graft,
                given.source,
                given.targets,
                given.rows,
                recipe=given.recipe,
                validation=given.validation,
                deadline=began + sent.seconds,
                from_start=False,
            )
            logits = predict_logits(given.graft, given.source, given.validation)
        return Outcome(history, logits, time.monotonic() - began)
