"""A training by workers elsewhere, from checkpoint to checkpoint, which this process keeps.

Workers train a stretch of an epoch together and give the state after it. Where one of them is lost, the
stretch is done again by those that are there: from the last checkpoint, with the same bits, since those
depend on the parts of a batch (:mod:`topgraft.data_parallel`) and not on who computes them.
"""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topgraft.checkpoint import put, weights_of
from topgraft.data_parallel import ALONE, Gloo, Parted
from topgraft.errors import RunningError, warn_of_damage
from topgraft.features.sending import NotSendable, named_files, sendable, with_files
from topgraft.features.sources import Source
from topgraft.files import DamagedFile, read_tensors, write_whole
from topgraft.graft import Graft
from topgraft.history import Epoch, History, Recipe
from topgraft.side_by_side import of_threads
from topgraft.stopping import finishing
from topgraft.train import ends_early, stretch, train
from topgraft.training_loop import Course
from topgraft.workers import Item, Seat, Together, WorkersWarning, elsewhere

SECONDS = 20.0
"""That a stretch takes about: what is lost at most where a worker dies."""
FIRST = 8
"""Steps of the first stretch, by which the others are measured."""
TRIES = 4
"""Times that a stretch may be lost before the training counts as what ends the workers."""


@dataclass(frozen=True, eq=False)
class Training(Item):
    """One training, as it is sent to another process.

    Parameters
    ----------
    graft
        At its start; without the frozen part, which no training touches.
    source, targets, rows, validation, recipe
        As for :func:`topgraft.train.train`.
    """

    graft: Graft
    source: Source
    targets: Tensor
    rows: list[int]
    validation: list[int]
    recipe: Recipe

    @classmethod
    def of(
        cls,
        graft: Graft,
        source: Source,
        targets: Tensor,
        rows: Sequence[int],
        validation: Sequence[int],
        recipe: Recipe,
    ) -> Training:
        """With all that another process needs.

        Raises
        ------
        NotSendable
            As :func:`topgraft.features.sending.sendable`.
        """
        return cls(trained_part(graft), sendable(source), targets, list(rows), list(validation), recipe)

    def files(self) -> tuple[str, ...]:
        """Files of examples that it names."""
        return named_files(self.source)

    def lacks(self) -> tuple[str, ...]:
        """Those that this process can't find."""
        return tuple(path for path in self.files() if not Path(path).exists())

    def filled(self) -> Training:
        """With the content of these files."""
        return replace(self, source=with_files(self.source))


def trained_part(graft: Graft) -> Graft:
    """A copy of a graft without the frozen part, which training from its border never runs."""
    frozen, graft.frozen = graft.frozen, None
    try:
        return copy.deepcopy(graft)
    finally:
        graft.frozen = frozen


@dataclass(frozen=True, eq=False)
class Stretch(Item):
    """A part of a training for one of several workers.

    Parameters
    ----------
    seat
        Which of them it is.
    state
        The checkpoint; ``None`` at the start.
    until
        The step before which it pauses, if its epoch is not over then.
    """

    seat: Seat
    state: bytes | None = field(repr=False)
    until: int


@dataclass(frozen=True, eq=False)
class Stretches:
    """A training that several workers do together; a task for other processes.

    Parameters
    ----------
    training
        At its start.
    course
        Its steps.
    from_start
        As for :func:`topgraft.train.train`.
    threads
        That operations use in each worker: those of the plan, since bits depend on their number.
    """

    training: Training
    course: Course
    from_start: bool
    threads: int

    def files(self) -> tuple[str, ...]:
        """Files of examples that it names."""
        return self.training.files()

    def filled(self) -> Stretches:
        """With the content of these files."""
        return replace(self, training=self.training.filled())

    def start(self) -> Callable[[Stretch], bytes | None]:
        """What does a stretch: the state after it; no bytes, unless it is the first worker's."""
        own = self.training
        begin = weights_of(own.graft)

        def work(item: Stretch) -> bytes | None:
            seat = item.seat
            with contextlib.ExitStack() as held:
                held.enter_context(of_threads(self.threads))
                place = Path(held.enter_context(tempfile.TemporaryDirectory())) / "state.safetensors"
                if item.state is not None:
                    place.write_bytes(item.state)
                put(own.graft, begin)  # an earlier stretch may have been broken off
                try:
                    team = ALONE if seat.size == 1 else Gloo(seat.rank, seat.size, seat.address, seat.meeting)
                    if isinstance(team, Gloo):
                        held.callback(team.close)
                    stretch(
                        own.graft,
                        own.source,
                        own.targets,
                        own.rows,
                        recipe=own.recipe,
                        validation=own.validation,
                        course=self.course,
                        until=item.until,
                        from_start=self.from_start,
                        checkpoint=place,
                        team=team,
                    )
                except Parted:
                    return None
                return place.read_bytes() if seat.rank == 0 else b""

        return work


