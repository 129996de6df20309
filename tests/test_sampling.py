from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
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

from topgraft.errors import TopgraftError
from topgraft.features.sources import FeatureSource
from topgraft.history import Epoch, Recipe
from topgraft.sampling import order_of
from topgraft.search import class_weights, recipe_for
from topgraft.settings import Settings
from topgraft.train import train


def test_each_class_is_drawn_as_often_as_the_others() -> None:
    targets = torch.tensor([0] * 800 + [1] * 150 + [2] * 50)
    torch.manual_seed(0)
    counts = sum(torch.bincount(targets[order_of(targets, balanced=True)]) for _ in range(20))
    assert (counts / 20_000).tolist() == pytest.approx([1 / 3] * 3, abs=0.015)
    assert sorted(order_of(targets, balanced=False)) == list(range(1000))


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


def test_a_balanced_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    data, backbone = data_of_maps(36), backbone_of(maps(), example_maps())
    material = material_of(backbone, data, tmp_path)
    chain, keep = backbone.chain, len(backbone.chain)
    source, rows = FeatureSource(material.features.cuts[keep]), list(range(20))
    recipe = Recipe(epochs=3, batch_size=8, rate=0.02, balanced=True)

    def trained(recipe: Recipe, **options: object) -> dict[str, torch.Tensor]:
        graft = graft_of(chain, keep, keep)
        train(graft, source, material.targets, rows, recipe=recipe, **options)
        return kept(graft)

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Interrupted

    whole, path = trained(recipe), tmp_path / "training.safetensors"
    with pytest.raises(Interrupted):
        trained(recipe, checkpoint=path, advance=interrupt)
    assert differing(trained(recipe, checkpoint=path), whole) == set()
    assert differing(trained(replace(recipe, balanced=False)), whole)


def test_training_draws_and_the_closed_form_weighs(tmp_path: Path) -> None:
    material = material_of(backbone_of(maps(), example_maps()), data_of_maps(36), tmp_path)
    drawn = replace(material, settings=Settings(sampling="balanced"))
    weighed = replace(material, settings=Settings(class_weights="balanced"))
    rows = material.rows
    assert torch.equal(class_weights(drawn, rows), class_weights(weighed, rows))
    recipe = recipe_for(drawn, 3, 1, rows)
    assert (recipe.balanced, recipe.class_weights) == (True, ())
    assert not recipe_for(weighed, 3, 1, rows).balanced


def test_both_at_once_are_refused() -> None:
    with pytest.raises(TopgraftError, match="Give one of them"):
        Settings(sampling="balanced", class_weights="balanced")
