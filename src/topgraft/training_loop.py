"""The steps of a training: model, optimiser and history of one, and the course that they take."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.chain.recurrent import compact
from topgraft.checkpoint import Amid, restore, save, weights_of
from topgraft.cutmix import mixture
from topgraft.data_parallel import ALONE, Team, flat, of_every_part, part_of, put_sum, seed_of
from topgraft.device import has_gpu, reproducible
from topgraft.evaluating import evaluate, on_device
from topgraft.features.sources import Source
from topgraft.graft import Graft
from topgraft.history import Epoch, History, Recipe, ran_away
from topgraft.mixup import mixed_loss
from topgraft.objective import loss_of_guessing
from topgraft.optimising import parameter_groups, schedule
from topgraft.sampling import order_of
from topgraft.watching import Watch

SECONDS = 60.0
"""After which the state is kept in the middle of an epoch: a killed training loses no more time than that."""


class _Trainable(nn.Module):
    """The part of a graft that gradients pass, as one module for the training library."""

    def __init__(self, graft: Graft) -> None:
        super().__init__()
        self.body, self.head, self.format = graft.body, graft.head, graft.body_format

    def forward(self, given: Any) -> Tensor:
        logits: Tensor = self.head(given if self.body is None else self.format.run(self.body, given))
        return logits


@dataclass(frozen=True)
class Course:
    """The steps of a training.

    Parameters
    ----------
    steps_an_epoch
        Of the optimiser.
    laid_out
        For which the schedule is laid out.
    most
        That are made at most.
    last
        Number of the last epoch.
    """

    steps_an_epoch: int
    laid_out: int
    most: int
    last: int

    @classmethod
    def of(
        cls,
        rows: Sequence[int],
        recipe: Recipe,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        schedule_steps: int | None = None,
    ) -> Course:
        """As :func:`train` is told."""
        each = max(1, math.ceil(len(rows) / recipe.batch_size))
        laid_out = schedule_steps or recipe.epochs * each
        most = steps if steps is not None else laid_out
        return cls(each, laid_out, most, min(math.ceil(most / each), laid_out if epochs is None else epochs))

    def of_epoch(self, number: int) -> tuple[int, int]:
        """The first step of an epoch, and the one after its last."""
        first = (number - 1) * self.steps_an_epoch
        return first, min(first + self.steps_an_epoch, self.most)

    def is_over(self, history: History) -> bool:
        """Whether all epochs are done, or the loss ran away."""
        return bool(history.diverged) or len(history.epochs) > self.last


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


class Loop:
    """Model, optimiser and history of one training."""

    watch: Watch

    def __init__(
        self,
        graft: Graft,
        source: Source,
        targets: Tensor,
        recipe: Recipe,
        checkpoint: Path | None,
        team: Team = ALONE,
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # the process shares it, with an earlier training's precision
        self.graft, self.source, self.targets, self.recipe = graft, source, targets, recipe
        self.checkpoint, self.team = checkpoint, team
        self.layout = graft.bare.blocks[graft.freeze - 1].layout if graft.freeze else "map"
        self.accelerator = Accelerator(cpu=not has_gpu(), mixed_precision=recipe.precision)
        optimizer = torch.optim.AdamW(parameter_groups(graft, recipe))
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.model, self.optimizer = self.accelerator.prepare(_Trainable(graft), optimizer)
        compact(graft)
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

    def run(
        self,
        rows: Sequence[int],
        validation: Sequence[int],
        course: Course,
        is_stopping: Callable[[], bool],
        *,
        from_start: bool,
        until: int | None = None,
    ) -> None:
        """An epoch, or what is left of it; up to step ``until``, if that is in its middle."""
        history = self.history
        with reproducible():
            ran = self.epoch(rows, course, is_stopping, until)
        if ran is None:
            return
        if not history.diverged:
            loss, rate, seconds = ran
            self.note(validation, loss=loss, seconds=seconds, rate=rate, from_start=from_start)
            guessing = loss_of_guessing(self.graft.head.linear.out_features, self.targets)
            history.diverged = ran_away(history, guessing)
        self.keep()

    def epoch(
        self, rows: Sequence[int], course: Course, is_stopping: Callable[[], bool], until: int | None
    ) -> tuple[float, float, float] | None:
        """Mean loss in nats, the last rate of the head, and the seconds; ``None`` if it paused.

        Raises
        ------
        KeyboardInterrupt
            If it is to stop in the middle, which is then kept.
        """
        recipe, optimizer, history = self.recipe, self.optimizer, self.history
        number = len(history.epochs)
        first, end = course.of_epoch(number)
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
            share = schedule(step, course.laid_out, recipe.warmup)
            for group, peak in zip(optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * share
            start = (step - first) * recipe.batch_size
            chosen = order[start : start + recipe.batch_size]
            read = self.watch.wants(step)
            loss = self.gradients(step, chosen, read=read)
            finite = math.isfinite(loss)
            if read := read or not finite:
                self.watch.before()
            norm = self.accelerator.clip_grad_norm_(self.parameters, recipe.clip)
            if finite:
                optimizer.step()
            if read:
                history.readings += self.watch.after(step, share)
            total, seen = total + loss * len(chosen), seen + len(chosen)
            history.steps, history.clipped = history.steps + 1, history.clipped + int(norm > recipe.clip)
            if not finite:
                history.diverged = f"the loss is {loss} in epoch {number}"
                break
            now, pauses = time.monotonic(), step + 1 == until
            if step + 1 < end and (pauses or is_stopping() or now - kept > SECONDS):
                self.keep(Amid.here(step + 1, total, seen, went + now - began))
                kept = now
                if pauses:
                    return None
                if is_stopping():
                    raise KeyboardInterrupt
        return total / max(1, seen), max(self.peaks) * share, went + time.monotonic() - began

    def gradients(self, step: int, chosen: Sequence[int], *, read: bool) -> float:
        """Give the parameters the gradients of a batch, or of its parts, added; the mean loss."""
        parts = self.recipe.parts
        if parts == 1:
            return self.backward(chosen, listens=read)
        vectors = []
        for part in range(self.team.rank, parts, self.team.size):
            torch.manual_seed(seed_of(self.recipe.seed, step, part))
            rows, loss = part_of(chosen, part, parts), 0.0
            self.optimizer.zero_grad()
            if rows:
                loss = self.backward(rows, listens=read and part == 0, share=self.share_of(rows, chosen))
            vectors.append(flat(self.parameters, loss))
        return put_sum(self.parameters, of_every_part(self.team, vectors, parts))

    def backward(self, chosen: Sequence[int], *, listens: bool, share: float | None = None) -> float:
        """Gradients of some examples; their mean loss, or the share of it that they have of a batch."""
        recipe, device = self.recipe, self.accelerator.device
        batch = on_device(self.source.batch(chosen, training=True), device)
        batch, partner, own = mixture(batch, recipe, self.layout)
        wanted = self.targets[list(chosen)].to(device)
        with self.accelerator.autocast(), self.watch.listen() if listens else contextlib.nullcontext():
            logits = self.model(batch)
        loss = mixed_loss(logits.float(), wanted, partner, own, self.weights, smoothing=recipe.smoothing)
        loss = loss if share is None else loss * share
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        return float(loss.detach())

    def share_of(self, rows: Sequence[int], chosen: Sequence[int]) -> float:
        """What a part of a batch has in the batch's mean loss: classes may count more or less."""
        if self.weights is None or self.targets.dtype != torch.int64:
            return len(rows) / len(chosen)
        of_part, of_batch = (self.weights[self.targets[list(some)]].double().sum() for some in (rows, chosen))
        return float(of_part / of_batch)

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
                self.graft, self.source, self.targets, validation, self.weights, team=self.team
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
        """Write everything that going on needs, if there is a place for it; the first of a team does."""
        if self.checkpoint is not None and self.team.rank == 0:
            save(self.checkpoint, self.graft, self.optimizer, self.history, self.best, amid)
