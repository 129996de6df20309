from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_networks import CLASSES, differing, example_maps, graft_of, kept, maps, tensors_of
from torch import Tensor, nn

from topgraft.chain import Chain, State
from topgraft.errors import TopgraftError
from topgraft.graft import Graft
from topgraft.history import Recipe
from topgraft.optimising import parameter_groups
from topgraft.pooling import pool

DEPTH = 3
CUTS = DEPTH + 1


@functools.cache
def chain_of(seed: int = 0, dropout: float = 0.0, shared: tuple[int, ...] = ()) -> Chain:
    return Chain.of(maps(seed, depth=DEPTH, dropout=dropout, shared=shared), example_maps())


def steps(graft: Graft, count: int = 3) -> None:
    """Training as a person would write it, with the whole graft in training mode."""
    optimizer = torch.optim.AdamW(parameter_groups(graft, Recipe(rate=0.05, weight_decay=0.1)))
    x, targets = example_maps(12, seed=8), torch.arange(12) % CLASSES
    for _ in range(count):
        graft.train()
        loss = nn.functional.cross_entropy(graft(x), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


keeps = st.integers(1, CUTS)


@settings(max_examples=25)
@given(keep=keeps, data=st.data(), tune_norms=st.booleans(), dropout=st.sampled_from([0.0, 0.5]))
def test_frozen_blocks_keep_every_bit_and_the_others_change(
    keep: int, data: st.DataObject, tune_norms: bool, dropout: float
) -> None:
    freeze = data.draw(st.integers(0, keep))
    chain = chain_of(dropout=dropout)
    graft = graft_of(chain, keep, freeze, tune_norms=tune_norms, drop=True)
    frozen, body, head, original = kept(graft.frozen), kept(graft.body), kept(graft.head), kept(chain.network)
    assert ("network.blocks.0.norm.num_batches_tracked" in frozen) == (freeze >= 2)
    steps(graft)
    assert differing(kept(graft.frozen), frozen) == set()
    assert differing(kept(graft.head), head) == set(head)
    changed = differing(kept(graft.body), body)
    weights = {n for n, _ in graft.body.named_parameters()} if graft.body is not None else set()
    assert weights <= changed  # else the test would prove nothing
    statistics = {n for n in body if n.rpartition(".")[2] in ("running_mean", "running_var")}
    assert changed - weights == (
        {n for n in body if "norm." in n and n not in weights} if tune_norms else set()
    )
    assert not tune_norms or statistics <= changed
    assert differing(kept(chain.network), original) == set()  # the graft owns copies


@settings(max_examples=20)
@given(keep=keeps, data=st.data(), modes=st.lists(st.booleans(), min_size=1, max_size=4))
def test_frozen_blocks_are_in_eval_mode_and_in_no_optimiser_whatever_is_called(
    keep: int, data: st.DataObject, modes: list[bool]
) -> None:
    freeze = data.draw(st.integers(1, keep))
    graft = graft_of(chain_of(dropout=0.5), keep, freeze, drop=True)
    for mode in modes:
        graft.train(mode)
    assert graft.frozen is not None
    assert not any(module.training for module in graft.frozen.modules())
    assert graft.head.training == modes[-1]
    inside = tensors_of(parameter_groups(graft, Recipe()))
    assert inside.isdisjoint(id(p) for p in graft.frozen.parameters())
    assert inside == {id(p) for p in graft.parameters() if p.requires_grad}
    x = example_maps(6, seed=2)
    graft(x).sum().backward()
    assert all(p.grad is None for p in graft.frozen.parameters())


def test_dropout_is_off_in_the_frozen_part_and_on_in_the_rest():
    chain = chain_of(dropout=0.5)
    graft = graft_of(chain, CUTS, 2, drop=True).train()
    assert graft.frozen is not None
    x = example_maps(6, seed=2)
    with torch.no_grad():
        expected = chain[:2].eval()(x).tensors[0]
        state = graft.frozen(x)
        # a processor may add up in another order in the frozen part's layout; dropout would change all of it
        torch.testing.assert_close(state.tensors[0], expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(graft.frozen(x).tensors[0], state.tensors[0])
        first, second = graft.from_state(state), graft.from_state(state)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_trainable_blocks_unless_asked():
    graft = graft_of(chain_of(dropout=0.5), CUTS, 2).train()
    x = example_maps(6, seed=2)
    with torch.no_grad():
        assert torch.equal(graft(x), graft(x))
        assert torch.equal(graft(x), graft.eval()(x))


def test_a_weight_that_a_frozen_block_shares_with_a_trainable_one_stays():
    chain = chain_of(shared=(0, 2))
    assert chain.network.blocks[0].conv is chain.network.blocks[2].conv
    graft = graft_of(chain, CUTS, 2)
    before = kept(graft)
    steps(graft)
    changed = differing(kept(graft), before)
    assert "body.network.blocks.2.norm.weight" in changed
    assert "body.network.blocks.1.conv.weight" in changed
    assert not any("blocks.0" in name for name in changed)
    assert "body.network.blocks.2.conv.weight" not in changed
    assert not any(name.endswith("blocks.2.conv.weight") for name, _, _ in graft.trainable())


def test_a_weight_that_two_trainable_blocks_share_trains_once_and_stays_shared():
    graft = graft_of(chain_of(shared=(1, 2)), CUTS, 2)
    names = [name for name, _, _ in graft.trainable()]
    assert [n for n in names if n.endswith("conv.weight")] == ["blocks.1.conv.weight"]
    steps(graft)
    weights = graft.kept_weights()
    first, second = weights["blocks.1.conv.weight"], weights["blocks.2.conv.weight"]
    assert torch.equal(first, second)
    assert not torch.equal(first, chain_of(shared=(1, 2)).network.blocks[1].conv.weight)


class OneNorm(nn.Module):
    """The same batch norm in every block."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(5)
        self.blocks = nn.ModuleList(nn.ModuleDict({"linear": nn.Linear(5, 5), "norm": norm}) for _ in "abc")
        self.fc = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block["norm"](block["linear"](x))
        return self.fc(x)


def test_statistics_that_a_frozen_block_shares_stay_even_where_norms_are_tuned():
    torch.manual_seed(0)
    chain = Chain.of(OneNorm(), torch.randn(4, 5))
    graft = graft_of(chain, len(chain), 1, tune_norms=True)
    before = kept(graft)
    graft.train()
    graft(torch.randn(16, 5) + 3).sum().backward()
    assert differing(kept(graft), before) == set()
    assert not any("norm" in name for name, _, _ in graft.trainable())
    free = graft_of(chain, len(chain), 0, tune_norms=True).train()
    before = kept(free)
    free(torch.randn(16, 5) + 3)
    assert any(name.endswith("running_mean") for name in differing(kept(free), before))


@pytest.mark.parametrize("tune_norms", [False, True])
@pytest.mark.parametrize("freeze", range(CUTS + 1))
def test_gradients_are_those_of_the_whole_network_with_the_same_parameters_frozen(freeze, tune_norms):
    chain = chain_of()
    graft = graft_of(chain, CUTS, freeze, tune_norms=tune_norms)
    whole = maps(depth=DEPTH)
    head = graft_of(chain, CUTS, freeze).head
    held = chain.names_of(freeze)
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_(name not in held)
    for name, module in whole.named_modules():
        module.train(tune_norms and f"{name}.weight" not in held)
    x, targets = example_maps(7, seed=4), torch.arange(7) % CLASSES
    whole.to(memory_format=torch.channels_last)  # the layout in which grafts compute
    hidden = whole.stem(x.contiguous(memory_format=torch.channels_last))
    for block in whole.blocks:
        hidden = block(hidden)
    logits = head(pool(State((hidden,)), "map"))
    nn.functional.cross_entropy(logits, targets).backward()
    graft.train()
    got = graft(x)
    nn.functional.cross_entropy(got, targets).backward()
    assert torch.equal(got, logits)
    expected = dict(whole.named_parameters()) | {f"head.{n}": p for n, p in head.named_parameters()}
    names = [name for name, _, _ in graft.trainable()]
    assert set(names) == {n for n, p in expected.items() if p.grad is not None}
    for name, parameter, _ in graft.trainable():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, expected[name].grad), name


@settings(max_examples=15)
@given(keep=keeps, data=st.data())
def test_from_the_state_at_the_cut_it_gives_what_it_gives_from_the_inputs(
    keep: int, data: st.DataObject
) -> None:
    freeze = data.draw(st.integers(0, keep))
    graft = graft_of(chain_of(), keep, freeze)
    x = example_maps(5, seed=6)
    with torch.no_grad():
        last = x.contiguous(memory_format=torch.channels_last)  # the layout in which grafts compute
        parts = {cut: chain_of()[:cut].to(memory_format=torch.channels_last) for cut in (freeze, keep) if cut}
        given_state = x if freeze == 0 else parts[freeze](last)
        assert torch.equal(graft.from_state(given_state), graft(x))
        pooled = pool(parts[keep](last), graft.head.layout)
        assert torch.equal(graft.head(pooled), graft(x))


@pytest.mark.parametrize(("keep", "freeze"), [(CUTS, 0), (CUTS, 2), (3, 3), (1, 0)])
def test_kept_weights_have_the_names_of_the_network_and_load_back(keep, freeze):
    chain = chain_of()
    graft = graft_of(chain, keep, freeze)
    steps(graft)
    weights = graft.kept_weights()
    assert weights.keys() == chain.names_of(keep)
    fresh = maps(seed=9, depth=DEPTH)
    done = fresh.load_state_dict(weights, strict=False)
    assert done.unexpected_keys == []
    absent = set(fresh.state_dict()) - chain.names_of(keep)
    assert set(done.missing_keys) == {n for n in absent if not n.endswith("num_batches_tracked")}
    x = example_maps(5, seed=6)
    with torch.no_grad():
        part = Chain.of(fresh, example_maps())[:keep].to(memory_format=torch.channels_last)
        again = part(x.contiguous(memory_format=torch.channels_last))
        assert torch.equal(graft.eval().head(again), graft(x))


@pytest.mark.parametrize(("keep", "freeze"), [(0, 0), (CUTS + 1, 0), (2, 3), (2, -1)])
def test_what_does_not_fit_the_chain_is_refused(keep, freeze):
    head = graft_of(chain_of(), 1, 0).head
    with pytest.raises(ValueError, match=f"keep={keep}, freeze={freeze} do not fit a chain of {CUTS} blocks"):
        Graft(chain_of(), keep, freeze, head)


def one_step(graft: Graft, optimizer: torch.optim.Optimizer | None = None) -> Tensor:
    """Logits in training mode, and their gradients; with an optimizer also a step."""
    graft.train()
    x = example_maps(9, seed=8)
    logits = graft(x)
    graft.zero_grad()
    nn.functional.cross_entropy(logits, torch.arange(9) % CLASSES).backward()
    if optimizer is not None:
        optimizer.step()
    return logits.detach()


@pytest.mark.parametrize("shared", [(), (0, 2)])
@pytest.mark.parametrize(("before", "after"), [(2, 0), (2, 1), (2, CUTS), (0, 2), (CUTS, 3)])
def test_frozen_afterwards_it_is_the_graft_that_was_frozen_so_from_the_start(before, after, shared):
    chain = chain_of(shared=shared)
    graft = graft_of(chain, CUTS, before, tune_norms=True)
    parameters = {name: id(tensor) for name, tensor in graft.kept_tensors().items()}
    graft.train()
    graft.freeze_to(after)
    same = graft_of(chain, CUTS, after, tune_norms=True)
    assert {name: id(tensor) for name, tensor in graft.kept_tensors().items()} == parameters
    assert torch.equal(one_step(graft), one_step(same))
    assert all(p.grad is None for _, p in graft.frozen_parameters())
    gradients = ({n: p.grad for n, p, _ in one.trainable()} for one in (graft, same))
    assert differing(*gradients) == set()
    assert {n: m.training for n, m in graft.named_modules()} == {
        n: m.training for n, m in same.named_modules()
    }
    assert differing(graft.kept_tensors(), same.kept_tensors()) == set()  # statistics of tuned norms too


def test_an_optimizer_made_before_goes_on_and_does_not_touch_what_is_frozen_now():
    graft = graft_of(chain_of(), CUTS, 0)
    optimizer = torch.optim.AdamW(parameter_groups(graft, Recipe(rate=0.05, weight_decay=0.1)))
    one_step(graft, optimizer)
    graft.freeze_to("blocks.1")
    frozen, rest = kept(graft.frozen), kept(graft.body)
    optimizer.step()  # with what momentum there is, and no new gradients
    one_step(graft, optimizer)
    assert differing(kept(graft.frozen), frozen) == set()
    assert "network.blocks.2.conv.weight" in differing(kept(graft.body), rest)
    graft.unfreeze_from("blocks.0")
    assert graft.freeze == 1
    before = graft.kept_weights()["blocks.0.conv.weight"].clone()
    one_step(graft, optimizer)
    assert not torch.equal(graft.kept_weights()["blocks.0.conv.weight"], before)


def test_a_copy_freezes_by_itself():
    graft = graft_of(chain_of(), CUTS, 2)
    other = copy.deepcopy(graft)
    other.freeze_to(0)
    one_step(other, torch.optim.SGD(other.parameters(), lr=0.1))
    assert (graft.freeze, other.freeze) == (2, 0)
    assert differing(graft.kept_tensors(), graft_of(chain_of(), CUTS, 2).kept_tensors()) == set()
    assert differing(graft.kept_tensors(), other.kept_tensors()) >= {"stem.weight", "blocks.0.conv.weight"}


@pytest.mark.parametrize(
    ("call", "given", "says"),
    [
        ("freeze_to", "block.1", r"freeze=block.1 is no block of Maps. Nearest: blocks.1"),
        ("freeze_to", 4, "freeze=4 is more than the 3 blocks that are kept"),
        ("freeze_to", "auto", "freeze=auto is decided on data"),
        (
            "unfreeze_from",
            "blok.0",
            r"blok.0 is none of the 3 kept blocks of Maps. Nearest: blocks.0.*Give 1 to 3",
        ),
        ("unfreeze_from", "blocks.2", "blocks.2 is none of the 3 kept blocks"),  # it is dropped
        ("unfreeze_from", 0, "0 is none of the 3 kept blocks"),
    ],
)
def test_what_is_no_kept_block_is_told_with_the_nearest_and_nothing_changes(call, given, says):
    graft = graft_of(chain_of(), 3, 2)
    with pytest.raises(TopgraftError, match=says):
        getattr(graft, call)(given)
    assert graft.freeze == 2


def test_from_a_stage_on_means_from_its_first_block():
    graft = graft_of(chain_of(), CUTS, CUTS)
    graft.unfreeze_from("blocks")
    assert graft.freeze == 1
    graft.unfreeze_from(CUTS)
    assert graft.freeze == CUTS - 1


@pytest.mark.parametrize("shared", [(), (0, 2)])
def test_what_was_saved_with_other_blocks_frozen_loads(shared: tuple[int, ...], tmp_path: Path) -> None:
    graft = nn.ModuleDict({"inside": graft_of(chain_of(shared=shared), CUTS, 1, tune_norms=True)})
    one_step(graft["inside"], torch.optim.SGD(graft.parameters(), lr=0.1))
    plain = {name: tensor.contiguous() for name, tensor in graft.state_dict().items()}
    save_file({name: tensor.clone() for name, tensor in plain.items()}, tmp_path / "saved.safetensors")
    for saved in (graft.state_dict(), load_file(tmp_path / "saved.safetensors")):
        other = nn.ModuleDict({"inside": graft_of(chain_of(shared=shared), CUTS, 3)})
        other.load_state_dict(saved)
        expected, found = graft["inside"].kept_tensors(), other["inside"].kept_tensors()
        assert differing(expected, found) == set()
        with pytest.raises(RuntimeError, match=r"Unexpected.*nobody"):
            other.load_state_dict({**saved, "inside.body.network.nobody": torch.zeros(1)})
