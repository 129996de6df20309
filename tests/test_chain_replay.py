from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import differing, example_maps, kept, maps
from torch import Tensor, nn

from topgraft.chain import Chain, Point, State
from topgraft.chain.replay import Dim, Segment, Shape, first_tensor, pruned


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


@given(
    factor=st.integers(1, 9),
    batch=st.integers(0, 1),
    length=st.integers(0, 1),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_sizes_follow_the_batch_and_the_length(
    factor: int, batch: int, length: int, sizes: tuple[int, int]
) -> None:
    dim = Dim(factor, batch, length)
    assert dim.size(*sizes) == factor * sizes[0] ** batch * sizes[1] ** length


def test_poison_is_one_number_of_the_right_shape_and_kind():
    shape = Shape((Dim(1, batch=1), Dim(4)), torch.float32)
    poison = shape.poison(torch.zeros(1, dtype=torch.bfloat16), 3, 7)
    assert (poison.shape, poison.dtype) == ((3, 4), torch.bfloat16)
    assert bool(poison.isnan().all())
    assert poison.untyped_storage().nbytes() == 2
    whole = Shape((Dim(2, length=1),), torch.int64).poison(torch.zeros(1), 3, 7)
    assert (whole.tolist(), whole.dtype) == ([0] * 14, torch.int64)


def test_points_come_back_from_json():
    point = Point("blocks.1", "enter", 2, ((0, 0), (1, "x")))
    assert Point.from_json(point.to_json()) == point
    with pytest.raises(ValueError, match="entered or left, not 'never'"):
        Point.from_json({**point.to_json(), "when": "never"})


def test_pruning_shares_what_stays_and_leaves_the_original_alone():
    network = maps()
    before = kept(network)
    shape = Shape((Dim(1, batch=1), Dim(6), Dim(6), Dim(6)), torch.float32)
    result = pruned(network, skip={"blocks.0": shape}, absent=["fc.weight"])
    assert differing(kept(network), before) == set()
    assert result.stem.weight is network.stem.weight
    assert not list(result.blocks[0].parameters())
    assert type(result.blocks[0]) is type(network.blocks[0])
    assert bool(result.fc.weight.isnan().all())
    assert "fc.weight" not in result.state_dict()
    with pytest.raises(RuntimeError, match="runs through its segment"):
        result(example_maps())


def test_the_first_tensor_is_found_in_any_output():
    assert first_tensor({"a": [3, (torch.ones(1),)], "b": torch.zeros(1)}).item() == 1


def test_a_part_says_where_it_lies_and_what_it_holds(chain):
    part = chain[1:3]
    assert isinstance(part, Segment)
    assert "start=1, stop=3" in repr(part)
    assert "(stem): Conv2d(not in this part)" in repr(part)
    assert part.weights().keys() == chain.names_of(3) - chain.names_of(1)
