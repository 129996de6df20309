from __future__ import annotations

import functools
import subprocess
import sys

import pytest
import torch
from small_networks import CLASSES, differing, example_maps, kept, maps
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import topgraft as tg
from topgraft.chain import Chain
from topgraft.contract import Contract
from topgraft.graft import Graft
from topgraft.lora import add_lora, merge_lora


class Flat(nn.Module):
    """A residual block whose sum and activation are its own code, between its linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.norm(self.first(x))) * 2 + 1)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.blocks = nn.ModuleList(Flat() for _ in range(3))
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.stem(rows)
        for block in self.blocks:
            x = block(x) * 0.5
        return self.fc(x)


def plain() -> nn.Module:
    """Linear layers alone, so that each block ends just where a layer does."""
    return nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))


def bert() -> nn.Module:
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    return BertModel(config, add_pooling_layer=False)


def inputs_of(kind: str, count: int = 4) -> Tensor | dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    if kind == "maps":
        return example_maps(count, seed=2)
    if kind == "bert":
        mask = torch.ones(count, 6, dtype=torch.long)
        mask[1, 4:] = 0
        return {
            "input_ids": torch.randint(0, 30, (count, 6), generator=generator),
            "attention_mask": mask,
        }
    return torch.randn(count, 5, generator=generator)


@functools.cache
def chain_of(kind: str) -> Chain:
    torch.manual_seed(3)
    network = {"maps": maps, "rows": Rows, "plain": plain, "bert": bert}[kind]().eval()
    return Chain.of(network, inputs_of(kind), gradients=False)


def made(kind: str, *, freeze: int = 1, lora: int = 2, **options: object) -> Graft:
    chain = chain_of(kind)
    torch.manual_seed(5)
    return tg.graft(chain, freeze=freeze, head=CLASSES, lora=lora, **options)


def trained(graft: Graft, kind: str, steps: int = 3) -> Graft:
    optimizer = torch.optim.AdamW(tg.parameter_groups(graft, rate=0.05, weight_decay=0.1))
    inputs = inputs_of(kind, 9)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(graft.train()(inputs), torch.arange(9) % CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return graft.eval()


@pytest.mark.parametrize("kind", ["maps", "rows", "plain", "bert"])
@pytest.mark.parametrize("freeze", [0, 1])
def test_nothing_changes_but_what_was_added_and_the_head(kind, freeze):
    graft, without = made(kind, freeze=freeze, tune_norms=True), made(kind, freeze=freeze, lora=0)
    assert torch.equal(graft.eval()(inputs_of(kind)), without.eval()(inputs_of(kind)))
    before = kept(graft)
    trained(graft, kind)
    changed = differing(kept(graft), before)
    assert changed == {n for n, _ in graft.named_parameters() if ".lora_" in n or n.startswith("head.")}
    assert {name.removeprefix("head.") for name, _, _ in graft.trainable()} == {
        name.removeprefix("body.network.").removeprefix("head.") for name in changed
    }
    assert any(".lora_B" in name for name in changed)


@pytest.mark.parametrize(("kind", "keep"), [("maps", 3), ("rows", 3), ("plain", 2), ("bert", 3), ("bert", 4)])
def test_merged_it_gives_the_same_with_the_networks_own_names(kind, keep):
    graft = trained(made(kind, keep=keep), kind)
    before = made(kind, keep=keep, lora=0).kept_weights()
    expected, inputs = graft(inputs_of(kind, 7)), inputs_of(kind, 7)
    merge_lora(graft)
    assert torch.allclose(graft(inputs), expected, atol=1e-5)
    weights = graft.kept_weights()
    assert weights.keys() == before.keys()
    moved = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert moved
    assert all(name.endswith(".weight") and "norm" not in name.lower() for name in moved)
    assert len({id(p) for p in graft.parameters()}) == len(list(made(kind, keep=keep, lora=0).parameters()))
    graft.freeze_to(0)  # an ordinary graft again
    assert torch.allclose(graft(inputs), expected, atol=1e-5)


def test_what_is_added_is_the_product_of_two_small_matrices_at_the_very_end_of_a_block():
    graft = made("plain", lora=0, keep=2)
    add_lora(graft, rank=3, alpha=6)
    layer = graft.body.network[1]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape) == ((3, 6), (6, 3))
    nn.init.normal_(b)
    x = inputs_of("plain")
    with torch.no_grad():
        hidden = graft.frozen(x).tensors[0]
        weight, bias = layer.base_layer.weight, layer.base_layer.bias
        expected = hidden @ (weight + 2 * b @ a).T + bias
        assert torch.allclose(graft.body(graft.frozen(x)).tensors[0], expected, atol=1e-5)


def test_rates_are_those_of_the_blocks_in_which_it_is():
    groups = tg.parameter_groups(made("rows"), rate=0.1, decay=0.5)
    rates = {name: group["lr"] for group in groups for name in group["names"]}
    assert rates["blocks.2.second.lora_A.default.weight"] == rates["head.linear.weight"] == 0.1
    assert rates["blocks.1.second.lora_B.default.weight"] == 0.05
    assert rates["blocks.0.first.lora_A.default.weight"] == 0.025


def test_layers_are_chosen_by_name_or_pattern():
    graft = made("bert", lora=0)
    add_lora(graft, targets=["*.query", "encoder.layer.2.output.dense"])
    layers = {name.partition(".lora_")[0] for name, _, _ in graft.trainable() if ".lora_" in name}
    assert layers == {
        *(f"encoder.layer.{i}.attention.self.query" for i in range(3)),
        "encoder.layer.2.output.dense",
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"targets": "*.qery"}, r"\*.qery matches no layer .* in blocks 2 to 4"),
        ({"targets": "blocks.0.frist"}, r"matches no layer .* Nearest: blocks.0.first"),
        ({"targets": "stem"}, r"stem matches no layer"),  # it is frozen
        ({"rank": 0}, "rank=0, alpha=None: expected whole numbers of 1 or more"),
        ({"alpha": 0}, "rank=8, alpha=0: expected"),
    ],
)
def test_what_can_not_be_meant_is_told(options, says):
    with pytest.raises(tg.TopgraftError, match=says):
        add_lora(made("rows", lora=0), **options)


def test_twice_or_on_frozen_blocks_or_before_a_new_border_it_is_refused():
    with pytest.raises(tg.TopgraftError, match="All 4 kept blocks are frozen"):
        made("rows", freeze=4)
    graft = made("rows")
    with pytest.raises(tg.TopgraftError, match="has LoRA already; merge it first"):
        add_lora(graft)
    with pytest.raises(
        tg.TopgraftError, match=r"The blocks hold \d+ parameters .* such as blocks.0.first.*merge"
    ):
        graft.freeze_to(2)
    merge_lora(graft)
    with pytest.raises(tg.TopgraftError, match="There is no LoRA"):
        merge_lora(graft)


def test_the_contract_covers_the_layers_beside_which_it_is():
    graft = made("rows")
    with pytest.raises(tg.TopgraftError, match="1 parameter of frozen blocks is in the optimizer"):
        Contract(graft, torch.optim.SGD([graft.body.network.blocks[2].second.base_layer.weight])).begin()
    with Contract(graft, torch.optim.SGD([p for p in graft.parameters() if p.requires_grad])):
        trained(graft, "rows")
    with pytest.raises(tg.RunningError, match=r"blocks.1.norm.bias"), Contract(graft):
        nn.init.ones_(graft.body.network.blocks[1].norm.bias)


def test_without_peft_the_extra_is_named():
    code = """
import sys
sys.modules["peft"] = None
import torch, topgraft as tg
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
try:
    tg.graft(network, freeze=0, head=3, lora=2, example=torch.randn(2, 4))
except tg.TopgraftError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'topgraft[peft]'" in done.stdout
