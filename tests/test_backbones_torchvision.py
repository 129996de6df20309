from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torchvision import models

from topgraft.backbones import rebuild
from topgraft.backbones.loading import find, report_of
from topgraft.backbones.torchvision import last_layer, preprocess_of, renamed
from topgraft.errors import TopgraftError

NAME = "shufflenet_v2_x0_5"


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_come_from_torchs_cache_with_their_bits(checkpoints):
    torch.manual_seed(4)
    network = models.get_model(NAME, weights=None)
    entry = models.get_model_weights(NAME).DEFAULT
    torch.save(network.state_dict(), checkpoints / entry.url.rpartition("/")[2])
    backbone = find(f"torchvision/{NAME}")
    expected = network.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in backbone.network.state_dict().items())
    report = report_of(backbone, "x")
    assert report.not_needed == ("fc.bias", "fc.weight")
    assert report.share == 1.0
    again = rebuild(json.loads(json.dumps(backbone.recipe)))
    again.load_state_dict(backbone.network.state_dict())


def test_the_preprocessing_is_that_of_the_weights():
    noise = Image.effect_noise((300, 260), 80).convert("RGB")
    for name in ("resnet50", "efficientnet_b0", "vit_b_16"):
        entry = models.get_model_weights(name).DEFAULT
        ours = preprocess_of(entry).batch([noise])["x"][0]
        assert torch.equal(ours, entry.transforms()(noise))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "classifier.6"),
        ("squeezenet1_1", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"),
        ("vit_b_16", "heads.head"),
        ("swin_t", "head"),
        ("convnext_tiny", "classifier.2"),
        ("resnet18", "fc"),
    ],
)
def test_the_last_layer_is_the_one_that_gives_the_classes(name, layer):
    with torch.device("meta"):
        network = models.get_model(name, weights=None)
    assert last_layer(network) == layer
    assert network.get_submodule(layer).weight.shape[0] == 1000


def test_densenets_first_names_are_known():
    torch.manual_seed(0)
    network = models.densenet121(weights=None)
    old = {
        n.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t
        for n, t in network.state_dict().items()
    }
    assert set(old) != set(network.state_dict())
    assert set(renamed(old, network)) == set(network.state_dict())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_side_outputs_for_training_are_left_out(name):
    network = rebuild(
        {"kind": "torchvision", "name": name, "options": {"aux_logits": False, "init_weights": False}}
    )
    assert not any(n.startswith(("aux", "Aux")) for n in network.state_dict())


def test_bad_names_get_the_nearest():
    with pytest.raises(TopgraftError, match=r"no classification network 'resnet81'\. Nearest: resnet18"):
        find("torchvision/resnet81")
    with pytest.raises(TopgraftError, match=r"no weights 'V9'\. It has IMAGENET1K_V1"):
        find(f"torchvision/{NAME}.V9")
    with pytest.raises(TopgraftError, match="no classification network 'fasterrcnn_resnet50_fpn'"):
        find("torchvision/fasterrcnn_resnet50_fpn")


def test_a_truncated_file_in_torchs_cache_is_said(checkpoints):
    entry = models.get_model_weights(NAME).DEFAULT
    path = checkpoints / entry.url.rpartition("/")[2]
    torch.save(models.get_model(NAME, weights=None).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(TopgraftError, match="truncated or damaged"):
        find(f"torchvision/{NAME}")
