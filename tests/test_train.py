from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from child_process import in_program, killed, run_in_program
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import (
    CLASSES,
    backbone_of,
    data_of_maps,
    differing,
    example_maps,
    graft_of,
    kept,
    maps,
    tensors_of,
)
from torch import Tensor, nn

from topgraft.backbones.types import Backbone
from topgraft.chain import Chain, Inputs, State
from topgraft.errors import DamageWarning, RunningError
from topgraft.evaluating import evaluate, predict_logits
from topgraft.features.engine import Engine
from topgraft.features.passes import one_pass, states
from topgraft.features.sources import FeatureSource, LiveSource, Source, StateSource
from topgraft.features.store import Store
from topgraft.files import read_tensors, write_tensors
from topgraft.graft import Graft
from topgraft.history import Epoch, History, Recipe
from topgraft.optimising import parameter_groups, schedule
from topgraft.pooling import pool
from topgraft.stopping import STATUS, gently
from topgraft.train import seconds_an_example, train
from topgraft.training_loop import keeps_up

DEPTH = 3
CUTS = DEPTH + 1
DATA = data_of_maps(36)
TARGETS = torch.as_tensor(DATA.targets)
ROWS, VALIDATION = list(range(24)), list(range(24, 36))
RECIPE = Recipe(epochs=3, batch_size=10, rate=0.02, patience=50)


@functools.cache
def backbone(dropout: float = 0.0, shared: tuple[int, ...] = ()) -> Backbone:
    return backbone_of(maps(depth=DEPTH, dropout=dropout, shared=shared), example_maps())


class Held:
    """States of all examples at a cut, computed once; inputs at 0."""

    def __init__(self, chain: Chain, freeze: int) -> None:
        self.inputs = torch.from_numpy(DATA.inputs)
        with torch.no_grad():
            self.state = chain[:freeze].eval()(self.inputs) if freeze else None

    def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs | Tensor:  # noqa: ARG002 (the protocol's form)
        if self.state is None:
            return self.inputs[list(rows)]
        return State((self.state.tensors[0][list(rows)],))


def features_at(chain: Chain, keep: int) -> Tensor:
    with torch.no_grad():
        state = chain[:keep].eval()(torch.from_numpy(DATA.inputs))
    return pool(state, chain.blocks[keep - 1].layout)


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


def interrupt_after(number: int) -> Callable[[Epoch], None]:
    def advance(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Interrupted

    return advance


def fitted(graft: Graft, source: Source, **options: Any) -> History:
    given: dict[str, Any] = {"recipe": RECIPE, "validation": VALIDATION, **options}
    return train(graft, source, TARGETS, ROWS, **given)


# frozen, and whole: going on is as if nothing had happened


@settings(max_examples=8)
@given(
    keep=st.integers(1, CUTS),
    data=st.data(),
    tune_norms=st.booleans(),
    dropout=st.sampled_from([0.0, 0.4]),
    shared=st.sampled_from([(), (0, 2)]),
    killed_after=st.integers(1, 2),
)
def test_frozen_is_frozen_after_training_and_after_going_on_from_a_checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
    keep: int,
    data: st.DataObject,
    tune_norms: bool,
    dropout: float,
    shared: tuple[int, ...],
    killed_after: int,
) -> None:
    chain = backbone(dropout, shared).chain
    freeze = data.draw(st.integers(0, keep))
    source = Held(chain, freeze) if freeze < keep else FeatureSource(features_at(chain, keep))
    path = tmp_path_factory.mktemp("work") / "training.safetensors"

    def new() -> Graft:
        return graft_of(chain, keep, freeze, tune_norms=tune_norms, drop=True, dropout=dropout)

    undisturbed = new()
    before = kept(undisturbed)
    whole = fitted(undisturbed, source, from_start=False)

    with pytest.raises(Interrupted):
        fitted(new(), source, checkpoint=path, from_start=False, advance=interrupt_after(killed_after))
    resumed = new()
    history = fitted(resumed, source, checkpoint=path, from_start=False)

    assert differing(kept(resumed), kept(undisturbed)) == set()
    assert history.resumed == killed_after
    assert [e.validation_loss for e in history.epochs] == [e.validation_loss for e in whole.epochs]
    for graft in (undisturbed, resumed):
        changed = differing(kept(graft), before)
        assert not any(name.startswith("frozen.") for name in changed)
        inside = tensors_of(parameter_groups(graft, RECIPE))
        for name, parameter in graft.named_parameters():
            assert (id(parameter) in inside) == parameter.requires_grad == (name in changed), name
        graft.train()
        assert graft.frozen is None or not any(m.training for m in graft.frozen.modules())
        if not tune_norms:
            assert not any(n.endswith(("running_mean", "running_var", "tracked")) for n in changed)


