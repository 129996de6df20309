"""Train what is not frozen, from stored activations at the cut where the frozen part ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from topgraft.chain.recurrent import compact
from topgraft.checkpoint import put, weights_of
from topgraft.data_parallel import Team
from topgraft.device import settled, trains_on
from topgraft.errors import RunningError
from topgraft.evaluating import evaluate, on_device
from topgraft.features.sources import Source
from topgraft.graft import Graft
from topgraft.history import Epoch, History, Recipe
from topgraft.objective import mean_loss
from topgraft.stopping import finishing
from topgraft.training_loop import Course, Loop
from topgraft.watching import SAMPLES, Watch


def ends_early(history: History, recipe: Recipe, *, validates: bool, deadline: float | None) -> str:
    """Why no further epoch is worth it, in words; else nothing."""
    number = len(history.epochs)
    if validates and number - 1 - history.best >= recipe.patience:
        return f"behind the best score for {recipe.patience} epochs"
    if deadline is not None and number > 1 and time.monotonic() > deadline:
        return "the time given is spent"
    return ""


def train(
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
    watched: int = SAMPLES,
) -> History:
    """Train the parameters of a graft that are not frozen.

    Parameters
    ----------
    graft
        Changed in place; with a validation part it ends with its best weights.
    source
        Gives batches at the graft's cut ``freeze``.
    targets
        ``(n,)`` int64 or ``(n, outputs)`` float, for the rows of the source; see :mod:`topgraft.objective`.
    rows, validation
        Training and validation examples. Without validation all epochs are run.
    recipe
        The schedule is laid out for ``recipe.epochs``.
    epochs, steps
        Stop after so many of them.
    schedule_steps
        Steps for which the schedule is laid out, where they are not those of ``recipe.epochs``.
    from_start
        Whether the weights before the first step count among the best; else one epoch is done at least.
    checkpoint
        A file in which the state is kept, after each epoch and after each minute of one; a training that
        finds it goes on from there.
    deadline
        ``time.monotonic()`` after which no further epoch starts.
    advance
        Told of each epoch.
    watched
        Steps in which gradients are read; no bit of the training depends on it.

    Returns
    -------
    History
        Its ``diverged`` says if the loss stopped being a number, or that of the validation part was ten times
        that of the start and of guessing; training ends there, with the best weights until then.

    Raises
    ------
    RunningError
        If it diverged and there is no validation part, so that no weights are known to be good.
    KeyboardInterrupt
        If it was asked to stop (:mod:`topgraft.stopping`), after the step under way, its state kept.
    """
    course = Course.of(rows, recipe, epochs=epochs, steps=steps, schedule_steps=schedule_steps)
    loop = Loop(graft, source, targets, recipe, checkpoint)
    loop.watch = Watch(graft, loop.optimizer, course.most, watched)
    loop.begin(validation, advance, from_start=from_start)
    history = loop.history
    history.steps_an_epoch = course.steps_an_epoch
    with finishing() as is_stopping:
        while not (is_stopping() or course.is_over(history)):
            if reason := ends_early(history, recipe, validates=bool(validation), deadline=deadline):
                history.stopped = reason
                break
            before = len(history.epochs)
            loop.run(rows, validation, course, is_stopping, from_start=from_start)
            if advance is not None and len(history.epochs) > before:
                advance(history.epochs[-1])
    if history.diverged:
        history.stopped = f"it diverged: {history.diverged}"
    history.stopped = history.stopped or f"all {len(history.epochs) - 1} epochs are done"
    if history.diverged and not validation:
        raise RunningError(
            f"The training diverged: {history.diverged}. A lower rate than {recipe.rate:g} may help (--rate)."
        )
    if validation:
        put(graft, loop.best)
        history.marks = evaluate(graft, source, targets, validation, loop.weights)[2].tolist()
    graft.eval()
    return history


def stretch(
    graft: Graft,
    source: Source,
    targets: Tensor,
    rows: Sequence[int],
    *,
    recipe: Recipe,
    validation: Sequence[int],
    course: Course,
    until: int,
    from_start: bool,
    checkpoint: Path,
    team: Team,
) -> None:
    """A part of a training by several processes: from a checkpoint to a step, or to the end of its epoch.

    Parameters
    ----------
    graft, source, targets, rows, recipe, validation, from_start
        As for :func:`train`.
    course
        The steps of the training.
    until
        The step before which it pauses.
    checkpoint
        Where the state is; the first process writes the new one there.
    team
        The processes, each of which does the same with the parts of batches that are its own.
    """
    loop = Loop(graft, source, targets, recipe, checkpoint, team)
    loop.watch = Watch(graft, loop.optimizer, course.most)
    loop.begin(validation, None, from_start=from_start)
    loop.history.steps_an_epoch = course.steps_an_epoch
    if course.is_over(loop.history):
        loop.keep()
    else:
        loop.run(rows, validation, course, lambda: False, from_start=from_start, until=until)


def seconds_an_example(
    graft: Graft, source: Source, targets: Tensor, rows: Sequence[int], recipe: Recipe
) -> float:
    """Measured seconds of one training step for each of its examples; the graft stays as it was."""
    kept = weights_of(graft)
    chosen = list(rows[: recipe.batch_size])
    torch.manual_seed(recipe.seed)
    times = []
    was, device = next(graft.head.parameters()).device, trains_on()
    graft.to(device).train()
    compact(graft)
    wanted = targets[chosen].to(device)
    for _ in range(2 if device.type == "cpu" else 4):  # the first ones also load kernels
        began = settled()
        batch = on_device(source.batch(chosen, training=True), device)
        loss = mean_loss(graft.from_state(batch), wanted)
        torch.autograd.backward(loss)
        times.append(settled() - began)
    graft.zero_grad(set_to_none=True)
    put(graft, kept)
    graft.to(was).eval()
    return min(times) / len(chosen)
