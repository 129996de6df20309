from __future__ import annotations

import copy
import functools

import pytest
import torch
from small_networks import (
    CLASSES,
    differing,
    example_maps,
    graft_of,
    kept,
    maps,
    small_rows,
    tensors_of,
)
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import topgraft as tg
from topgraft.chain import Chain, State
from topgraft.graft import Graft
from topgraft.head import Head
from topgraft.pooling import pool

ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


@functools.cache
def chain_of() -> Chain:
    return Chain.of(maps(), example_maps())


def test_it_is_the_graft_of_these_blocks_and_leaves_the_model_as_it_was():
    network = small_rows().train()
    network[1].eval()
    before, modes = kept(network), [m.training for m in network.modules()]
    graft = tg.graft(network, keep=2, freeze=1, head=5, example=ROWS)
    chain = Chain.of(network, ROWS)
    same = Graft(chain, 2, 1, copy.deepcopy(graft.head))
    assert torch.equal(graft(ROWS), same(ROWS))
    assert graft(ROWS).shape == (4, 5)
    assert (graft.keep, graft.freeze) == (2, 1)
    assert graft.training
    assert graft.head.training
    assert graft.frozen is not None
    assert not any(module.training for module in graft.frozen.modules())
    graft(ROWS).sum().backward()
    torch.optim.SGD([p for p in graft.parameters() if p.requires_grad], lr=1.0).step()
    assert differing(kept(network), before) == set()
    assert [m.training for m in network.modules()] == modes


@pytest.mark.parametrize(
    ("keep", "freeze", "numbers"),
    [("all", "all", (4, 4)), ("50%", 0, (2, 0)), ("blocks.1", "50%", (3, 2)), (4, "blocks", (4, 4))],
)
def test_keep_and_freeze_are_said_as_on_the_command_line(keep, freeze, numbers):
    graft = tg.graft(chain_of(), keep=keep, freeze=freeze, head=2)
    assert (graft.keep, graft.freeze) == numbers


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": "auto"}, r"keep=auto is decided on data.*`tg.fit` decides.*\nGive 1 to 4"),
        ({"freeze": "auto"}, r"freeze=auto is decided on data.*`tg.probe` and `tg.advise`"),
        ({"keep": "block.1"}, r"keep=block.1 is no block of Maps. Nearest: blocks.1.*Its `chain` has all 4"),
        ({"keep": 2, "freeze": 3}, "freeze=3 is more than the 2 blocks that are kept"),
        ({"head": 0}, "head=0 is no number of logits"),
        ({"head": "three"}, "The head is a str; expected the number of logits, a module, or a function"),
        ({"head": True}, "The head is a bool"),
        ({"head": nn.Linear(7, 3)}, r"The head, Linear, can't read what it is fed, rows of 12 numbers"),
        (
            {"head": nn.Flatten(0)},
            r"The head, Flatten, gave \(24,\) for 2 examples; expected a tensor with 2",
        ),
        ({"head": nn.Linear(12, 3), "hidden": (4,)}, "yours has its own layers"),
        ({"hidden": (0,)}, r"hidden=\(0,\), dropout=0: expected widths of 1 or more"),
        ({"pooled": False}, "pooled=False is for a head of your own"),
        ({"example": example_maps()}, "this network is loaded already"),
    ],
)
def test_what_can_not_be_meant_is_told(options, says):
    with pytest.raises(tg.TopgraftError, match=f"(?s){says}"):
        tg.graft(chain_of(), **{"freeze": 0, "head": 3, **options})


def test_what_is_no_model_is_told():
    with pytest.raises(tg.TopgraftError, match="The model is maps, which is not called; expected a name"):
        tg.graft(maps, freeze=0, head=3)
    with pytest.raises(tg.TopgraftError, match="Nearest: resnet18"):
        tg.graft("timm/resnet188", freeze=0, head=3)


def test_a_head_of_ones_own_reads_pooled_rows():
    chain = chain_of()
    rows = pool(chain[:3].eval()(example_maps()), "map")
    own = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 5)).train()
    before = kept(own)
    graft = tg.graft(chain, keep=3, freeze="all", head=own)
    assert differing(kept(own), before) == set()  # it was tried in eval mode
    assert own[0].training
    assert torch.allclose(graft.eval()(example_maps()), own(rows), atol=1e-6)
    assert [name for name, _, _ in graft.trainable()] == [
        f"head.module.{n}" for n, _ in own.named_parameters()
    ]
    told: list[int] = []
    made = tg.graft(chain, keep=3, freeze=0, head=lambda width: told.append(width) or nn.Linear(width, 2))
    assert (told, made(example_maps()).shape) == ([12], (4, 2))
    lazy = tg.graft(chain, keep=3, freeze=0, head=nn.LazyLinear(2))
    assert lazy.head.module.in_features == 12


