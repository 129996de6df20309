"""Train what is not frozen, from stored activations at the cut where the frozen part ends."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topgraft.checkpoint import Amid, put, restore, save, weights_of
from topgraft.cutmix import mixture
from topgraft.errors import RunningError
from topgraft.features.sources import Source
from topgraft.graft import Graft
from topgraft.history import Epoch, History, Recipe, ran_away
from topgraft.mixup import mixed_loss
from topgraft.objective import loss_of_guessing, marks, mean_loss
from topgraft.sampling import order_of
from topgraft.stopping import finishing
from topgraft.watching import SAMPLES, Watch

SECONDS = 60.0
"""After which the state is kept in the middle of an epoch: a killed training loses no more time than that."""
Array = np.ndarray[Any, np.dtype[Any]]


class _Trainable(nn.Module):
    """The part of a graft that gradients pass, as one module for the training library."""

    def __init__(self, graft: Graft) -> None:
        super().__init__()
        self.body, self.head, self.format = graft.body, graft.head, graft.body_format

    def forward(self, given: Any) -> Tensor:
        logits: Tensor = self.head(given if self.body is None else self.format.run(self.body, given))
        return logits


def parameter_groups(graft: Graft, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for an optimiser with a rate a block; the names of their parameters stand beside them.

    Examples
    --------
    The head and block ``keep`` have ``rate``, block ``keep - 1`` has ``rate * decay``, and so on.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter, block in graft.trainable():
        plain = parameter.ndim > 1
        depth = max(0, graft.keep - block)
        group = groups.setdefault(
            (depth, plain),
            {
                "params": [],
                "names": [],
                "lr": recipe.rate * recipe.decay**depth,
                "weight_decay": recipe.weight_decay if plain else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at a step: a linear rise, then a half cosine down to zero.

    Examples
    --------
    >>> [round(schedule(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def predict_logits(graft: Graft, source: Source, rows: Sequence[int], *, batch_size: int = 64) -> Tensor:
    """Logits ``(len(rows), classes)`` float32 on the CPU, in eval mode; the graft's modes are put back."""
    was_training = graft.training
    graft.eval()
    device = next(graft.head.parameters()).device
    parts = []
    with torch.no_grad():
        for i in range(0, len(rows), batch_size):
            batch = _to(source.batch(rows[i : i + batch_size], training=False), device)
            parts.append(graft.from_state(batch).float().cpu())
    graft.train(was_training)
    return torch.cat(parts)


def _to(batch: Any, device: torch.device | str) -> Any:
    if isinstance(batch, Mapping):
        return {n: t.to(device) for n, t in batch.items()}
    return batch.to(device=device)


def evaluate(
    graft: Graft, source: Source, targets: Tensor, rows: Sequence[int], weights: Tensor | None = None
) -> tuple[float, float, Tensor]:
    """Mean loss, score, and by example what the score is the mean of, see :mod:`topgraft.objective`."""
    logits = predict_logits(graft, source, rows)
    wanted = targets[list(rows)]
    loss, found = float(mean_loss(logits, wanted, weights)), marks(logits, wanted).float()
    return loss, float(found.mean()), found


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
    steps_an_epoch = max(1, math.ceil(len(rows) / recipe.batch_size))
    laid_out = schedule_steps or recipe.epochs * steps_an_epoch
    most = steps if steps is not None else laid_out
    loop = _Loop(graft, source, targets, recipe, checkpoint)
    loop.watch = Watch(graft, loop.optimizer, most, watched)
    loop.begin(validation, advance, from_start=from_start)
    history = loop.history
    history.steps_an_epoch = steps_an_epoch
    last = min(math.ceil(most / steps_an_epoch), laid_out if epochs is None else epochs)
    begin = len(history.epochs) if not history.diverged else last + 1
    with finishing() as is_stopping:
        for number in range(begin, last + 1):
            if validation and number - 1 - history.best >= recipe.patience:
                history.stopped = f"behind the best score for {recipe.patience} epochs"
            elif deadline is not None and number > 1 and time.monotonic() > deadline:
                history.stopped = "the time given is spent"
            if history.stopped or is_stopping():
                break
            first = (number - 1) * steps_an_epoch
            end = min(first + steps_an_epoch, most)
            loss, rate, seconds = loop.epoch(number, rows, first, end, laid_out, is_stopping)
            if history.diverged:
                break
            loop.note(validation, loss=loss, seconds=seconds, rate=rate, from_start=from_start)
            history.diverged = ran_away(history, loss_of_guessing(graft.head.linear.out_features, targets))
            loop.keep()
            if advance is not None:
                advance(history.epochs[-1])
            if history.diverged:
                break
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


