from __future__ import annotations

import threading

import pytest
import torch
from small_networks import differing, example_maps, kept, maps
from torch import Tensor, nn

from topgraft.chain import Chain, State
from topgraft.chain.pruning import pruned
from topgraft.chain.replay import Segment, first_tensor


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain.of(maps(), example_maps())


def test_what_does_not_belong_to_a_part_is_not_run_and_takes_no_memory(chain):
    part = chain[2:3]
    present = {n for n, _ in part.network.named_parameters()}
    assert present == {n for n, _ in chain.network.named_parameters() if n.startswith("blocks.1.")}
    ran: list[str] = []
    for name, module in part.network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _a, _o, name=name: ran.append(name))
    with torch.no_grad():
        part(State((torch.randn(2, 6, 6, 6),)))
    assert [n for n in ran if n in {"blocks.1.conv"}] == ["blocks.1.conv"]
    assert "blocks.2.conv" not in ran
    stored = sum(t.untyped_storage().nbytes() for t in (*part.parameters(), *part.buffers()))
    own = sum(t.nbytes for t in part.weights().values())
    assert stored <= own + 64  # poison is one number each


def test_what_came_before_has_no_say(chain):
    with torch.no_grad():
        state = chain[:2](example_maps())
        wanted = chain[2:](state)
        chain.network.blocks[0].conv.weight.mul_(2)
        assert torch.equal(chain[2:](state), wanted)
        chain.network.blocks[0].conv.weight.mul_(0.5)


def test_a_state_that_is_not_a_number_shows(chain):
    with torch.no_grad():
        got = chain[2:](State((torch.full((2, 6, 6, 6), float("nan")),)))
    assert bool(got.isnan().all())


def test_taps_see_the_cuts_that_are_passed_and_nothing_else(chain):
    seen: dict[int, State] = {}
    with torch.no_grad():
        end = chain[:](example_maps(), tap=seen.__setitem__)
        for cut, state in seen.items():
            assert torch.equal(state.tensors[0], chain[:cut](example_maps()).tensors[0])
        part: dict[int, State] = {}
        chain[1:3](seen[1], tap=part.__setitem__)
    assert list(seen) == [1, 2, 3, 4]
    assert end.shape == (4, 6)
    assert list(part) == [2, 3]


def test_parts_run_side_by_side_in_threads_without_mixing(chain):
    part = chain[1:3].eval()
    states = [State((torch.randn(3, 6, 6, 6),)) for _ in range(6)]
    with torch.no_grad():
        wanted = [part(s).tensors[0] for s in states]
    got: dict[int, Tensor] = {}

    def work(i: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                got[i] = part(states[i]).tensors[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.allclose(got[i], wanted[i], atol=1e-6) for i in range(6))


def test_gradients_pass_through_a_part(chain):
    state = torch.randn(2, 6, 6, 6, requires_grad=True)
    part = chain[1:3]
    part(State((state,))).tensors[0].sum().backward()
    assert state.grad is not None
    assert bool(state.grad.ne(0).any())
    for parameter in part.parameters():
        assert parameter.grad is not None
        parameter.grad = None


def test_an_error_in_the_network_leaves_nothing_behind(chain):
    part = chain[:2]
    with pytest.raises(RuntimeError):
        part(torch.randn(2, 3, 6, 6))
    with torch.no_grad():
        assert part(example_maps()).tensors[0].shape == (4, 6, 6, 6)


def test_several_inputs_are_asked_for_by_name():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.blocks[1](self.blocks[0](a + b))

    chain = Chain.of(Two(), {"a": torch.randn(2, 3), "b": torch.randn(2, 3)}, output_layer="")
    with pytest.raises(TypeError, match=r"several inputs \(a, b\): give them by name"):
        chain[:1](torch.randn(2, 3))


def test_precision_and_device_of_the_state_are_kept(chain):
    part = chain[1:3].eval()
    double = part.to(torch.float64)
    with torch.no_grad():
        assert double(State((torch.randn(2, 6, 6, 6).double(),))).tensors[0].dtype == torch.float64


def test_the_first_tensor_is_found_in_any_output():
    assert first_tensor({"a": [3, (torch.ones(1),)], "b": torch.zeros(1)}).item() == 1


def test_a_part_says_where_it_lies_and_what_it_holds(chain):
    part = chain[1:3]
    assert isinstance(part, Segment)
    assert "start=1, stop=3" in repr(part)
    assert "(stem): Conv2d(not in this part)" in repr(part)
    assert part.weights().keys() == chain.names_of(3) - chain.names_of(1)


class Shared(nn.Module):
    """One layer that is called in every block, as some text encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.stem, self.layer = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


def test_a_module_that_is_called_in_several_blocks_runs_in_those_of_the_part_alone():
    network = Shared().eval()
    chain = Chain.of(network, torch.randn(4, 3), output_layer="")
    assert len(chain) == 4
    x = torch.randn(5, 3)
    with torch.no_grad():
        wanted = network(x)
        for k in range(1, 5):
            part, state = chain[k:].eval(), chain[:k].eval()(x)
            ran: list[str] = []

            def linear(self: nn.Linear, x: Tensor, ran: list[str] = ran) -> Tensor:
                ran.append("ran")
                return nn.functional.linear(x, self.weight, self.bias)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(nn.Linear, "forward", linear)
                assert torch.equal(part(state), wanted)
            assert len(ran) == 4 - k


def test_what_the_network_changes_in_place_leaves_the_state_as_it_was():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3)) for _ in range(3)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = x + 0
            for block in self.blocks:
                x = block(x)
                x += 1
            return x

    network = InPlace().eval()
    chain = Chain.of(network, torch.randn(4, 3), output_layer="")
    x = torch.randn(5, 3)
    with torch.no_grad():
        for k in range(1, len(chain) + 1):
            state = chain[:k].eval()(x)
            before = state.map(torch.clone)
            assert torch.equal(chain[k:].eval()(state), network(x))
            assert torch.equal(state.tensors[0], before.tensors[0])


def test_sequence_first_activations_are_stored_with_the_examples_first():
    class StepsFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(0, 1)
            for layer in self.layers:
                x = layer(x)
            return x.mean(0)

    network = StepsFirst().eval()
    chain = Chain.of(network, torch.randn(3, 5, 4), output_layer="")
    assert chain.blocks[0].shape == (5, 4)
    x = torch.randn(2, 5, 4)
    with torch.no_grad():
        state = chain[:1].eval()(x)
        assert state.tensors[0].shape == (2, 5, 4)
        assert torch.allclose(chain[1:].eval()(state), network(x), atol=1e-6)


def test_what_points_to_modules_points_to_those_of_the_part():
    class Pointing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.order = [self.first, self.second]
            self.named = {"second": self.second}
            self.run = self.first.forward
            self.sizes = (3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.named["second"](self.order[0](x))

    network = Pointing()
    part = pruned(network, skip={}, absent=[])
    assert part.order[0] is part.first is not network.first
    assert part.named["second"] is part.second
    assert part.run.__self__ is part.first
    assert part.first.weight is network.first.weight
    assert part.sizes is network.sizes
    assert differing(kept(part), kept(network)) == set()
    x = torch.randn(2, 3)
    with torch.no_grad():
        assert torch.equal(part(x), network(x))
