"""CutMix: boxes of another example in the same place, labels by the area, to the last pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import backbone_of, data_of_maps, example_maps, maps, material_of
from torch import nn

from topgraft.chain import State
from topgraft.cutmix import alphas, has_maps, mixture, must_be_pasted, pasted
from topgraft.errors import TopgraftError
from topgraft.history import Recipe
from topgraft.mixup import mixed_loss
from topgraft.search import new_graft, recipe_for, source_at
from topgraft.settings import Settings
from topgraft.train import train


@given(seed=st.integers(0, 1000), alpha=st.floats(0.1, 10), high=st.integers(1, 8), wide=st.integers(1, 8))
def test_each_pixel_is_the_examples_or_its_partners_and_the_share_counts_them(
    seed: int, alpha: float, high: int, wide: int
) -> None:
    torch.manual_seed(seed)
    pictures = torch.randn(5, 2, high, wide)
    found, partner, share = pasted({"x": pictures}, "map", alpha)
    own = found["x"] == pictures
    for i in range(5):
        mine = own[i].all(0)
        assert torch.equal(found["x"][i], torch.where(mine, pictures[i], pictures[partner[i]]))
        if partner[i] != i:
            assert float(mine.double().mean()) == pytest.approx(share)
            pasted_in = (~mine).nonzero()
            if len(pasted_in):  # the others are a box
                span = pasted_in.max(0).values - pasted_in.min(0).values + 1
                assert int(span.prod()) == len(pasted_in)


def test_maps_of_several_sizes_get_the_same_part_and_vectors_the_same_share() -> None:
    torch.manual_seed(2)
    coarse, fine = torch.randn(6, 3, 4, 4), torch.randn(6, 8, 8, 2)
    vectors = torch.randn(6, 5)
    found, partner, share = pasted(State((coarse, fine, vectors)), "map+map_last+vector", 1.0)
    assert 0 < share < 1
    i = int((partner != torch.arange(6)).nonzero()[0])
    mine = (found.tensors[0][i] == coarse[i]).all(0)
    assert torch.equal(
        (found.tensors[1][i] == fine[i]).all(2), mine.repeat_interleave(2, 0).repeat_interleave(2, 1)
    )
    wanted = share * vectors[i] + (1 - share) * vectors[partner[i]]
    torch.testing.assert_close(found.tensors[2][i], wanted)


def test_labels_have_the_shares_of_the_areas() -> None:
    torch.manual_seed(1)
    pictures, wanted = torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 0])
    _, partner, share = pasted(pictures, "map", 1.0)
    logits = torch.randn(4, 3)
    soft = share * nn.functional.one_hot(wanted, 3) + (1 - share) * nn.functional.one_hot(wanted[partner], 3)
    torch.testing.assert_close(
        mixed_loss(logits, wanted, partner, share), nn.functional.cross_entropy(logits, soft)
    )


@pytest.mark.parametrize("layout", ["tokens", "vector"])
def test_what_has_no_height_and_width_is_refused(layout: str) -> None:
    tensor = torch.randn(4, 3, 5) if layout == "tokens" else torch.randn(4, 3)
    with pytest.raises(TopgraftError, match=f"needs a map.*the layout is {layout}"):
        pasted(State((tensor,)), layout, 1.0)
    with pytest.raises(TopgraftError, match="multiples of the smallest"):
        pasted(State((torch.randn(2, 1, 4, 4), torch.randn(2, 1, 6, 6))), "map+map", 1.0)


def test_both_kinds_take_turns_at_random_and_neither_leaves_the_batch_alone() -> None:
    torch.manual_seed(0)
    pictures = torch.randn(6, 2, 8, 8)
    found = [mixture(pictures, Recipe(mixup=1.0, cutmix=1.0), "map")[0] for _ in range(60)]
    pastes = [bool(torch.isin(one, pictures).all()) for one in found]
    assert 15 < sum(pastes) < 45
    assert mixture(pictures, Recipe(), "map")[0] is pictures


def test_alone_it_takes_the_place_of_the_mixup_that_pictures_have() -> None:
    assert alphas(Settings(cutmix=0.5), "picture") == (0.0, 0.5)
    assert alphas(Settings(cutmix=0.5, mixup=0.2), "picture") == (0.2, 0.5)
    assert alphas(Settings(), "text") == (0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"freeze": "all"}, "Give --freeze 0 to 2"),
        ({"hidden": (4,)}, "a head alone reads pooled numbers"),
        ({"freeze": "3", "keep": "4"}, "(--freeze 3) the layout is vector. Nearest: --freeze 2"),
    ],
)
def test_where_nothing_can_be_pasted_is_refused_before_anything_runs(options: dict, words: str) -> None:
    blocks = [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*blocks, nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 3))
    backbone = replace(backbone_of(network, example_maps()), modality="picture")
    with pytest.raises(TopgraftError) as refused:
        must_be_pasted(Settings(**{"cutmix": 1.0, "keep": "3", **options}), backbone)
    assert words in str(refused.value)


def test_other_data_than_pictures_is_refused() -> None:
    backbone = backbone_of(maps(), example_maps())
    with pytest.raises(TopgraftError, match="the data are arrays"):
        must_be_pasted(Settings(cutmix=1.0), backbone)
    must_be_pasted(Settings(), backbone)


def test_a_training_on_stored_maps_pastes_and_goes_by_its_seed(tmp_path: Path) -> None:
    plain = material_of(backbone_of(maps(), example_maps()), data_of_maps(), tmp_path)
    assert has_maps(plain.backbone.chain, 1)

    def trained(cutmix: float) -> torch.Tensor:
        material = replace(plain, settings=replace(plain.settings, cutmix=cutmix))
        graft = new_graft(material, 3, 1, material.rows)
        source, _ = source_at(material, 3, 1)
        train(
            graft, source, material.targets, material.rows, recipe=recipe_for(material, 3, 2, material.rows)
        )
        return graft.head.linear.weight

    assert torch.equal(trained(1.0), trained(1.0))
    assert not torch.equal(trained(1.0), trained(0.0))