def keeps_up(found: Tensor, top: Tensor) -> bool:
    """Whether an epoch's marks ``(n,)`` are on average within one paired standard error of the highest.

    The last such epoch is kept, not the highest: with few validation examples the highest is a lucky one,
    and the rate falls to zero along the schedule, so that late weights are better settled.

    Examples
    --------
    >>> keeps_up(torch.tensor([True, True, False]), torch.tensor([True, False, True]))
    True
    >>> keeps_up(torch.tensor([True, False, False, False]), torch.tensor([True, True, True, True]))
    False
    """
    behind = top.float() - found.float()
    error = float(behind.std()) / math.sqrt(len(behind)) if len(behind) > 1 else 0.0
    return float(behind.mean()) <= error


class _Loop:
    """Model, optimiser and history of one training."""

    watch: Watch

    def __init__(
        self, graft: Graft, source: Source, targets: Tensor, recipe: Recipe, checkpoint: Path | None
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # the process shares it, with an earlier training's precision
        self.graft, self.source, self.targets, self.recipe = graft, source, targets, recipe
        self.checkpoint = checkpoint
        self.layout = graft.bare.blocks[graft.freeze - 1].layout if graft.freeze else "map"
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=recipe.precision)
        optimizer = torch.optim.AdamW(parameter_groups(graft, recipe))
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.model, self.optimizer = self.accelerator.prepare(_Trainable(graft), optimizer)
        self.weights = (
            torch.tensor(recipe.class_weights, device=self.accelerator.device)
            if recipe.class_weights
            else None
        )
        restored = restore(checkpoint, graft, self.optimizer)
        trained = sum(p.numel() for _, p, _ in graft.trainable())
        self.history, self.best, self.amid = restored or (History(trained=trained), weights_of(graft), None)

    def begin(
        self, validation: Sequence[int], advance: Callable[[Epoch], None] | None, *, from_start: bool
    ) -> None:
        """Score the start, or note how many epochs an earlier process had done."""
        if self.history.epochs:
            self.history.resumed = len(self.history.epochs) - 1
            return
        self.note(validation, loss=float("nan"), seconds=0.0, from_start=from_start)
        if advance is not None:
            advance(self.history.epochs[-1])

    def epoch(
        self,
        number: int,
        rows: Sequence[int],
        first: int,
        end: int,
        laid_out: int,
        is_stopping: Callable[[], bool],
    ) -> tuple[float, float, float]:
        """Steps ``first`` to ``end``; mean loss in nats, the last rate of the head, and the seconds.

        Raises
        ------
        KeyboardInterrupt
            If it is to stop in the middle, which is then kept.
        """
        recipe, optimizer, device = self.recipe, self.optimizer, self.accelerator.device
        history = self.history
        torch.manual_seed(recipe.seed * 100_003 + number)
        order = [rows[i] for i in order_of(self.targets[list(rows)], balanced=recipe.balanced)]
        self.graft.train()
        total, seen, share, went, begin = 0.0, 0, 0.0, 0.0, first
        if self.amid is not None and first < self.amid.step < end:
            begin, total, seen, went = self.amid.step, self.amid.total, self.amid.seen, self.amid.seconds
            self.amid.take_up()
        self.amid = None
        began = kept = time.monotonic()
        for step in range(begin, end):
            share = schedule(step, laid_out, recipe.warmup)
            for group, peak in zip(optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * share
            start = (step - first) * recipe.batch_size
            chosen = order[start : start + recipe.batch_size]
            batch = _to(self.source.batch(chosen, training=True), device)
            batch, partner, own = mixture(batch, recipe, self.layout)
            wanted = self.targets[chosen].to(device)
            read = self.watch.wants(step)
            with self.accelerator.autocast(), self.watch.listen() if read else contextlib.nullcontext():
                logits = self.model(batch)
            loss = mixed_loss(logits.float(), wanted, partner, own, self.weights, smoothing=recipe.smoothing)
            finite = bool(torch.isfinite(loss))
            optimizer.zero_grad()
            self.accelerator.backward(loss)
            if read := read or not finite:
                self.watch.before()
            norm = self.accelerator.clip_grad_norm_(
                [p for g in optimizer.param_groups for p in g["params"]], recipe.clip
            )
            if finite:
                optimizer.step()
            if read:
                history.readings += self.watch.after(step, share)
            total, seen = total + float(loss.detach()) * len(chosen), seen + len(chosen)
            history.steps, history.clipped = history.steps + 1, history.clipped + int(norm > recipe.clip)
            if not finite:
                history.diverged = f"the loss is {float(loss.detach())} in epoch {number}"
                break
            now = time.monotonic()
            if step + 1 < end and (is_stopping() or now - kept > SECONDS):
                self.keep(Amid.here(step + 1, total, seen, went + now - began))
                kept = now
                if is_stopping():
                    raise KeyboardInterrupt
        return total / max(1, seen), max(self.peaks) * share, went + time.monotonic() - began

    def note(
        self,
        validation: Sequence[int],
        *,
        loss: float,
        seconds: float,
        rate: float = 0.0,
        from_start: bool = True,
    ) -> None:
        """Score the validation part, write the epoch down, keep the weights if they keep up with the best."""
        history, number = self.history, len(self.history.epochs)
        validation_loss, score, found = float("nan"), float("nan"), torch.zeros(0)
        if validation:
            validation_loss, score, found = evaluate(
                self.graft, self.source, self.targets, validation, self.weights
            )
        history.epochs.append(Epoch(number, loss, validation_loss, score, rate, seconds))
        if number == 0 and not from_start:
            return
        if validation:
            leader = history.epochs[history.top]
            higher = (score, -validation_loss) > (leader.validation_score, -leader.validation_loss)
            if history.top < 0 or higher:
                history.top, history.top_marks = number, found.tolist()
            if not keeps_up(found, torch.tensor(history.top_marks)):
                return
        history.best, self.best = number, weights_of(self.graft)

    def keep(self, amid: Amid | None = None) -> None:
        """Write everything that going on needs, if there is a place for it."""
        if self.checkpoint is not None:
            save(self.checkpoint, self.graft, self.optimizer, self.history, self.best, amid)


def seconds_an_example(
    graft: Graft, source: Source, targets: Tensor, rows: Sequence[int], recipe: Recipe
) -> float:
    """Measured seconds of one training step for each of its examples; the graft stays as it was."""
    kept = weights_of(graft)
    chosen = list(rows[: recipe.batch_size])
    torch.manual_seed(recipe.seed)
    times = []
    graft.train()
    for _ in range(2):
        began = time.monotonic()
        batch = source.batch(chosen, training=True)
        loss = mean_loss(graft.from_state(batch), targets[chosen])
        torch.autograd.backward(loss)
        times.append(time.monotonic() - began)
    graft.zero_grad(set_to_none=True)
    put(graft, kept)
    graft.eval()
    return min(times) / len(chosen)
