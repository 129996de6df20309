from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_networks import differing, example_maps, kept, maps, settled
from torch import Tensor, nn

from topgraft.chain import Chain, State
from topgraft.errors import TopgraftError

# random networks: every cut composes to the network, bit for bit


@st.composite
def sequentials(draw: st.DrawFn) -> tuple[nn.Sequential, Tensor]:
    """Plain stacks of layers, flat or nested, with and without an output layer."""
    torch.manual_seed(draw(st.integers(0, 99)))
    width = draw(st.integers(2, 6))
    layers: list[nn.Module] = []
    size = 5
    for kind in draw(st.lists(st.sampled_from(["relu", "norm", "plain", "dropout", "nested"]), max_size=5)):
        part: list[nn.Module] = [nn.Linear(size, width)]
        if kind == "relu":
            part.append(nn.ReLU(inplace=draw(st.booleans())))
        elif kind == "norm":
            part += [nn.BatchNorm1d(width), nn.GELU()]
        elif kind == "dropout":
            part.append(nn.Dropout(0.5))
        elif kind == "nested":
            part = [nn.Sequential(*part, nn.LayerNorm(width), nn.Tanh())]
        layers += part
        size = width
    layers.append(nn.Linear(size, 3))
    return settled(nn.Sequential(*layers)), torch.randn(4, 5)


class Block(nn.Module):
    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.3)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.b(torch.relu(self.a(self.norm(x)))))
        return y if self.kind == "plain" else x + y


class Stack(nn.Module):
    """A stem, a list of blocks, a norm, and an output layer or none."""

    def __init__(self, kinds: list[str], width: int, *, norm: bool, output: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(5, width)
        self.blocks = nn.ModuleList(Block(width, kind) for kind in kinds)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.fc = nn.Linear(width, 3) if output else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.norm(x))


@st.composite
def stacks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(draw(st.integers(0, 99)))
    kinds = draw(st.lists(st.sampled_from(["layer", "batch", "plain"]), min_size=1, max_size=4))
    network = Stack(kinds, draw(st.integers(2, 6)), norm=draw(st.booleans()), output=draw(st.booleans()))
    return settled(network), torch.randn(4, 5)


def check_every_cut(
    network: nn.Module, x: Tensor, after: Callable[[Tensor], Tensor], *, output_layer: str | None = None
) -> Chain:
    before = kept(network)
    chain = Chain.of(network, x, output_layer=output_layer)
    fresh = torch.randn(7, *x.shape[1:], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = network(fresh)
        for k in range(len(chain) + 1):
            front, rest = chain[:k].eval(), chain[k:].eval()
            state = front(fresh) if k else fresh
            assert torch.equal(after(rest(state)), wanted), k
            for middle in range(k + 1, len(chain)):
                between = chain[k:middle].eval()(state)
                assert torch.equal(after(chain[middle:].eval()(between)), wanted), (k, middle)
    assert differing(kept(network), before) == set()
    assert not network.training
    return chain


@settings(max_examples=25)
@given(sequentials())
def test_every_cut_of_a_sequential_composes_to_the_network_bit_for_bit(
    drawn: tuple[nn.Sequential, Tensor],
) -> None:
    network, x = drawn
    assume(len(network) > 1)
    chain = check_every_cut(network, x, network[-1])
    assert chain.refused == ()
    linears = [n for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    assert len(chain) == len(linears) - 1  # the last is the old output layer


@settings(max_examples=25)
@given(stacks())
def test_every_cut_of_a_residual_network_composes_to_the_network_bit_for_bit(
    drawn: tuple[Stack, Tensor],
) -> None:
    network, x = drawn
    ends_in_linear = network.blocks[-1].kind == "plain" and isinstance(network.norm, nn.Identity)
    has_output = isinstance(network.fc, nn.Linear)
    chain = check_every_cut(
        network, x, network.fc, output_layer="" if ends_in_linear and not has_output else None
    )
    assert [b.name for b in chain][1:] == [f"blocks.{i}" for i in range(len(network.blocks))]


@settings(max_examples=15)
@given(stacks())
def test_parts_own_each_parameter_and_buffer_once_and_share_it_with_the_network(
    drawn: tuple[Stack, Tensor],
) -> None:
    network, x = drawn
    chain = Chain.of(network, x, output_layer="fc" if isinstance(network.fc, nn.Linear) else "")
    seen: list[str] = []
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    for k in range(len(chain)):
        part = chain[k : k + 1]
        names = list(part.weights())
        seen += names
        assert set(names) == chain.names_of(k + 1) - chain.names_of(k)
        for name, tensor in (*part.network.named_parameters(), *part.network.named_buffers()):
            if name in names:
                assert tensor is own[name]
        assert sum(p.numel() for p in part.parameters()) == chain.blocks[k].parameters
    assert len(seen) == len(set(seen))
    outside = {n for n in network.state_dict() if n.startswith("fc.")}
    assert set(seen) | outside == set(network.state_dict())


# networks as they are published


def before_output(network: nn.Module, x: Tensor) -> Tensor:
    return network.forward_head(network.forward_features(x), pre_logits=True)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_vit2", "test_vit3"]
)
def test_the_families_of_timm_compose_at_every_cut(name):
    torch.manual_seed(0)
    network = settled(timm.create_model(name))
    chain = Chain.of(network, torch.randn(2, 3, 160, 160))
    assert chain.refused == ()
    assert len(chain) >= 5
    x = torch.randn(3, 3, 160, 160)
    with torch.no_grad():
        wanted = before_output(network, x)
        for k in range(1, len(chain) + 1):
            got = chain[k:](chain[:k](x))
            scale = float(wanted.abs().max())
            assert torch.allclose(got, wanted, atol=1e-5 * scale), k
    assert all(block.verified and block.difference <= 1e-5 for block in chain)
    assert sum(b.parameters for b in chain) + sum(
        p.numel() for p in network.get_classifier().parameters()
    ) == pytest.approx(sum(p.numel() for p in network.parameters()), rel=0.02)
    assert sum(chain.share_of_work()) == pytest.approx(1)
    assert sum(chain.share_of_parameters()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "albert", "modernbert"])
