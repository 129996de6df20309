"""The plain weights, loaded by timm, Transformers and a module of one's own under their own names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported_grafts import arrays, expected, fresh_batch, pictures, real, texts
from safetensors.torch import load_file
from small_networks import differing, kept, maps
from torch import nn

from topgraft.chain import Chain, Point
from topgraft.export import export
from topgraft.head import Head
from topgraft.saved import Model


def fresh_network(model: Model) -> nn.Module:
    """Built by its library alone, with values of its own."""
    import timm
    from transformers import BertConfig, BertModel

    recipe = model.description["backbone"]["recipe"]
    if recipe["kind"] == "timm":
        return timm.create_model(recipe["name"]).eval()
    return BertModel(BertConfig.from_dict(dict(recipe["config"])), add_pooling_layer=False).eval()


def check(model: Model, out: Path) -> None:
    made = export(model, "state-dict", out)
    network = fresh_network(model)
    tensors = load_file(out / "backbone.safetensors")
    before = kept(network)
    done = network.load_state_dict(tensors, strict=False)
    assert done.unexpected_keys == []
    assert sorted(done.missing_keys) == sorted(made.document["not_there"])
    assert differing({n: network.state_dict()[n] for n in tensors}, model.graft.kept_weights()) == set()
    assert differing(kept(network), before) != set()  # else loading proves nothing
    batch = fresh_batch(model, 3)
    shape = made.document["head"]
    head = Head(shape["layout"], shape["width"], len(made.document["classes"]), hidden=shape["hidden"])
    head.load_state_dict(load_file(out / "head.safetensors"))
    described = model.description["backbone"]
    points = [Point.from_json(p) for p in described["points"]]
    output_layer = described["output_layer"]
    chain = Chain.of(network, fresh_batch(model, 2), output_layer=output_layer, points=points)
    with torch.no_grad():
        logits = head.eval()(chain[: made.document["keep"]](batch))
    torch.testing.assert_close(logits, expected(model, batch), rtol=1e-5, atol=1e-5)
    assert made.difference.probabilities < 1e-6


@pytest.mark.parametrize("model", [pictures, texts], ids=lambda f: f.__name__)
def test_the_library_takes_the_weights_under_its_own_names(model, tmp_path):
    check(model(), tmp_path / "out")


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["picture", "text"])
def test_so_it_does_for_the_packaged_backbones(modality, tmp_path):
    check(real(modality), tmp_path / "out")


def test_a_module_of_ones_own_takes_them_and_stays_as_it_was(tmp_path):
    model, mine = arrays(4, 2), maps(seed=8)
    before = kept(mine)
    made = export(model, "state-dict", tmp_path / "out", module=mine)
    assert differing(kept(mine), before) == set()
    mine.load_state_dict(load_file(tmp_path / "out" / "backbone.safetensors"), strict=False)
    assert differing(kept(mine), before) != set()
    assert made.document["not_there"] == ["fc.weight", "fc.bias"]
    assert made.document["runtime"] == "the module that was given"
