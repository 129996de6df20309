from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_networks import CLASSES, differing, example_maps, graft_of, kept, maps
from torch import Tensor, nn

from topgraft.chain import Chain
from topgraft.graft import Graft
from topgraft.health import DEAD, EXPLODING, HEALTHY, STILL, VANISHING, Diagnosis
from topgraft.history import History, Recipe
from topgraft.show_health import checked
from topgraft.train import train
from topgraft.watching import SAMPLES, Watch, sampled

COUNT, TRAINING = 128, 96
WIDTH = 24


class Held:
    """Inputs of all examples, as a source."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def batch(self, rows: Sequence[int], *, training: bool) -> Tensor:  # noqa: ARG002 (the protocol's form)
        return self.inputs[list(rows)]


@functools.cache
def rows() -> tuple[Tensor, Tensor]:
    x = torch.randn(COUNT, 12, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def layers(depth: int, activation: type[nn.Module] = nn.ReLU, *, gain: float | None = None) -> nn.Sequential:
    torch.manual_seed(2)
    found: list[nn.Module] = []
    for size in (12, *[WIDTH] * (depth - 1)):
        linear = nn.Linear(size, WIDTH)
        if gain is not None:
            nn.init.normal_(linear.weight, std=gain / math.sqrt(size))
        found += [linear, activation()]
    return nn.Sequential(*found, nn.Linear(WIDTH, CLASSES))


class Residual(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(WIDTH, WIDTH), scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.relu(self.linear(x))


def residual(*scales: float) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, WIDTH), *map(Residual, scales), nn.Linear(WIDTH, CLASSES))


def trained(
    network: nn.Module, inputs: Tensor, targets: Tensor, **told: Any
) -> tuple[Graft, History, list[Diagnosis]]:
    """The whole network and a new head, trained from the inputs; the verdict on each block."""
    chain = Chain.of(network, rows()[0][:4])
    graft = graft_of(chain, len(chain), 0)
    recipe = Recipe(**{"epochs": 6, "batch_size": 32, "rate": 1e-3, **told})
    validation = range(TRAINING, len(targets))
    history = train(graft, Held(inputs), targets, range(TRAINING), recipe=recipe, validation=validation)
    return graft, history, checked(chain, graft.keep, history, recipe)


def found_in(network: nn.Module, **told: Any) -> list[Diagnosis]:
    return trained(network, *rows(), **told)[2]


def words(found: Sequence[Diagnosis]) -> list[str]:
    return [d.verdict for d in found]


# sick networks get the right verdict on the right block


def test_healthy_networks_get_no_verdict():
    assert set(words(found_in(layers(3)))) == {HEALTHY}
    assert set(words(found_in(residual(1, 1, 1)))) == {HEALTHY}
    assert set(words(found_in(layers(2, nn.Tanh)))) == {HEALTHY}


def test_gradients_vanish_in_the_first_of_thirty_layers_of_sigmoids():
    found = words(found_in(layers(30, nn.Sigmoid)))
    assert set(found[:20]) == {VANISHING}
    assert set(found[-3:]) == {HEALTHY}


def test_a_large_gain_without_norms_explodes_everywhere():
    assert set(words(found_in(layers(10, gain=4.0)))) == {EXPLODING}


def test_a_rate_a_hundred_times_too_high_explodes_and_the_remedy_cures_it():
    found = found_in(layers(3), rate=0.1)
    assert set(words(found)) == {EXPLODING}
    lower = min(d.options["rate"] for d in found)
    assert set(words(found_in(layers(3), rate=lower))) == {HEALTHY}


def test_a_rate_near_zero_barely_moves_and_the_remedy_is_to_raise_it():
    found = found_in(layers(3), rate=1e-9)
    assert words(found) == [STILL, STILL, STILL, HEALTHY]  # a head may stay where it started
    assert all(d.options["rate"] > 1e-9 for d in found[:-1])


def test_dead_units_are_found_in_their_own_layer():
    network = layers(4)
    with torch.no_grad():
        network[4].bias -= 100
    found = words(found_in(network))
    assert found[2] == DEAD
    assert found[3:] == [HEALTHY, HEALTHY]


def test_a_block_scaled_to_nothing_vanishes_alone():
    assert words(found_in(residual(1, 1e-6, 1))) == [HEALTHY, HEALTHY, VANISHING, HEALTHY, HEALTHY]


# watching


@pytest.mark.parametrize("tune_norms", [False, True])
def test_watching_changes_no_bit_of_a_training(tune_norms: bool):
    chain = Chain.of(maps(dropout=0.3), example_maps())
    targets = torch.arange(40) % CLASSES

    def weights(watched: int) -> tuple[dict[str, Tensor], History]:
        graft = graft_of(chain, len(chain), 0, tune_norms=tune_norms, drop=True, dropout=0.2)
        recipe = Recipe(epochs=2, batch_size=16)
        history = train(graft, Held(example_maps(40)), targets, range(40), recipe=recipe, watched=watched)
        return kept(graft), history

    watched, history = weights(SAMPLES)
    assert {r.block for r in history.readings} == {1, 2, 3, 4, 5}
    plain, unread = weights(0)
    assert not unread.readings
    assert not differing(plain, watched)


def test_readings_are_the_norms_of_gradients_weights_and_steps():
    graft = graft_of(Chain.of(layers(2), rows()[0][:4]), 2, 0)
    parameters = {block: [p for _, p, b in graft.trainable() if b == block] for block in (1, 2, 3)}
    optimizer = torch.optim.SGD([p for ps in parameters.values() for p in ps], lr=0.5)
    watch = Watch(graft, optimizer, steps=1)
    with watch.listen():
        logits = graft.from_state(rows()[0][:32])
    nn.functional.cross_entropy(logits, rows()[1][:32]).backward()
    gradient = {b: torch.cat([p.grad.flatten() for p in ps]).norm() for b, ps in parameters.items()}
    weight = {b: torch.cat([p.detach().flatten() for p in ps]).norm() for b, ps in parameters.items()}
    watch.before()
    optimizer.step()
    for reading in watch.after(0, 1.0):
        own = reading.block
        assert reading.gradient == pytest.approx(float(gradient[own]), rel=1e-5)
        assert reading.relative == pytest.approx(float(gradient[own] / weight[own]), rel=1e-5)
        assert reading.update == pytest.approx(float(0.5 * gradient[own] / weight[own]), rel=1e-4)
        assert (reading.dead is None) == (own == 3)  # the head has no rectified units


def test_the_signal_to_noise_ratio_is_that_of_the_gradients_that_came():
    parameter = nn.Parameter(torch.zeros(4000))
    optimizer = torch.optim.Adam([parameter], lr=0.0)
    torch.manual_seed(0)
    for _ in range(400):
        parameter.grad = 0.5 + torch.randn(4000)
        optimizer.step()
    watch = Watch.__new__(Watch)
    watch.optimizer = optimizer
    assert watch._signal([parameter]) == pytest.approx(0.25, rel=0.15)
    assert watch._signal([]) is None


def test_the_first_and_the_last_step_are_read_and_no_more_than_asked():
    for steps in (1, 2, 7, 20, 1000):
        read = [s for s in range(steps) if sampled(s, steps)]
        assert read[0] == 0
        assert read[-1] == steps - 1
        assert len(read) <= SAMPLES


# a training that runs away


def test_a_training_that_runs_away_ends_with_the_best_weights_until_then():
    graft, history, _ = trained(layers(4, gain=2.0), *rows(), rate=30.0, clip=1e6)
    assert history.diverged
    assert history.stopped == f"it diverged: {history.diverged}"
    assert len(history.epochs) - 1 < 6
    scores = [e.validation_score for e in history.epochs]
    assert sum(history.marks) / len(history.marks) == pytest.approx(scores[history.best])
    assert all(torch.isfinite(t).all() for t in kept(graft).values())


def test_numbers_that_are_none_are_read_in_the_step_that_met_them():
    inputs, targets = rows()
    broken = inputs.clone()
    broken[5] = float("nan")
    _, history, found = trained(layers(2), broken, targets)
    assert "the loss is nan in epoch 1" in history.diverged
    assert set(words(found)) == {EXPLODING}
    assert "not finite" in found[0].why


def test_readings_survive_the_form_in_which_a_checkpoint_keeps_them():
    _, history, _ = trained(layers(2), *rows())
    assert History.from_json(history.to_json()) == history
    assert history.steps == 18
