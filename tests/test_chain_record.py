from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from small_networks import differing, example_maps, kept, maps
from torch import Tensor, nn

from topgraft.chain.record import evaluating, record


def test_calls_are_noted_in_order_with_their_nesting():
    network = maps(depth=2)
    recording = record(network, {"x": example_maps()})
    assert [c.name for c in recording.calls() if c.name.count(".") < 2] == [
        "",
        "stem",
        "blocks.0",
        "blocks.1",
        "fc",
    ]
    assert recording.root.module is network
    for call in recording.calls():
        assert call.start < call.end
        for child in call.children:
            assert call.start < child.start < child.end < call.end
    outer = recording.root.children
    assert all(a.end < b.start for a, b in pairwise(outer))
    with torch.no_grad():
        assert torch.equal(recording.root.output, network(example_maps()))


def test_every_parameter_and_buffer_that_is_read_is_noted_when_it_is_read():
    network = maps(depth=2)
    recording = record(network, {"x": example_maps()})
    calls = {c.name: c for c in recording.calls()}
    tracked = {n for n in network.state_dict() if n.endswith("num_batches_tracked")}
    assert set(network.state_dict()) - recording.uses.keys() <= tracked
    for name, times in recording.uses.items():
        owner = calls[name.rpartition(".")[0]]
        assert all(owner.start <= t <= owner.end for t in times), name


def test_what_is_never_read_belongs_to_its_module():
    network = maps(depth=2)
    network.blocks[1].unused = nn.Parameter(torch.ones(3))
    recording = record(network, {"x": example_maps()})
    block = next(c for c in recording.calls() if c.name == "blocks.1")
    assert recording.uses["blocks.1.unused"] == [block.start]


def test_reads_that_torch_hides_count_for_their_module():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gru = nn.Linear(4, 4), nn.GRU(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(self.first(x))[0]

    recording = record(Recurrent(), {"x": torch.randn(2, 3, 4)})
    gru = next(c for c in recording.calls() if c.name == "gru")
    assert all(recording.uses[f"gru.{n}"] for n, _ in gru.module.named_parameters())
    assert min(recording.uses["gru.weight_ih_l0"]) >= gru.start


def test_a_module_that_is_called_again_is_counted():
    layer = nn.Linear(3, 3)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.relu(self.layer(x)))

    recording = record(Twice(), {"x": torch.randn(2, 3)})
    assert [(c.name, c.nth) for c in recording.calls()] == [("", 1), ("layer", 1), ("layer", 2)]


def test_work_is_counted_in_multiply_adds():
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    recording = record(network, {"input": torch.randn(3, 4)})
    assert recording.macs == 3 * (4 * 8 + 8 * 2)
    first, second = recording.root.children
    assert (first.macs_before, first.macs_after) == (0, 96)
    assert (second.macs_before, second.macs_after) == (96, 144)


def test_the_network_stays_as_it_was_even_when_it_fails():
    network = maps(dropout=0.5).train()
    network.blocks[0].eval()
    network.stem.weight.requires_grad_(False)
    before = kept(network)
    modes = [m.training for m in network.modules()]
    asking = [p.requires_grad for p in network.parameters()]
    record(network, {"x": example_maps()})
    with pytest.raises(RuntimeError):
        record(network, {"x": torch.randn(2, 5, 6, 6)})
    assert differing(kept(network), before) == set()
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == asking
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_modes_come_back_module_by_module():
    network = nn.Sequential(nn.Dropout(), nn.Dropout())
    network[1].eval()
    with evaluating(network):
        assert not any(m.training for m in network.modules())
    assert [m.training for m in network.modules()] == [True, True, False]
