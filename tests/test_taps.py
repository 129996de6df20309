"""A head that reads earlier cuts reads just what stands there, however the chain is cut, stored and saved."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_grafts import arrays, fresh_batch, model_of, pictures, saved, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import (
    backbone_of,
    data_of_maps,
    differing,
    example_maps,
    graft_of,
    kept,
    maps,
    material_of,
)

import topgraft as tg
from topgraft import search
from topgraft.chain import Chain, State
from topgraft.errors import TopgraftError
from topgraft.evaluating import evaluate
from topgraft.evidence import Features
from topgraft.export import export
from topgraft.features.converted import identity_of
from topgraft.features.sources import StateSource
from topgraft.head import Head
from topgraft.pooling import pool, width
from topgraft.probe import fit_head, probe
from topgraft.saved import Model, open_model
from topgraft.taps import (
    TapsAdvice,
    advise_taps,
    emphasis,
    resolve_taps,
    side_by_side,
    tapped,
    usual_taps,
    with_taps,
)
from topgraft.train import train

cuts_of = st.sets(st.integers(1, 3), min_size=1).map(sorted)


@functools.cache
def chain_of() -> Chain:
    return Chain.of(maps(), example_maps())


def pooled_at(chain: Chain, cut: int, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return pool(chain[:cut].eval()(x), chain.blocks[cut - 1].layout)


@settings(max_examples=30, deadline=None)
@given(taps=cuts_of, keep=st.integers(1, 4), middle=st.integers(0, 4))
def test_a_state_carries_what_is_pooled_at_the_taps_before_it(
    taps: list[int], keep: int, middle: int
) -> None:
    plain, chain, x = chain_of(), tapped(chain_of(), taps), example_maps(3, seed=9)
    middle = min(middle, keep)
    with torch.no_grad():
        whole = chain[:keep].eval()(x)
        halfway = chain[:middle].eval()(x) if middle else x
        again = chain[middle:keep].eval()(halfway) if middle < keep else halfway
    before = [cut for cut in taps if cut < keep]
    assert len(whole.tensors) == 1 + len(before)
    for tensor, cut in zip(whole.tensors[1:], before, strict=True):
        assert torch.equal(tensor, pooled_at(plain, cut, x))
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors, again.tensors, strict=True))
    block = chain.blocks[keep - 1]
    features = pool(whole, block.layout)
    expected = torch.cat([pooled_at(plain, cut, x) for cut in (keep, *before)], 1)
    assert torch.equal(features, expected)
    assert features.shape[1] == width(block)


@settings(max_examples=15, deadline=None)
@given(taps=cuts_of, freeze=st.integers(0, 4))
def test_gradients_reach_the_blocks_before_a_tap_through_it_and_none_that_is_frozen(
    taps: list[int], freeze: int
) -> None:
    chain = tapped(chain_of(), taps)
    graft = graft_of(chain, 4, freeze).train()
    with torch.no_grad():  # nothing of the last block itself: what trains learns through taps alone
        graft.head.linear.weight[:, :12] = 0
    frozen = {name: t.clone() for name, t in graft.frozen_tensors().items()}
    graft(example_maps(3, seed=2)).square().sum().backward()
    reached = {
        name for name, p, block in graft.trainable() if block <= 4 and p.grad is not None and p.grad.any()
    }
    owner = chain.owner_of()
    assert {owner[name] for name in reached} == set(range(freeze + 1, max(taps) + 1))
    assert differing(frozen, graft.frozen_tensors()) == set()
    assert all(p.grad is None for _, p in graft.frozen_parameters())


def test_the_pass_tells_a_tapped_chain_the_same_states() -> None:
    chain, seen = tapped(chain_of(), [1, 3]), dict[int, State]()
    with torch.no_grad():
        chain[:4].eval()(example_maps(2), tap=lambda cut, state: seen.update({cut: state}))
    assert [len(seen[cut].tensors) for cut in (1, 2, 3, 4)] == [1, 2, 2, 3]


def test_taps_are_replaced_and_taken_away() -> None:
    chain = chain_of()
    assert tapped(tapped(chain, [1, 2]), [3]).blocks == tapped(chain, [3]).blocks
    assert tapped(tapped(chain, [1, 2]), []).blocks == chain.blocks
    assert tapped(tapped(chain, [1, 2]), []).taps == ()
    assert tapped(chain, [2]).holding({}).taps == (2,)


def test_a_state_without_its_taps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"carries nothing of the taps at cuts \[1\]"):
        tapped(chain_of(), [1])[2:4](State((torch.zeros(2, 6, 6, 6),)))


@given(st.integers(1, 200))
def test_usual_taps_are_before_the_last_block(keep: int) -> None:
    found = usual_taps(keep)
    assert list(found) == sorted(set(found))
    assert all(0 < cut < keep for cut in found)
    assert len(found) <= 3


@pytest.mark.parametrize(
    ("given_", "cuts"),
    [("auto", None), ("none", ()), ("", ()), ("1,3", (1, 3)), ("blocks.0, 1", (1, 2)), ("3,3", (3,))],
)
def test_what_is_said_of_taps(given_: str, cuts: tuple[int, ...] | None) -> None:
    assert resolve_taps(given_, chain_of(), "net", 4) == cuts


@pytest.mark.parametrize("given_", ["4", "9", "0", "blocks.7", "1,auto", "1;2"])
def test_what_is_no_tap_is_refused_with_what_is(given_: str) -> None:
    with pytest.raises(TopgraftError, match=r"is not before|is more than|is less than|is no block"):
        resolve_taps(given_, chain_of(), "net", 4)


def test_emphasis_lies_between_equal_columns_and_equal_cuts() -> None:
    assert emphasis(chain_of(), 4) is None
    chain = tapped(chain_of(), [1, 3])
    assert emphasis(chain, 1) is None
    assert emphasis(chain, 4).tolist() == [1.0] * 36  # every cut of it has twelve columns
    real = tapped(tg.load(None, modality="picture").chain, (4, 14))
    weights = emphasis(real, 18)
    assert weights.unique().tolist() == pytest.approx([1, (2560 / 384) ** 0.25, (2560 / 48) ** 0.25])
    assert [len(part) for part in weights.unique_consecutive(return_counts=True)[1].split(1)] == [1, 1, 1]
    assert weights.unique_consecutive(return_counts=True)[1].tolist() == [2560, 48, 384]


def test_training_starts_at_the_probe_of_all_cuts_and_from_stored_states(tmp_path: Path) -> None:
    data = data_of_maps(36)
    plain = material_of(backbone_of(maps(), example_maps()), data, tmp_path)
    taps = (1, 3)
    backbone = with_taps(plain.backbone, taps)
    material = replace(plain, backbone=backbone, features=side_by_side(plain.features, 4, taps))
    fitted = fit_head(
        material.features.cuts[4][material.rows],
        material.targets[material.rows],
        3,
        emphasis=emphasis(backbone.chain, 4),
    )
    logits = fitted.logits(material.features.cuts[4][material.validation])
    wanted = torch.nn.functional.cross_entropy(logits, material.targets[material.validation])
    for freeze in (0, 2, 3, 4):
        source, _ = search.source_at(material, 4, freeze)
        graft = search.new_graft(material, 4, freeze, material.rows)
        loss, _, _ = evaluate(graft, source, material.targets, material.validation)
        assert loss == pytest.approx(float(wanted), abs=1e-4)
        assert isinstance(source, StateSource) == (freeze in (2, 3))
        if freeze == 2:
            frozen = kept(graft.frozen)
            train(graft, source, material.targets, material.rows, recipe=search.Recipe(epochs=2))
            assert differing(frozen, kept(graft.frozen)) == set()
            stored = source.batch([0, 5], training=False)
            live = graft.frozen(torch.as_tensor(np.stack([data.inputs[i] for i in (0, 5)])).float())
            for a, b in zip(stored.tensors, live.tensors, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_stored_states_of_texts_carry_their_taps(tmp_path: Path) -> None:
    from topgraft.data import read

    backbone = with_taps(tg.load(None, modality="text"), (1, 3))
    words = ["a film", "a much longer text on a film that went on and on", "short", "the end of it all"]
    data = read((words, ["a", "b", "a", "b"]))
    material = material_of(backbone, data, tmp_path)
    source, _ = search.source_at(material, 5, 4)
    state = source.batch([0, 1, 2, 3], training=False)
    with torch.no_grad():
        live = backbone.chain[:4].eval()(backbone.preprocess.batch(words))
    assert [t.shape for t in state.tensors] == [t.shape for t in live.tensors]
    for stored, fresh in zip(state.tensors[1:], live.tensors[1:], strict=True):
        torch.testing.assert_close(stored, fresh, rtol=1e-3, atol=1e-4)


def test_evidence_of_all_cuts_is_that_of_their_features_side_by_side() -> None:
    numbers = torch.Generator().manual_seed(0)
    targets = torch.arange(60) % 3
    early = torch.randn(60, 12, generator=numbers)
    early[:, 0] += 2 * targets
    cuts = {1: early, 2: torch.randn(60, 12, generator=numbers)}
    cuts |= {3: torch.randn(60, 12, generator=numbers), 4: torch.randn(60, 12, generator=numbers)}
    features = Features(cuts, "here")
    plain = probe(features, targets, np.arange(60) // 3 % 5, 3)

    def advised(taps: list[int]) -> TapsAdvice:
        return advise_taps(tapped(chain_of(), taps), side_by_side(features, 4, taps), 4, plain)

    advice = advised([1])
    found = advice.evidence
    by_hand = probe(Features({4: torch.cat([cuts[4], cuts[1]], 1)}, "here"), targets, plain.fold_of, 3)
    assert np.array_equal(found[4].losses, by_hand[4].losses)
    assert np.array_equal(found[2].losses, plain[2].losses)
    saved_ = plain[4].losses - found[4].losses
    assert advice.gain == pytest.approx(saved_.mean())
    assert advice.error == pytest.approx(saved_.std(ddof=1) / 60**0.5)
    assert advice.worth
    told = advice.to_json()
    assert (told["cuts"], told["score"], told["loss"]) == ([1], found[4].score, found[4].loss)
    assert not replace(advice, gain=advice.error).worth
    assert not advised([2]).worth


def tapped_model(model: Model, keep: int, freeze: int, taps: list[int]) -> Model:
    backbone = {"array": lambda: backbone_of(maps(), example_maps())}.get(model.modality)
    assert backbone is not None
    return model_of(with_taps(backbone(), taps), keep, freeze)


@pytest.mark.parametrize("freeze", [0, 2, 4])
def test_a_saved_graft_opens_with_its_taps_and_gives_the_same_bits(freeze: int, tmp_path: Path) -> None:
    model = tapped_model(arrays(), 4, freeze, [1, 3])
    opened = open_model(saved(model, tmp_path / "it"), module=maps(seed=8))
    batch = fresh_batch(arrays(), 3)
    with torch.no_grad():
        assert torch.equal(model.graft.eval()(batch), opened.graft(batch))
    assert opened.graft.bare.taps == (1, 3)
    assert opened.description["taps"] == [1, 3]


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino", "huggingface"])
def test_every_export_reads_the_taps(kind: str, tmp_path: Path) -> None:
    backbone = with_taps(tg.load("timm/test_efficientnet", weights="none", seed=4), [1, 2])
    model = model_of(backbone, 4, 2)
    made = export(model, kind, tmp_path / "out")
    assert made.difference.probabilities < 1e-4
    moved = model_of(with_taps(backbone, []), 4, 2)
    batch = fresh_batch(pictures(), 2)
    with torch.no_grad():
        assert not torch.allclose(moved.graft(batch), model.graft.eval()(batch))


def test_tg_graft_has_them_for_texts_and_freezes_up_to_anywhere() -> None:
    model = texts()
    assert model.modality == "text"
    graft = tg.graft(maps(), freeze=1, head=5, taps=[1, "3"], example=example_maps())
    assert isinstance(graft.head, Head)
    assert graft.head.linear.in_features == 36
    x = example_maps(3, seed=4)
    graft.eval()
    with torch.no_grad():
        before = graft(x)
        for freeze in (4, 2, 0, 3):
            graft.freeze_to(freeze)
            torch.testing.assert_close(graft.eval()(x), before)
    with pytest.raises(TopgraftError, match="taps=auto is decided on data"):
        tg.graft(maps(), freeze=1, head=5, taps="auto", example=example_maps())


def test_what_is_stored_with_taps_and_without_is_kept_apart(tmp_path: Path) -> None:
    plain = material_of(backbone_of(maps(), example_maps()), data_of_maps(12), tmp_path)
    for taps in ((), (1,), (1, 2), ()):
        material = replace(plain, backbone=with_taps(plain.backbone, taps))
        source, reused = search.source_at(material, 4, 3)
        assert isinstance(source, StateSource)
        assert len(source.batch([0], training=False).tensors) == 1 + len(taps)
    assert reused == 12
    parts = [tapped(plain.backbone.chain, taps)[:3] for taps in ((), (1,), (2,))]
    assert len({str(identity_of(part)) for part in parts}) == 3
