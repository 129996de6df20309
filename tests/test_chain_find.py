from __future__ import annotations

import pytest
import torch
from small_networks import example_maps, maps
from torch import Tensor, nn

from topgraft.chain.find import (
    block_name,
    boundary,
    find_output_layer,
    has_parameters,
    holds_blocks,
    layout,
)
from topgraft.chain.record import Recording, record


def recorded(network: nn.Module, x: Tensor) -> Recording:
    name = "x" if not isinstance(network, nn.Sequential) else "input"
    return record(network.eval(), {name: x})


def blocks_of(network: nn.Module, x: Tensor, output_layer: str | None = None) -> list[tuple[str, list[str]]]:
    recording = recorded(network, x)
    found = layout(recording, output_layer)
    return [(block_name(g, recording), [c.name for c in g.calls]) for g in found.groups]


def test_what_has_no_parameters_joins_the_block_before_it():
    network = nn.Sequential(
        nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 2)
    )
    assert blocks_of(network, torch.randn(2, 4)) == [("0", ["0", "1", "2"]), ("3", ["3", "4"])]


def test_lists_are_opened_and_their_elements_are_blocks():
    network = nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU()),
        nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Sequential(nn.Linear(6, 6))),
        nn.Linear(6, 2),
    )
    assert [name for name, _ in blocks_of(network, torch.randn(2, 4))] == ["0.0", "1.0.0", "1.1.0"]


def test_pooling_stays_outside_so_that_maps_can_be_pooled_by_the_head():
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    recording = recorded(network, torch.randn(2, 2, 6, 6))
    found = layout(recording)
    assert [[c.name for c in g.calls] for g in found.groups] == [["0", "1"]]
    assert [c.name for c in found.tail] == ["2", "3"]
    assert found.output_layer is not None
    assert found.output_layer.name == "4"


def test_everything_before_the_first_list_of_blocks_is_the_stem():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
            self.conv2 = nn.Conv2d(4, 4, 1)
            self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
            self.final = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv2(self.act(self.norm(self.conv(x))))
            for block in self.blocks:
                x = block(x)
            return self.final(x)

    assert blocks_of(Network(), torch.randn(2, 2, 5, 5)) == [
        ("conv", ["conv", "norm", "act", "conv2"]),
        ("blocks.0", ["blocks.0"]),
        ("blocks.1", ["blocks.1", "final"]),
    ]


def test_the_output_layer_is_found_asked_for_or_denied():
    recording = recorded(maps(), example_maps())
    assert find_output_layer(recording, None) == "fc"
    assert find_output_layer(recording, "") is None
    assert find_output_layer(recording, "blocks.2") == "blocks.2"
    headless = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    assert find_output_layer(recorded(headless, torch.randn(2, 4)), None) is None
    sequence = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert find_output_layer(recorded(sequence, torch.randn(2, 3, 4)), None) is None


def test_what_holds_a_list_of_blocks_is_told_from_a_block():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert holds_blocks(nn.ModuleDict({"encoder": nn.TransformerEncoder(layer, 2)}))
    assert not holds_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert has_parameters(layer)
    assert not has_parameters(nn.Sequential(nn.ReLU()))


def test_the_boundary_is_the_beginning_of_the_next_block_then_the_end_of_this_one():
    found = layout(recorded(maps(), example_maps()))
    points = boundary(found.groups[1], found.groups[2])
    assert [(p.module, p.when) for p in points] == [("blocks.1", "enter"), ("blocks.0", "exit")]
    assert [(p.module, p.when) for p in boundary(found.groups[-1], None)] == [("blocks.2", "exit")]


def test_where_the_form_changes_between_blocks_the_end_of_this_one_comes_first():
    class Flattens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(2, 3, 3), nn.Linear(27, 4)])

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](self.layers[0](x).flatten(1))

    found = layout(recorded(Flattens(), torch.randn(2, 2, 5, 5)), "")
    points = boundary(found.groups[0], found.groups[1])
    assert [(p.module, p.when) for p in points] == [("layers.0", "exit"), ("layers.1", "enter")]


def test_a_network_without_parameters_is_one_block():
    assert [names for _, names in blocks_of(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.randn(2, 3))] == [
        ["0", "1"]
    ]


@pytest.mark.parametrize(
    ("names", "wanted"), [((0, 1), "features.0"), ((0,), "features.0.0")], ids=["whole list", "part of it"]
)
def test_a_block_has_the_name_of_the_list_that_holds_just_its_parts(names, wanted):
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
            self.features = nn.ModuleList([inner])

        def forward(self, x: Tensor) -> Tensor:
            return self.features[0](x)

    recording = recorded(Network(), torch.randn(2, 2, 3, 3))
    found = layout(recording, "")
    group = found.groups[0]
    group.calls = [group.calls[i] for i in names]
    assert block_name(group, recording) == wanted
