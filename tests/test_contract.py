from __future__ import annotations

import pytest
import torch
from small_networks import CLASSES, differing, example_maps, graft_of, kept, maps
from torch import nn

import topgraft as tg
from topgraft.chain import Chain
from topgraft.contract import Contract
from topgraft.graft import Graft

CHAIN = Chain.of(maps(dropout=0.5), example_maps())


class Model(nn.Module):
    """A graft somewhere inside, and something else that trains."""

    def __init__(self, freeze: int = 3) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"graft": graft_of(CHAIN, 4, freeze)})
        self.scale = nn.Parameter(torch.ones(1))

    @property
    def graft(self) -> Graft:
        return self.parts["graft"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.graft(x) * self.scale


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def careless(model: Model, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    """A loop that switches every module to training mode by itself, one after the other."""
    x = example_maps(12, seed=8) + 2
    for _ in range(steps):
        for module in model.modules():
            module.train()
        loss = nn.functional.cross_entropy(model(x), torch.arange(12) % CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_frozen_blocks_stay_though_a_loop_switches_them_to_training_mode():
    for held in (False, True):
        model = Model()
        optimizer = torch.optim.SGD(trainable(model), lr=0.1)
        frozen, everything = kept(model.graft.frozen), kept(model)
        contract = Contract(model, optimizer)
        if held:
            contract.begin()
        careless(model, optimizer)
        changed = differing(kept(model.graft.frozen), frozen)
        assert ("network.blocks.0.norm.running_mean" in changed) == (not held)
        assert changed == set() or not held
        assert {"scale", "parts.graft.head.linear.weight"} <= differing(kept(model), everything)
        contract.end()


def test_what_a_loop_made_trainable_has_no_gradient_again():
    model = Model()
    with Contract(model):
        model.requires_grad_(True)
        model(example_maps()).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in model.graft.frozen.parameters())
    assert model.scale.grad is not None


def test_a_frozen_parameter_in_an_optimizer_is_an_error_at_the_start():
    model = Model()
    says = r"8 parameters of frozen blocks are in the optimizer AdamW: stem.weight"
    with pytest.raises(tg.TopgraftError, match=says):
        Contract(model, torch.optim.AdamW(model.parameters())).begin()
    one = [*trainable(model), model.graft.frozen.network.stem.bias]
    says = r"1 parameter .* is in the optimizer SGD: stem.bias\. .*\n.*parameter_groups"
    with pytest.raises(tg.TopgraftError, match=says):
        Contract(model, torch.optim.Adam(trainable(model)), torch.optim.SGD(one)).begin()


@pytest.mark.parametrize("name", ["blocks.1.norm.running_var", "blocks.0.conv.weight"])
def test_a_frozen_tensor_that_changed_by_one_bit_is_an_error_at_the_end(name):
    model = Model()
    contract = Contract(model)
    contract.begin()
    model(example_maps())
    tensor = model.graft.frozen_tensors()[name]
    first = (0,) * tensor.ndim
    with torch.no_grad():
        tensor[first] = torch.nextafter(tensor[first], torch.tensor(9.0))
    with pytest.raises(tg.RunningError, match=rf"1 tensor of frozen blocks changed in the training: {name}"):
        contract.end()


def test_a_buffer_that_was_replaced_is_noticed_and_what_trains_may_change():
    model = Model(freeze=2)
    norm = model.graft.frozen.network.blocks[0].norm
    with pytest.raises(tg.RunningError, match=r"blocks.0.norm.running_mean"), Contract(model):
        norm.running_mean = torch.zeros_like(norm.running_mean)
    with Contract(model), torch.no_grad():
        for parameter in trainable(model):
            parameter.add_(1)


def test_blocks_may_be_frozen_and_unfrozen_on_the_way():
    model = Model(freeze=3)
    optimizer = torch.optim.SGD(trainable(model), lr=0.1)
    with Contract(model, optimizer):
        careless(model, optimizer)
        model.graft.freeze_to(1)
        for group in tg.parameter_groups(model.graft, rate=0.1, beside=optimizer):
            optimizer.add_param_group(group)
        before = kept(model)
        careless(model, optimizer)
        assert "parts.graft.body.network.blocks.0.conv.weight" in differing(kept(model), before)
    contract = Contract(model)
    contract.begin()
    for parameter in model.graft.frozen.parameters():
        nn.init.ones_(parameter)
    model.graft.freeze_to(0)
    with pytest.raises(tg.RunningError, match=r"2 tensors .* stem.weight, stem.bias"):
        model(example_maps())


def test_after_the_end_and_after_an_error_nothing_listens():
    model = Model()
    with pytest.raises(ZeroDivisionError), Contract(model):
        raise ZeroDivisionError
    with Contract(model):
        pass
    assert not model.graft._forward_pre_hooks
    for module in model.modules():
        module.train()
    model(example_maps())
    assert all(module.training for module in model.graft.frozen.modules())


def test_a_module_without_a_graft_is_told():
    with pytest.raises(tg.TopgraftError, match="There is no graft in Linear; expected one"):
        Contract(nn.Linear(2, 2)).begin()


def test_of_two_grafts_the_one_that_changed_is_named():
    both = nn.ModuleDict({"left": graft_of(CHAIN, 4, 2), "right": graft_of(CHAIN, 4, 1)})
    with pytest.raises(tg.RunningError, match=r"1 tensor .*: right: stem.bias"), Contract(both):
        nn.init.ones_(both["right"].frozen.network.stem.bias)
