"""A fit on every example: the pipeline's own stages, without a part that is held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packaged_data import glosses_of
from small_networks import backbone_of, data_of_maps, differing, example_maps, maps

import topgraft as tg
from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.estimators.on_all import backbone_for, choose_depth, features_at, fit_on_all, logits_of
from topgraft.features.store import Store
from topgraft.files import read_tensors
from topgraft.probe import fit_head
from topgraft.settings import Settings

PLAIN = {"engine": "torch", "precision": "fp32"}


@pytest.fixture(scope="module")
def backbone():
    return backbone_of(maps(), example_maps(2))


@pytest.mark.parametrize(
    "options", [{"keep": 3, "freeze": 1, "epochs": 2}, {"freeze": "all"}, {"keep": 2, "freeze": 2}]
)
def test_it_gives_the_bits_of_a_fit_whose_test_set_stands_apart(backbone, tmp_path, options):
    data, other = data_of_maps(45), data_of_maps(18, seed=8)
    test = (other.inputs, [other.classes[i] for i in other.targets])
    run = tg.fit(
        data, tmp_path / "run", test=test, backbone=backbone, store=Store(tmp_path / "a"), **PLAIN, **options
    )
    fitted = fit_on_all(data, backbone, Settings.of(PLAIN | options), Store(tmp_path / "b"))
    assert (fitted.graft.keep, fitted.graft.freeze) == (run.keep, run.freeze)
    saved, _ = read_tensors(run.folder / "model.safetensors")
    made = {f"backbone.{name}": tensor for name, tensor in fitted.graft.kept_weights().items()}
    made |= {f"head.{name}": tensor for name, tensor in fitted.graft.head.state_dict().items()}
    assert differing(made, saved) == set()


def test_the_head_on_frozen_blocks_is_the_probes_and_nothing_is_probed(backbone, tmp_path):
    data, store = data_of_maps(30), Store(tmp_path)
    fitted = fit_on_all(data, backbone, Settings.of(PLAIN | {"keep": 2, "freeze": "all"}), store)
    features = torch.from_numpy(features_at(backbone, 2, data, store, **PLAIN))
    fit = fit_head(features, torch.from_numpy(data.targets), 3)
    assert (fitted.evidence, fitted.advice) == (None, None)
    model = fitted.model(backbone, data.classes)
    found = logits_of(model, data, backbone=backbone, store=store)
    np.testing.assert_allclose(found, fit.logits(features).numpy(), atol=1e-5)
    np.testing.assert_allclose(found, logits_of(model, data), atol=1e-5)


def test_choose_depth_and_a_fit_agree(backbone, tmp_path):
    data, settings = data_of_maps(36), Settings.of(PLAIN | {"freeze": "all"})
    evidence, advice = choose_depth(data, backbone, settings, Store(tmp_path))
    fitted = fit_on_all(data, backbone, settings, Store(tmp_path))
    assert advice == fitted.advice
    assert [cut.losses.tolist() for cut in evidence.cuts] == [c.losses.tolist() for c in fitted.evidence.cuts]


def test_out_of_range_is_said_before_anything_runs(backbone, tmp_path):
    for options, said in (
        ({"keep": 7}, "keep=7 is more than"),
        ({"keep": 2, "freeze": 3}, "freeze=3 is more"),
    ):
        with pytest.raises(TopgraftError, match=said):
            fit_on_all(data_of_maps(12), backbone, Settings.of(options), Store(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_texts_of_any_length_keep_their_order_and_the_packaged_network_is_loaded_once(tmp_path):
    texts = [text for text, _ in glosses_of(("animal", "food"), 12)]
    data = read(sorted(texts, key=lambda text: text[::-1]), modality="text")
    backbone = backbone_for(data, None, Settings())
    assert backbone_for(data.subset([1, 2]), None, Settings()) is backbone
    kept = features_at(backbone, 2, data, Store(tmp_path), **PLAIN)
    live = features_at(backbone, 2, data, None, **PLAIN)
    alone = features_at(backbone, 2, data.subset([5]), None, **PLAIN)
    np.testing.assert_allclose(live, kept, atol=1e-5)
    np.testing.assert_allclose(alone[0], kept[5], atol=1e-5)
    assert np.abs(kept[5] - kept[6]).max() > 0.01