@pytest.mark.usefixtures("one_thread")
def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    chain, path = backbone(0.4).chain, tmp_path / "training.safetensors"
    source = Held(chain, 1)
    undisturbed = graft_of(chain, CUTS, 1, drop=True)
    fitted(undisturbed, source)

    def die(epoch: Epoch) -> None:
        if epoch.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def in_another_process() -> None:
        torch.set_num_threads(1)
        fitted(graft_of(chain, CUTS, 1, drop=True), source, checkpoint=path, advance=die)

    killed(in_another_process)
    resumed = graft_of(chain, CUTS, 1, drop=True)
    history = fitted(resumed, source, checkpoint=path)
    assert history.resumed == 2
    assert differing(kept(resumed), kept(undisturbed)) == set()


class Stops:
    """A source at which Ctrl-C is pressed, once or twice, when a batch is read."""

    def __init__(self, source: Source, at: int, *, presses: int = 1) -> None:
        self.source, self.at, self.presses, self.read = source, at, presses, 0

    def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs | Tensor:
        self.read += training
        if training and self.read == self.at:
            for _ in range(self.presses):
                signal.raise_signal(signal.SIGINT)
        return self.source.batch(rows, training=training)


def stopped_training(path: str, at: int, presses: int) -> int:
    """A training at which Ctrl-C is pressed when a batch is read; gives how many were read."""
    chain = backbone(0.4).chain
    stops = Stops(Held(chain, 1), at, presses=presses)
    with gently(), contextlib.suppress(KeyboardInterrupt):
        fitted(
            graft_of(chain, CUTS, 1, drop=True),
            stops,
            checkpoint=Path(path),
            recipe=replace(RECIPE, mixup=0.4),
        )
    return stops.read


@pytest.mark.parametrize(("at", "presses"), [(1, 1), (5, 1), (6, 1), (5, 2)])
def test_a_training_that_is_to_stop_keeps_the_step_under_way_and_goes_on_to_the_same_bits(
    tmp_path: Path, at: int, presses: int
) -> None:
    chain, path = backbone(0.4).chain, tmp_path / "training.safetensors"
    source, recipe = Held(chain, 1), replace(RECIPE, mixup=0.4)
    undisturbed = graft_of(chain, CUTS, 1, drop=True)
    whole = fitted(undisturbed, source, recipe=recipe)

    if presses == 1:
        assert in_program(stopped_training, str(path), at, presses) == at
    else:
        done = run_in_program(stopped_training, str(path), at, presses)
        assert (done.returncode, done.stdout) == (STATUS, ""), done.stderr
    resumed, rest = graft_of(chain, CUTS, 1, drop=True), Stops(source, 0)
    history = fitted(resumed, rest, checkpoint=path, recipe=recipe)
    assert differing(kept(resumed), kept(undisturbed)) == set()
    assert [(e.loss, e.validation_loss) for e in history.epochs[1:]] == [
        (e.loss, e.validation_loss) for e in whole.epochs[1:]
    ]
    assert (history.steps, history.readings) == (whole.steps, whole.readings)
    lost = 2 if presses == 2 else 0  # stopped at once: steps 4 and 5 began after the last epoch was kept
    assert rest.read == whole.steps - at + lost