def test_text_encoders_compose_at_every_cut_with_padding(kind):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
    special = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    network = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=20, **sizes, **special)).eval()
    ids = torch.randint(5, 20, (3, 6))
    mask = torch.ones_like(ids)
    mask[0, 4:], mask[1, 2:] = 0, 0
    ids = ids * mask
    inputs = {"input_ids": ids, "attention_mask": mask}
    chain = Chain.of(network, inputs, output_layer="")
    assert len(chain) >= 3
    longer = {n: torch.cat([t, torch.zeros(3, 4, dtype=t.dtype)], 1) for n, t in inputs.items()}
    with torch.no_grad():
        wanted = network(**inputs).last_hidden_state
        for k in range(1, len(chain)):
            state = chain[:k](inputs)
            assert set(state.inputs) == {"input_ids", "attention_mask"}
            assert torch.allclose(chain[k:](state), wanted, atol=1e-5), k
            padded = chain[k:](chain[:k](longer))[:, :6]
            assert torch.allclose(padded[mask.bool()], wanted[mask.bool()], atol=1e-5), k


# what a chain says and refuses


def test_blocks_say_what_they_are():
    chain = Chain.of(maps(depth=2), example_maps())
    assert [(b.index, b.name, b.kind, b.layout, b.shape) for b in chain] == [
        (1, "stem", "Conv2d", "map", (6, 6, 6)),
        (2, "blocks.0", "Residual", "map", (6, 6, 6)),
        (3, "blocks.1", "Residual", "map", (6, 6, 6)),
    ]
    assert [b.parameters for b in chain] == [2 * 6 * 9 + 6, 6 * 6 * 9 + 12, 6 * 6 * 9 + 12]
    assert [b.macs for b in chain] == [2 * 6 * 9 * 36, 6 * 6 * 9 * 36, 6 * 6 * 9 * 36]
    assert len(chain) == 3
    assert chain.input_names == ("x",)


def test_inputs_are_given_by_name_as_a_tensor_or_in_order():
    network = maps(depth=1)
    x = example_maps()
    chain = Chain.of(network, {"x": x})
    assert [b.name for b in Chain.of(network, [x])] == [b.name for b in chain]
    with torch.no_grad():
        assert torch.equal(chain[:1](x).tensors[0], chain[:1]({"x": x}).tensors[0])


def test_a_chain_is_cut_by_slices():
    chain = Chain.of(maps(), example_maps())
    with pytest.raises(TypeError, match="cut by slices"):
        chain[0:4:2]
    with pytest.raises(ValueError, match="ends before it begins"):
        chain[3:1]
    assert (chain[-2:].start, chain[:-1].stop) == (2, 3)
    assert chain[:99].stop == 4


