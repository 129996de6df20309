from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import CLASSES, differing, example_maps, graft_of, kept, maps
from torch import nn

from topgraft.chain import Chain
from topgraft.checkpoint import Amid, put, restore, save, weights_of
from topgraft.errors import DamageWarning
from topgraft.graft import Graft
from topgraft.health import Reading
from topgraft.history import Epoch, History, Recipe
from topgraft.optimising import parameter_groups


def stepped(seed: int) -> tuple[Graft, torch.optim.Optimizer]:
    """A graft that made a step, with its optimiser."""
    chain = Chain.of(maps(seed), example_maps())
    graft = graft_of(chain, 3, 1, seed=seed, tune_norms=True)
    optimizer = torch.optim.AdamW(parameter_groups(graft, Recipe()), lr=0.01)
    state = chain[:1].eval()(example_maps())
    loss = nn.functional.cross_entropy(graft.train().from_state(state), torch.arange(4) % CLASSES)
    loss.backward()
    optimizer.step()
    return graft, optimizer


def test_what_was_saved_comes_back_bit_by_bit_and_the_optimiser_goes_on_from_it(tmp_path: Path):
    graft, optimizer = stepped(0)
    best = {name: tensor + 1 for name, tensor in weights_of(graft).items()}
    readings = [Reading(0, 2, 0.1, 0.2, 0.3, 1.0, dead=0.5)]
    history = History(epochs=[Epoch(0, 1.0, 1.0, 0.5, 0.0, 0.1)], best=0, readings=readings, steps=1)
    save(tmp_path / "state", graft, optimizer, history, best)

    other, its = stepped(1)
    frozen = kept(other.frozen)
    found = restore(tmp_path / "state", other, its)
    assert found is not None
    assert found[0] == history
    assert not differing(found[1], best)
    assert found[2] is None
    assert not differing(kept(other.body), kept(graft.body))
    assert not differing(kept(other.head), kept(graft.head))
    assert not differing(kept(other.frozen), frozen)
    for (_, a, _), (_, b, _) in zip(graft.trainable(), other.trainable(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][key], its.state[b][key])


def test_weights_that_were_copied_can_be_put_back():
    graft, _ = stepped(0)
    before = weights_of(graft)
    with torch.no_grad():
        for _, parameter, _ in graft.trainable():
            parameter.add_(1)
    assert differing(weights_of(graft), before)
    put(graft, before)
    assert not differing(weights_of(graft), before)


def test_nothing_and_what_is_damaged_is_no_state(tmp_path: Path):
    graft, optimizer = stepped(0)
    assert restore(None, graft, optimizer) is None
    assert restore(tmp_path / "state", graft, optimizer) is None
    save(tmp_path / "state", graft, optimizer, History(), weights_of(graft))
    whole = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(whole[:-100])
    before = weights_of(graft)
    with pytest.warns(DamageWarning, match="begins anew"):
        assert restore(tmp_path / "state", graft, optimizer) is None
    assert not (tmp_path / "state").exists()
    assert not differing(weights_of(graft), before)


def test_a_place_amid_an_epoch_comes_back_with_its_stream_of_random_numbers(tmp_path: Path):
    graft, optimizer = stepped(0)
    torch.manual_seed(8)
    amid = Amid.here(7, 0.1 + 0.2, 20, 1.5)
    save(tmp_path / "state", graft, optimizer, History(), weights_of(graft), amid)
    expected = torch.rand(3)
    found = restore(tmp_path / "state", graft, optimizer)
    assert found is not None
    assert found[2] is not None
    assert (found[2].step, found[2].total, found[2].seen, found[2].seconds) == (7, 0.1 + 0.2, 20, 1.5)
    torch.manual_seed(9)
    found[2].take_up()
    assert torch.equal(torch.rand(3), expected)