def test_a_long_epoch_is_kept_in_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, path = backbone(0.4).chain, tmp_path / "training.safetensors"
    monkeypatch.setattr("topgraft.training_loop.SECONDS", 0.0)
    undisturbed = graft_of(chain, CUTS, 1)
    fitted(undisturbed, Held(chain, 1))

    class Dies(Stops):
        def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs | Tensor:
            self.read += training
            if self.read == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return self.source.batch(rows, training=training)

    def in_another_process() -> None:
        torch.set_num_threads(1)
        fitted(graft_of(chain, CUTS, 1), Dies(Held(chain, 1), 0), checkpoint=path)

    killed(in_another_process)
    resumed, rest = graft_of(chain, CUTS, 1), Stops(Held(chain, 1), 0)
    assert fitted(resumed, rest, checkpoint=path).resumed == 1
    assert rest.read == 9 - 5
    assert differing(kept(resumed), kept(undisturbed)) == set()


def test_going_on_after_the_end_changes_nothing(tmp_path: Path) -> None:
    chain, path = backbone().chain, tmp_path / "training.safetensors"
    first, again = graft_of(chain, CUTS, 2), graft_of(chain, CUTS, 2)
    before = fitted(first, Held(chain, 2), checkpoint=path)
    after = fitted(again, Held(chain, 2), checkpoint=path)
    assert differing(kept(first), kept(again)) == set()
    assert after.resumed == 3
    assert repr(after.epochs) == repr(before.epochs)  # the first has a loss that is not a number
    assert after.marks == before.marks


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x80\x04."], ids=["empty", "short", "pickle"])
def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, damage: bytes) -> None:
    chain, path = backbone().chain, tmp_path / "training.safetensors"
    undisturbed, graft = graft_of(chain, CUTS, 2), graft_of(chain, CUTS, 2)
    fitted(undisturbed, Held(chain, 2))
    path.write_bytes(damage)
    with pytest.warns(DamageWarning, match="begins anew"):
        history = fitted(graft, Held(chain, 2), checkpoint=path)
    assert history.resumed == 0
    assert differing(kept(graft), kept(undisturbed)) == set()


