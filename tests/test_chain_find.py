from __future__ import annotations

import pytest
import torch
from small_networks import example_maps, maps
from torch import Tensor, nn

from topgraft.chain import Chain
from topgraft.chain.find import (
    block_name,
    find_output_layers,
    has_parameters,
    holds_blocks,
    holds_named_blocks,
    is_listed_block,
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
    assert [c.name for c in found.output_layers] == ["4"]


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
    assert find_output_layers(recording, None) == ["fc"]
    assert find_output_layers(recording, "") == []
    assert find_output_layers(recording, "blocks.2") == ["blocks.2"]
    headless = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    assert find_output_layers(recorded(headless, torch.randn(2, 4)), None) == []
    sequence = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert find_output_layers(recorded(sequence, torch.randn(2, 3, 4)), None) == []


class TwoHeads(nn.Module):
    """Two output layers whose outputs are averaged, or one whose output is added to something else."""

    def __init__(self, *, adds: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head, self.other, self.adds = nn.Linear(4, 4), nn.Linear(4, 4), adds

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x + self.head(x) if self.adds else ((self.head(x) + self.other(x)) / 2).softmax(1)


def test_two_heads_that_are_averaged_are_the_output_layer_and_a_residual_one_is_not():
    assert find_output_layers(recorded(TwoHeads(), torch.randn(2, 4)), None) == ["head", "other"]
    assert find_output_layers(recorded(TwoHeads(adds=True), torch.randn(2, 4)), None) == []


def test_what_holds_a_list_of_blocks_is_told_from_a_block():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert holds_blocks(nn.ModuleDict({"encoder": nn.TransformerEncoder(layer, 2)}))
    assert not holds_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert has_parameters(layer)
    assert not has_parameters(nn.Sequential(nn.ReLU()))


class Mixer(nn.Module):
    """A block with a list of branches inside, and maybe a list that is called one of blocks."""

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.conv_kxk = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
        layer = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)]
        self.blocks = nn.ModuleList(Pair(*two) for two in layer) if inner else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + sum(branch(x) for branch in self.conv_kxk)
        for block in self.blocks if isinstance(self.blocks, nn.ModuleList) else ():
            x = block(x)
        return x


class Pair(nn.Module):
    """Two layers one after another."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.tanh(self.a(x)))


class Stages(nn.Module):
    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Mixer(inner=inner) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x


def test_branches_inside_a_block_are_no_blocks_and_lists_of_blocks_inside_are():
    assert not holds_named_blocks(Mixer(inner=False))
    assert holds_named_blocks(Mixer(inner=True))
    x = torch.randn(2, 4)
    assert [name for name, _ in blocks_of(Stages(inner=False), x, "")] == ["stages.0", "stages.1"]
    names = [name for name, _ in blocks_of(Stages(inner=True), x, "")]
    assert {"stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.1"} <= set(names)
    network = Stages(inner=True)
    calls = {c.name: c for c in recorded(network, x).calls()}
    assert is_listed_block(calls["stages.1"], network)
    assert is_listed_block(calls["stages.1.blocks.0"], network)
    assert not is_listed_block(calls["stages.1.conv_kxk.0"], network)


def test_children_that_are_numbered_are_a_list():
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b1, self.b2 = (Pair(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.b2(self.b1(x))

    assert holds_blocks(Stage())
    network = nn.ModuleDict({"s1": Stage(), "s2": Stage()})

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s1, self.s2 = network["s1"], network["s2"]

        def forward(self, x: Tensor) -> Tensor:
            return self.s2(self.s1(x))

    names = [name for name, _ in blocks_of(Network(), torch.randn(2, 4), "")]
    assert names == ["s1.b1", "s1.b2", "s2.b1", "s2.b2"]


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


def test_a_sequence_of_different_parts_called_block_is_one_block() -> None:
    from torchvision.models import efficientnet_b0

    chain = Chain.of(efficientnet_b0(weights=None).eval(), torch.randn(2, 3, 64, 64), gradients=False)
    names = [block.name for block in chain]
    assert names[:4] == ["features.0", "features.1.0", "features.2.0", "features.2.1"]
    assert not any(block.others for block in chain)


def test_a_dense_network_of_plain_sequences_is_cut_after_each_with_all_that_crosses() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Conv2d(3 + 4 * i, 4, 1), nn.BatchNorm2d(4), nn.ReLU()) for i in range(3)
            )
            self.head = nn.Linear(15, 2)

        def forward(self, x: Tensor) -> Tensor:
            seen = [x]
            for layer in self.layers:
                seen.append(layer(torch.cat(seen, 1)))
            return self.head(torch.cat(seen, 1).mean((2, 3)))

    network, pictures = Dense().eval(), torch.randn(2, 3, 4, 4)
    chain = Chain.of(network, pictures)
    assert [block.name for block in chain] == ["layers.0", "layers.1", "layers.2"]
    whole = torch.cat(list(chain[:1](pictures).tensors), 1)
    assert whole.shape[1] == 7  # the picture and what the first layer made of it
    for cut in range(1, 4):
        rest = chain.anatomy.segment(chain.network, cut, None, whole=True).eval()
        assert torch.equal(rest(chain[:cut](pictures)), network(pictures))


def test_a_row_of_blocks_of_one_class_is_a_list_whatever_they_are_called() -> None:
    class Inception(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch1 = nn.Linear(4, 2)
            self.branch2 = nn.Sequential(Pair(nn.Linear(4, 4), nn.Linear(4, 4)))
            self.proj = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(torch.cat([self.branch1(x), self.branch2(x)], 1))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inception3a, self.inception3b, self.inception4a = (Inception() for _ in range(3))
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.inception4a(self.inception3b(self.inception3a(x))))

    assert holds_blocks(Inception())  # by its second branch
    names = ["inception3a", "inception3b", "inception4a"]
    assert [name for name, _ in blocks_of(Network(), torch.randn(2, 4))] == names
    assert [block.name for block in Chain.of(Network().eval(), torch.randn(2, 4))] == names


def test_stages_of_numbered_blocks_stay_open_however_many_there_are() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b1, self.b2 = (Pair(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.b2(self.b1(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s1, self.s2, self.s3 = (Stage() for _ in range(3))
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.s3(self.s2(self.s1(x))))

    names = [block.name for block in Chain.of(Network().eval(), torch.randn(2, 4))]
    assert names == ["s1.b1", "s1.b2", "s2.b1", "s2.b2", "s3.b1", "s3.b2"]