def train_by_parts(
    graft: Graft,
    source: Source,
    targets: Tensor,
    rows: Sequence[int],
    *,
    recipe: Recipe,
    validation: Sequence[int] = (),
    epochs: int | None = None,
    steps: int | None = None,
    schedule_steps: int | None = None,
    from_start: bool = True,
    checkpoint: Path | None = None,
    deadline: float | None = None,
    advance: Callable[[Epoch], None] | None = None,
) -> History:
    """:func:`topgraft.train.train`, by workers elsewhere where the recipe has parts and there are workers.

    The state after each stretch is in ``checkpoint``. What can't be sent is trained in this process, part by
    part, which is told; the bits are the same.

    Raises
    ------
    RunningError
        As :func:`topgraft.train.train`; if workers die over the same stretch again and again.
    """
    told: dict[str, Any] = {"epochs": epochs, "steps": steps, "schedule_steps": schedule_steps}
    options: dict[str, Any] = {**told, "recipe": recipe, "validation": validation, "from_start": from_start}
    workers, known = elsewhere(), 0
    with _kept(checkpoint) as place:
        if workers is not None and recipe.parts > 1:
            course = Course.of(rows, recipe, **told)
            try:
                training = Training.of(graft, source, targets, rows, validation, recipe)
                task = Stretches(training, course, from_start, torch.get_num_threads())
                leading = _Leading(workers.together(task, most=recipe.parts), task, place, deadline, advance)
                known = leading.go()
            except NotSendable as problem:
                said = f"This training runs in this process, not on the cluster: {problem}."
                warnings.warn(said, WorkersWarning, stacklevel=2)
            else:  # what is left is to take the best weights
                history = train(graft, source, targets, rows, **options, checkpoint=place, deadline=deadline)
                history.resumed = known
                return history
        return train(
            graft, source, targets, rows, **options, checkpoint=place, deadline=deadline, advance=advance
        )


@contextlib.contextmanager
def _kept(checkpoint: Path | None) -> Iterator[Path]:
    """The file of the state; one that is gone afterwards where nobody wants it."""
    if checkpoint is not None:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "training.safetensors"


@dataclass
class _Leading:
    """What has workers train stretch after stretch, and keeps the state."""

    together: Together
    task: Stretches
    place: Path
    deadline: float | None
    advance: Callable[[Epoch], None] | None
    rate: float = 0.0
    """Seconds a step."""

    def go(self) -> int:
        """Train to the end; how many epochs an earlier process had done.

        Raises
        ------
        KeyboardInterrupt
            If it was asked to stop, after the stretch under way.
        """
        history, step = self.state()
        known = max(0, len(history.epochs) - 1)
        told, lost = len(history.epochs), 0
        with finishing() as is_stopping:
            while not is_stopping() and not self.is_over(history):
                until = step + (FIRST if not self.rate else max(1, int(SECONDS / self.rate)))
                began = time.monotonic()
                sent = self.place.read_bytes() if self.place.exists() else None
                state = self.together.do(partial(Stretch, state=sent, until=until), self.after_loss(step))
                if state is None:
                    lost += 1
                    if lost >= TRIES:
                        raise RunningError(
                            f"Workers died {lost} times over this training after step {step}. The same "
                            "command goes on from its last checkpoint, and without --on in this process."
                        )
                    continue
                write_whole(self.place, state)
                before, lost = step, 0
                history, step = self.state()
                if step > before:
                    self.rate = (time.monotonic() - began) / (step - before)
                for epoch in history.epochs[told:]:
                    if self.advance is not None:
                        self.advance(epoch)
                told = len(history.epochs)
        return known

    def is_over(self, history: History) -> bool:
        """Whether nothing is left to be trained; there is a start to be scored where nothing is done."""
        recipe, validates = self.task.training.recipe, bool(self.task.training.validation)
        if not history.epochs:
            return False
        return self.task.course.is_over(history) or bool(
            ends_early(history, recipe, validates=validates, deadline=self.deadline)
        )

    def state(self) -> tuple[History, int]:
        """The history so far, and the next step."""
        if not self.place.exists():
            return History(), 0
        try:
            _, metadata = read_tensors(self.place)
        except DamagedFile as error:
            warn_of_damage(self.place, error.reason, "this training begins anew")
            self.place.unlink()
            return History(), 0
        history = History.from_json(json.loads(metadata["history"]))
        if "amid" in metadata:
            return history, int(json.loads(metadata["amid"])[0])
        return history, self.task.course.of_epoch(len(history.epochs))[0]

    def after_loss(self, step: int) -> str:
        """What follows where a worker is lost."""
        where = f"step {step} of {self.task.course.most}" if step else "the start"
        return f"the training goes on from its last checkpoint, {where}"