class Spare(nn.Module):
    """Reads a parameter that has no part in its output, so that it never has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.spare = nn.ParameterList(nn.Parameter(torch.ones(2)) for _ in range(3))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block, spare in zip(self.blocks, self.spare, strict=True):
            x = torch.relu(block(x)) + (spare.detach() + spare.new_zeros(())).sum() * 0
        return self.fc(x)


def test_going_on_works_where_a_parameter_gets_no_gradient(tmp_path: Path) -> None:
    torch.manual_seed(0)
    chain = Chain.of(Spare(), torch.randn(4, 8))
    inputs = torch.from_numpy(DATA.inputs).flatten(1)[:, :8]

    class Rows:
        def batch(self, rows: Sequence[int], *, training: bool) -> Tensor:  # noqa: ARG002 (the protocol's form)
            return inputs[list(rows)]

    path = tmp_path / "training.safetensors"
    undisturbed, resumed = graft_of(chain, 3, 0), graft_of(chain, 3, 0)
    assert "spare.0" in {name for name, _, _ in undisturbed.trainable()}
    fitted(undisturbed, Rows())
    with pytest.raises(Interrupted):
        fitted(graft_of(chain, 3, 0), Rows(), checkpoint=path, advance=interrupt_after(1))
    fitted(resumed, Rows(), checkpoint=path)
    assert differing(kept(resumed), kept(undisturbed)) == set()


# equal: from stored activations as from the examples


@pytest.mark.parametrize("freeze", [1, 3])
def test_training_from_stored_states_is_training_with_the_frozen_part_run_live(tmp_path, freeze):
    shelf, _ = states(backbone(), DATA, Store(tmp_path), freeze, batch_size=7)
    stored = StateSource(shelf, DATA.digests)
    live = LiveSource(DATA, backbone().preprocess, engine=Engine(backbone().chain[:freeze]), augment=None)
    a, b = (graft_of(backbone().chain, CUTS, freeze) for _ in range(2))
    start = kept(a)
    first, second = fitted(a, stored), fitted(b, live)
    assert differing(kept(a), start)  # else the test would prove nothing
    for name, tensor in kept(a).items():
        assert torch.allclose(tensor.double(), kept(b)[name].double(), rtol=1e-4, atol=1e-6), name
    assert [e.loss for e in first.epochs[1:]] == pytest.approx([e.loss for e in second.epochs[1:]], rel=1e-4)


def test_training_a_head_from_pooled_features_is_training_it_on_the_inputs(tmp_path):
    features, _ = one_pass(backbone(), DATA, Store(tmp_path), batch_size=7)
    a, b = (graft_of(backbone().chain, 3, 3) for _ in range(2))
    fitted(a, FeatureSource(features.cuts[3]))
    fitted(b, LiveSource(DATA, backbone().preprocess, engine=Engine(backbone().chain[:3]), augment=None))
    assert torch.allclose(a.head.linear.weight, b.head.linear.weight, rtol=1e-4, atol=1e-6)
    assert not torch.equal(a.head.linear.weight, graft_of(backbone().chain, 3, 3).head.linear.weight)


# the same seed gives the same bits


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    chain = backbone(0.4).chain
    trained = []
    for seed in (0, 0, 1):
        torch.manual_seed(99 + len(trained))  # what stands in the global stream has no say
        graft = graft_of(chain, CUTS, 2, seed=5)
        torch.rand(len(trained) + 1)
        fitted(graft, Held(chain, 2), recipe=Recipe(epochs=2, rate=0.02, batch_size=10, seed=seed))
        trained.append(kept(graft))
    assert differing(trained[0], trained[1]) == set()
    assert differing(trained[0], trained[2])


def test_mixtures_are_trained_on_and_their_bits_repeat_and_go_on(tmp_path):
    chain = backbone().chain
    recipe = Recipe(epochs=3, batch_size=10, rate=0.02, patience=50, mixup=1.0)
    plain, a, b = (graft_of(chain, CUTS, 2) for _ in range(3))
    fitted(plain, Held(chain, 2), recipe=replace(recipe, mixup=0.0))
    fitted(a, Held(chain, 2), recipe=recipe)
    with pytest.raises(Interrupted):
        fitted(b, Held(chain, 2), recipe=recipe, checkpoint=tmp_path / "c", advance=interrupt_after(2))
    b = graft_of(chain, CUTS, 2)
    fitted(b, Held(chain, 2), recipe=recipe, checkpoint=tmp_path / "c")
    assert differing(kept(a), kept(plain))
    assert differing(kept(a), kept(b)) == set()


def test_smoothed_labels_are_trained_on_and_the_validation_part_knows_nothing_of_them():
    chain = backbone().chain
    plain, smooth = (graft_of(chain, CUTS, 2) for _ in range(2))
    recipe = Recipe(epochs=4, batch_size=10, rate=0.05, patience=50)
    sharp = fitted(plain, Held(chain, 2), recipe=recipe)
    soft = fitted(smooth, Held(chain, 2), recipe=replace(recipe, smoothing=0.5))
    assert differing(kept(plain), kept(smooth))
    assert soft.epochs[0].validation_loss == sharp.epochs[0].validation_loss
    assert soft.epochs[-1].loss > sharp.epochs[-1].loss

    def confidence(graft: Graft) -> float:
        logits = predict_logits(graft, Held(chain, 2), VALIDATION)
        return float(logits.softmax(1).max(1).values.mean())

    assert confidence(smooth) < confidence(plain)


# what is kept, and when it ends


def test_the_last_weights_that_keep_up_on_the_validation_part_are_kept():
    chain = backbone().chain
    source, graft = Held(chain, 2), graft_of(chain, CUTS, 2)
    right: list[Tensor] = []

    def note(_: Epoch) -> None:
        right.append(evaluate(graft, source, TARGETS, VALIDATION)[2])

    recipe = Recipe(epochs=6, batch_size=10, rate=0.3, patience=50)
    history = fitted(graft, source, recipe=recipe, advance=note)
    scores = [(e.validation_score, -e.validation_loss) for e in history.epochs]
    assert scores[history.top] == max(scores)
    assert history.top_marks == right[history.top].tolist()
    assert history.best == max(i for i, r in enumerate(right) if keeps_up(r, right[history.top]))
    loss, score, correct = evaluate(graft, source, TARGETS, VALIDATION)
    assert (score, loss) == (scores[history.best][0], -scores[history.best][1])
    assert history.marks == correct.tolist() == right[history.best].tolist()
    assert not graft.training
    assert len(history.epochs) == 7
    assert history.trained == sum(p.numel() for _, p, _ in graft.trainable())


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_an_epoch_keeps_up_within_one_paired_standard_error(pairs: list[tuple[bool, bool]]) -> None:
    now, top = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    behind = top - now
    expected = behind.mean() <= behind.std(ddof=1) / np.sqrt(len(pairs))
    if abs(behind.mean() - behind.std(ddof=1) / np.sqrt(len(pairs))) > 1e-6:
        assert keeps_up(torch.tensor(now > 0), torch.tensor(top > 0)) == expected


def test_the_start_counts_among_the_best_unless_an_epoch_is_asked_for():
    chain = backbone().chain
    graft, source = graft_of(chain, CUTS, 2), Held(chain, 2)
    assert fitted(graft, source).best > 0  # now it is a graft worth keeping
    weights = kept(graft)
    harmful = Recipe(epochs=1, batch_size=4, rate=0.5, clip=1e9)
    assert fitted(graft, source, recipe=harmful).best == 0
    assert differing(kept(graft), weights) == set()
    assert fitted(graft, source, recipe=harmful, from_start=False).best == 1
    assert differing(kept(graft), weights)


def test_it_stops_when_it_falls_behind_and_says_so():
    chain = backbone().chain
    recipe = Recipe(epochs=30, batch_size=10, rate=0.1, clip=1e9, patience=2)
    history = fitted(graft_of(chain, CUTS, 2), Held(chain, 2), recipe=recipe)
    assert history.stopped == "behind the best score for 2 epochs"
    assert len(history.epochs) - 1 == history.best + 2 < 30


def test_it_stops_when_the_time_is_spent_but_not_before_one_epoch():
    chain = backbone().chain
    history = fitted(graft_of(chain, CUTS, 2), Held(chain, 2), deadline=time.monotonic() - 1)
    assert history.stopped == "the time given is spent"
    assert len(history.epochs) == 2


def test_without_a_validation_part_the_last_weights_stay():
    chain = backbone().chain
    seen: list[dict[str, Tensor]] = []
    graft = graft_of(chain, CUTS, 2)
    history = fitted(graft, Held(chain, 2), validation=(), advance=lambda _: seen.append(kept(graft)))
    assert [e.number for e in history.epochs] == [0, 1, 2, 3]
    assert differing(kept(graft), seen[-1]) == set()
    assert differing(kept(graft), seen[-2])
    assert history.marks == []


def test_steps_end_in_the_middle_of_an_epoch_on_the_given_schedule():
    chain = backbone().chain

    class Counted(Held):
        steps = 0

        def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs | Tensor:
            self.steps += training
            return super().batch(rows, training=training)

    source = Counted(chain, 2)
    history = fitted(graft_of(chain, CUTS, 2), source, validation=(), steps=4, schedule_steps=9)
    assert source.steps == 4
    assert history.steps_an_epoch == 3
    assert len(history.epochs) == 3
    assert history.epochs[-1].rate == pytest.approx(RECIPE.rate * schedule(3, 9, RECIPE.warmup))
    short = fitted(graft_of(chain, CUTS, 2), Counted(chain, 2), epochs=1)
    assert len(short.epochs) == 2


def test_a_loss_that_is_no_number_ends_it_with_advice():
    chain = backbone().chain
    source = Held(chain, 2)
    assert source.state is not None
    source.state.tensors[0][3] = float("nan")
    with pytest.raises(RunningError, match=r"diverged: the loss is nan in epoch 1(.|\n)*--rate"):
        fitted(graft_of(chain, CUTS, 2), source, validation=())


def test_every_example_is_seen_once_an_epoch_in_another_order_each_time():
    chain = backbone().chain

    class Noted(Held):
        orders: list[int]

        def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs | Tensor:
            if training:
                self.orders.extend(rows)
            return super().batch(rows, training=training)

    source = Noted(chain, 2)
    source.orders = []
    fitted(graft_of(chain, CUTS, 2), source)
    epochs = [source.orders[i : i + 24] for i in range(0, 72, 24)]
    assert all(sorted(order) == ROWS for order in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_class_weights_change_what_is_learnt():
    chain = backbone().chain
    plain, weighted = graft_of(chain, CUTS, 2), graft_of(chain, CUTS, 2)
    fitted(plain, Held(chain, 2), validation=())
    heavy = Recipe(epochs=3, batch_size=10, rate=0.02, class_weights=(100.0, 1.0, 1.0))
    fitted(weighted, Held(chain, 2), validation=(), recipe=heavy)
    share = [
        float((predict_logits(g, Held(chain, 2), VALIDATION).argmax(1) == 0).float().mean())
        for g in (plain, weighted)
    ]
    assert share[1] > share[0]


def test_mixed_precision_follows_the_recipe_in_one_process():
    chain = backbone().chain
    losses = []
    for precision in ("no", "bf16", "no"):
        graft = graft_of(chain, CUTS, 2)
        recipe = Recipe(epochs=1, batch_size=10, rate=0.02, precision=precision)
        losses.append(fitted(graft, Held(chain, 2), recipe=recipe).epochs[1].loss)
        assert all(p.dtype == torch.float32 for p in graft.parameters())
    assert losses[0] == losses[2] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


# rates


def test_rates_fall_with_the_distance_from_the_head_and_norms_and_biases_do_not_decay():
    graft = graft_of(backbone().chain, CUTS, 1, hidden=(4,))
    recipe = Recipe(rate=1.0, decay=0.5, weight_decay=0.1)
    by_name = {
        name: (group["lr"], group["weight_decay"])
        for group in parameter_groups(graft, recipe)
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if parameter.requires_grad
    }
    assert by_name.keys() == {name for name, _, _ in graft.trainable()}
    assert by_name["head.linear.weight"] == (1.0, 0.1)
    assert by_name["head.linear.bias"] == (1.0, 0.0)
    assert by_name["blocks.2.conv.weight"] == (1.0, 0.1)
    assert by_name["blocks.1.conv.weight"] == (0.5, 0.1)
    assert by_name["blocks.0.conv.weight"] == (0.25, 0.1)
    assert by_name["blocks.0.norm.weight"] == (0.25, 0.0)


@given(steps=st.integers(1, 200), warmup=st.floats(0, 1))
def test_the_schedule_rises_to_the_peak_and_falls_towards_zero(steps: int, warmup: float) -> None:
    shares = [schedule(step, steps, warmup) for step in range(steps + 1)]
    assert all(0 <= share <= 1 for share in shares)
    top = shares.index(max(shares))
    assert shares[top] == 1.0
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)


def test_measuring_a_step_leaves_the_graft_as_it_was():
    chain = backbone(0.4).chain
    graft = graft_of(chain, CUTS, 1, tune_norms=True)
    before = kept(graft)
    seconds = seconds_an_example(graft, Held(chain, 1), TARGETS, ROWS, RECIPE)
    assert 0 < seconds < 60
    assert differing(kept(graft), before) == set()
    assert not graft.training
    assert all(p.grad is None for p in graft.parameters())


def test_logits_come_in_the_order_asked_and_in_eval_mode():
    chain = backbone(0.4).chain
    graft, source = graft_of(chain, CUTS, 2).train(), Held(chain, 2)
    rows = [5, 0, 17, 5]
    logits = predict_logits(graft, source, rows, batch_size=3)
    assert graft.training
    with torch.no_grad():
        whole = graft.eval()(source.inputs[rows])
    assert torch.allclose(logits, whole, atol=1e-5)
    assert torch.equal(logits[0], logits[3]) or torch.allclose(logits[0], logits[3], atol=1e-6)
    loss = nn.functional.cross_entropy(whole, TARGETS[rows])
    assert evaluate(graft, source, TARGETS, rows)[0] == pytest.approx(float(loss), abs=1e-5)


def test_a_checkpoint_holds_tensors_and_json_only(tmp_path: Path) -> None:
    chain, path = backbone().chain, tmp_path / "training.safetensors"
    fitted(graft_of(chain, CUTS, 3), Held(chain, 3), checkpoint=path)
    tensors, metadata = read_tensors(path)
    assert {name.partition(".")[0] for name in tensors} == {"now", "best", "optimizer"}
    assert metadata.keys() == {"history"}
    assert not any("blocks.1." in name for name in tensors)  # what is frozen is not written each epoch
    assert math.isfinite(sum(float(t.double().sum()) for t in tensors.values()))
    write_tensors(path, tensors, metadata)