class OfMaps(nn.Module):
    """A head for maps as they cross the cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, state: State) -> Tensor:
        return self.layer(state.tensors[0]).amax((2, 3))


def test_a_head_of_ones_own_may_read_the_state():
    chain = chain_of()
    graft = tg.graft(chain, keep=3, freeze=1, head=OfMaps, pooled=False).eval()
    assert graft.head.module.layer.in_channels == 6
    with torch.no_grad():
        expected = graft.head.module(chain[:3].eval()(example_maps()))
        assert torch.allclose(graft(example_maps()), expected, atol=1e-5)


def test_hidden_layers_and_dropout_of_the_head():
    graft = tg.graft(chain_of(), keep=2, freeze=0, head=CLASSES, hidden=(7, 5), dropout=0.5)
    layers = [m.out_features for m in graft.head.modules() if isinstance(m, nn.Linear)]
    assert layers == [CLASSES, 7, 5, CLASSES]
    assert not torch.equal(graft(example_maps()), graft(example_maps()))
    assert torch.equal(graft.eval()(example_maps()), graft(example_maps()))


def test_a_text_network_takes_its_dictionary():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    network = BertModel(config, add_pooling_layer=False).eval()
    batch = {"input_ids": torch.randint(0, 30, (4, 6)), "attention_mask": torch.ones(4, 6, dtype=torch.long)}
    batch["attention_mask"][1, 4:] = 0
    graft = tg.graft(network, keep="encoder.layer.1", freeze="encoder.layer.0", head=2, example=batch).eval()
    hidden = network(**batch, output_hidden_states=True).hidden_states[graft.keep - 1]
    expected = graft.head(pool(State((hidden,), batch), "tokens"))
    assert torch.allclose(graft(batch), expected, atol=1e-5)
    graft.train()(batch).sum().backward()
    assert {n.split(".")[2] for n, p, _ in graft.trainable() if p.grad is not None and "layer" in n} == {"1"}


def test_rates_fall_from_block_to_block_and_frozen_parameters_are_in_no_group():
    graft = tg.graft(chain_of(), freeze=2, head=CLASSES)
    groups = tg.parameter_groups(graft, rate=0.1, decay=0.5, weight_decay=0.3)
    found = {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert found == {
        "blocks.1.conv.weight": (0.05, 0.3),
        "blocks.1.norm.weight": (0.05, 0.0),
        "blocks.1.norm.bias": (0.05, 0.0),
        "blocks.2.conv.weight": (0.1, 0.3),
        "blocks.2.norm.weight": (0.1, 0.0),
        "blocks.2.norm.bias": (0.1, 0.0),
        "head.linear.weight": (0.1, 0.3),
        "head.linear.bias": (0.1, 0.0),
    }
    assert tensors_of(groups) == {id(p) for p in graft.parameters() if p.requires_grad}


def test_groups_of_what_trains_only_now_are_added_to_an_optimizer():
    graft = tg.graft(chain_of(), freeze=3, head=CLASSES)
    optimizer = torch.optim.AdamW(tg.parameter_groups(graft, rate=0.1))
    graft.freeze_to(2)
    more = tg.parameter_groups(graft, rate=0.1, decay=0.5, beside=optimizer)
    assert {name for group in more for name in group["names"]} == {
        f"blocks.1.{name}" for name in ("conv.weight", "norm.weight", "norm.bias")
    }
    for group in more:
        optimizer.add_param_group(group)
    assert tg.parameter_groups(graft, rate=0.1, beside=optimizer) == []
    before = kept(graft)
    nn.functional.cross_entropy(graft(example_maps()), torch.arange(4) % CLASSES).backward()
    optimizer.step()
    assert any("blocks.1.conv" in name for name in differing(kept(graft), before))


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"decay": 1.5}, {"decay": 0.0}, {"weight_decay": -1.0}])
def test_rates_out_of_range_are_told(options):
    graft = graft_of(chain_of(), 2, 1)
    with pytest.raises(tg.TopgraftError, match="expected a rate over 0, a decay over 0 up to 1"):
        tg.parameter_groups(graft, **{"rate": 0.1, **options})


def test_the_head_made_here_is_the_tools_own():
    graft = tg.graft(chain_of(), freeze=0, head=3)
    assert isinstance(graft.head, Head)
    assert graft.head.layout == chain_of().blocks[-1].layout
