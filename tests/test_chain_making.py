from __future__ import annotations

from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import example_maps, maps
from torch import Tensor, nn

from topgraft.chain import Chain
from topgraft.chain.pair import Pair, by_name
from topgraft.chain.point import Dim
from topgraft.chain.proof import difference
from topgraft.errors import RunningError, TopgraftError


@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5),
    by=st.floats(0.015625, 10, width=32),
)
def test_the_difference_is_relative_to_the_scale(values: list[float], by: float) -> None:
    a = torch.tensor([*values, 50.0])
    b = a.clone()
    b[-1] += by
    assert difference(a, a) == 0.0
    scale = max(a.abs().max().item(), b.abs().max().item())
    assert difference(a, b) == pytest.approx((b[-1] - 50).item() / scale)
    assert difference(a, b) == difference(b, a)


@pytest.mark.parametrize("bad", [nan, inf])
def test_what_is_not_a_number_is_infinitely_different(bad):
    a = torch.tensor([1.0, 2.0])
    assert difference(a, torch.tensor([1.0, bad])) == inf
    assert difference(torch.tensor([bad, bad]), a) == inf
    assert difference(a, torch.ones(3)) == inf
    assert difference(torch.zeros(0), torch.zeros(0)) == 0.0


def test_two_runs_tell_sizes_of_the_batch_and_the_length_from_fixed_ones():
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.linear = nn.Embedding(9, 4), nn.Linear(4, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.linear(self.embed(ids))

    pair = Pair(Steps(), {"ids": torch.randint(0, 9, (2, 5))})
    call = next(c for c in pair.first.calls() if c.name == "linear")
    assert pair.shapes(call).dims == (Dim(1, batch=1), Dim(1, length=1), Dim(4))
    assert pair.input_shapes["ids"].dims == (Dim(1, batch=1), Dim(1, length=1))
    chain = Chain.of(Steps(), torch.randint(0, 9, (2, 5)), output_layer="")
    assert [(b.shape, b.layout) for b in chain] == [((-1, 4), "tokens"), ((-1, 4), "tokens")]


def test_a_network_whose_path_depends_on_the_batch_is_refused():
    class Wayward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if len(x) % 2 else self.b(x)

    with pytest.raises(TopgraftError, match="computes otherwise for another batch"):
        Chain.of(Wayward(), torch.randn(4, 3))


def test_inputs_are_named_after_the_forward():
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor, *, flag: bool = False) -> Tensor:
            return a + b if not flag else a

    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    assert list(by_name(Two(), [a, b])) == ["a", "b"]
    assert list(by_name(Two(), {"b": b, "a": a})) == ["b", "a"]
    with pytest.raises(TopgraftError, match="3 inputs given; Two takes a, b"):
        by_name(Two(), [a, b, a])
    with pytest.raises(TopgraftError, match=r"a \(2, 3\), b \(3, 3\); expected a batch of at least two"):
        by_name(Two(), {"a": a, "b": torch.ones(3, 3)})


@pytest.mark.parametrize(
    ("network", "example", "layouts"),
    [
        (maps(depth=1), example_maps(), ["map", "map"]),
        (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 2)), torch.randn(2, 4), ["vector"] * 2),
        (
            nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
            torch.randn(2, 5, 5, 3),
            ["map_last", "map_last"],
        ),
    ],
    ids=["map", "vector", "map_last"],
)
def test_layouts_are_told_from_shapes(network, example, layouts):
    assert [block.layout for block in Chain.of(network.eval(), example)] == layouts


def test_blocks_that_nothing_trains_in_have_no_parameters():
    chain = Chain.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(2, 2, 2))
    assert [b.parameters for b in chain] == [20]


def test_shared_weights_are_named_and_counted_once():
    network = maps(shared=(0, 2))
    chain = Chain.of(network, example_maps())
    assert chain.owner_of()["blocks.0.conv.weight"] == 2
    assert chain.owner_of()["blocks.2.conv.weight"] == 2
    assert {"blocks.0.conv.weight", "blocks.2.conv.weight"} <= chain.names_of(2)
    assert chain.blocks[3].parameters == 12  # its norm
    head = sum(p.numel() for p in network.fc.parameters())
    assert sum(b.parameters for b in chain) == sum(p.numel() for p in network.parameters()) - head


def test_an_output_layer_inside_a_residual_block_is_none():
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.linear(torch.tanh(x))

    chain = Chain.of(nn.Sequential(Adds(), Adds()), torch.randn(2, 3))
    assert [b.name for b in chain] == ["0", "1"]
    assert chain.anatomy.output is None
    with torch.no_grad():
        x = torch.randn(4, 3)
        assert torch.equal(chain[1:](chain[:1](x)), chain.network(x))


def test_an_output_layer_may_be_followed_by_what_has_no_parameters():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Softmax(1))
    chain = Chain.of(network, torch.randn(2, 3))
    assert [b.name for b in chain] == ["0"]
    with torch.no_grad():
        x = torch.randn(4, 3)
        assert torch.equal(chain[:](x), network[0](x))


class LooksAhead(nn.Module):
    """Its forward begins by asking a later part for the names that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.late = nn.Module()
        self.late.adapters = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
        self.late.forward = lambda x, n: self.late.adapters[n](x)

    def forward(self, rows: Tensor) -> Tensor:
        name = sorted(self.late.adapters.keys())[1]
        for block in self.blocks:
            rows = torch.tanh(block(rows))
        return self.late(rows, name)


def test_a_cut_up_to_which_the_network_does_not_run_alone_is_refused():
    with pytest.raises(TopgraftError, match=r"does not run up to here \(IndexError"):
        Chain.of(LooksAhead().eval(), torch.randn(3, 4), output_layer="")


class FailsInTraining(nn.Module):
    """Its forward goes on to something that fails in train mode only, after batch norms have run."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)) for _ in range(3)))
        self.head, self.error = nn.Linear(6, 2), error

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        if self.training:
            raise self.error
        return self.head(x)


def test_a_network_that_fails_in_train_mode_is_compared_in_eval_mode_with_its_own_statistics() -> None:
    torch.manual_seed(0)
    network, rows = FailsInTraining(ValueError("too small for the second output")), torch.randn(8, 6) + 3
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    chain = Chain.of(network.eval(), rows)
    assert (len(chain), chain.refused) == (3, ())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_want_of_memory_is_no_reason_to_refuse_a_cut() -> None:
    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 86102016 bytes."
    with pytest.raises(RunningError, match="not enough memory to prove the cuts"):
        Chain.of(FailsInTraining(RuntimeError(said)).eval(), torch.randn(8, 6))