def test_everything_that_crosses_a_cut_is_in_the_state():
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block(5, "layer") for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            first = self.blocks[0](x)
            second = self.blocks[1](first)
            third = self.blocks[2](second)
            return self.blocks[3](third + first)  # around blocks 1 and 2

    chain = Chain.of(Skips().eval(), torch.randn(4, 5))
    # the sum enters block 3, so that one activation crosses before it
    assert [(b.name, b.layout) for b in chain] == [
        ("blocks.0", "vector"),
        ("blocks.1", "vector+vector"),
        ("blocks.2", "vector"),
        ("blocks.3", "vector"),
    ]
    assert chain.blocks[1].shapes == ((5,), (5,))
    with torch.no_grad():
        x = torch.randn(3, 5)
        for k in range(1, len(chain) + 1):
            assert torch.equal(chain[k:](chain[:k](x)), chain.network(x))
            for middle in range(k + 1, len(chain)):
                assert torch.equal(chain[middle:](chain[k:middle](chain[:k](x))), chain.network(x))


def test_a_network_whose_examples_depend_on_each_other_is_refused():
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = x - x.mean(0)
            for block in self.blocks:
                x = block(x)
            return x

    with pytest.raises(TopgraftError, match="an example alone differs from the same in a batch"):
        Chain.of(Centred(), torch.randn(4, 5))


def test_a_network_that_differs_from_run_to_run_is_refused():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x + torch.rand(()))
            return x

    with pytest.raises(TopgraftError, match=r"no cut of Noisy holds"):
        Chain.of(Noisy(), torch.randn(4, 5))


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (torch.randn(1, 5), "at least two examples"),
        (torch.randn(4, 6), "does not run on input"),
        ([torch.randn(4, 5), torch.randn(4, 5)], "2 inputs given; Sequential takes input"),
        ({"inputs": torch.randn(4, 5)}, "does not run on input"),
    ],
)
def test_an_example_that_does_not_fit_gets_a_message(example, says):
    with pytest.raises(TopgraftError, match=says):
        Chain.of(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), example)


def test_the_network_keeps_its_modes_hooks_and_values():
    network = maps().train()
    network.blocks[1].eval()
    modes = {n: m.training for n, m in network.named_modules()}
    before = kept(network)
    chain = Chain.of(network, example_maps())
    with torch.no_grad():
        chain[:2].eval()(example_maps())
    assert {n: m.training for n, m in network.named_modules()} == modes
    assert differing(kept(network), before) == set()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_chain_and_its_parts_can_be_copied():
    chain = Chain.of(maps(), example_maps())
    part = copy.deepcopy(chain[1:3])
    state = State((torch.randn(3, 6, 6, 6),))
    with torch.no_grad():
        assert torch.equal(part(state).tensors[0], chain[1:3](state).tensors[0])
        next(iter(part.parameters())).add_(1)
        assert not torch.equal(part(state).tensors[0], chain[1:3](state).tensors[0])


def test_with_the_points_of_an_earlier_chain_it_is_the_same_chain():
    chain = Chain.of(maps(), example_maps())
    other = Chain.of(maps(seed=4), example_maps(), points=chain.points)
    assert [(b.name, b.shape, b.parameters) for b in other] == [
        (b.name, b.shape, b.parameters) for b in chain
    ]
    assert other.points == chain.points


def test_gradients_from_a_state_are_those_with_the_beginning_frozen():
    network = maps(dropout=0.5)
    chain = Chain.of(network, example_maps())
    for cut in range(1, len(chain)):
        apart, _ = chain.gradients_apart(cut)
        assert apart <= 1e-5


def test_a_cut_from_which_training_would_differ_is_refused():
    class GoesByParts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block(5, "layer") for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
                x = x * (2 if self.training and any(True for _ in self.blocks[0].parameters()) else 1)
            return x

    chain = Chain.of(GoesByParts().eval(), torch.randn(4, 5), output_layer="")
    assert any("gradients differ" in r.reason for r in chain.refused)
    unchecked = Chain.of(GoesByParts().eval(), torch.randn(4, 5), output_layer="", gradients=False)
    assert unchecked.refused == ()
    assert unchecked.gradients_apart(1)[0] > 1e-4
