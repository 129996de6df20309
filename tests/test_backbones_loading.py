from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from hub_cache import tiny_bert
from torch import nn

from topgraft.backbones import ArrayPreprocess, PicturePreprocess, load, rebuild
from topgraft.backbones.loading import example_of, find
from topgraft.errors import TopgraftError


def test_naming_the_functions_loads_no_torch():
    program = "import sys; from topgraft.backbones import load, rebuild; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_backbone_of_pictures_is_cut_and_composes():
    backbone = load("timm/test_resnet", weights="none")
    network, chain = backbone.network, backbone.chain
    batch = example_of(backbone.preprocess)
    assert tuple(chain.input_names) == tuple(batch)
    with torch.no_grad():
        before_output = chain[2:](chain[:2](batch))
        assert torch.allclose(network.fc(before_output), network(batch["x"]), atol=1e-5)
    assert backbone.report.tensors == len(network.state_dict()) - 2
    assert backbone.lines()[0].startswith("timm/test_resnet: random values")


def test_a_backbone_of_texts_is_cut_and_composes(tmp_path):
    tiny_bert(tmp_path)
    backbone = load(f"hf/{tmp_path}", modality="text")
    batch = example_of(backbone.preprocess)
    assert len(set(batch["attention_mask"].sum(1).tolist())) == 2  # one text of the two is filled up
    with torch.no_grad():
        whole = backbone.network(**batch).last_hidden_state
        state = backbone.chain[: len(backbone.chain)](batch)
        assert torch.allclose(state.tensors[0], whole, atol=1e-5)


def test_another_preprocessing_can_be_asked_for():
    small = PicturePreprocess(size=(96, 96), resize=(96, 96))
    found = find("timm/test_resnet", weights="none", preprocess=small)
    assert found.preprocess is small
    with pytest.raises(TopgraftError, match="reads pictures; the preprocessing given is a ArrayPreprocess"):
        find("timm/test_resnet", weights="none", preprocess=ArrayPreprocess())


def test_pictures_of_another_size():
    usual, small = load("timm/test_resnet", weights="none"), load("timm/test_resnet", weights="none", size=64)
    assert (usual.preprocess.size, usual.preprocess.resize) == ((160, 160), (168, 168))
    assert (small.preprocess.size, small.preprocess.resize) == ((64, 64), (67, 67))
    assert small.report.digest == usual.report.digest
    inputs = example_of(small.preprocess)
    assert inputs["x"].shape == (2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(small.network.fc(small.chain[:](inputs)), small.network(inputs["x"]), atol=1e-5)
    assert sum(b.macs for b in small.chain.blocks) < 0.2 * sum(b.macs for b in usual.chain.blocks)


@pytest.mark.parametrize(
    ("source", "size", "says"),
    [
        ("torchvision/vit_b_32", 96, "Expected 224 but got 96!\nNot every network takes other sizes"),
        ("sound/resemblyzer", 96, "size=96 is for pictures; the network reads sounds"),
        ("timm/test_resnet", 0, "size=0: give 1 to 8,192 pixels"),
    ],
)
def test_a_size_that_the_network_does_not_take_is_refused(source, size, says):
    with pytest.raises(TopgraftError, match=re.escape(says)):
        load(source, weights="none", size=size)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("resnet18", "no backbone 'resnet18'. Nearest: timm/resnet18"),
        ("tim/resnet18", "no backbone 'tim/resnet18'. Nearest: timm/resnet18"),
        ("timm/", "no backbone 'timm/'"),
        ("", "no backbone ''"),
        ("all-MiniLM-L6-v2", "Nearest: hf/all-MiniLM-L6-v2"),
    ],
)
def test_an_unknown_source_gets_the_nearest_and_the_kinds(source, says):
    with pytest.raises(TopgraftError, match=says) as caught:
        find(source)
    assert (
        "Give timm/NAME, hf/NAME-or-folder, torchvision/NAME, sound/NAME, rows/resnet, "
        "package.module:function or the folder of a saved graft." in str(caught.value)
    )


def test_data_of_another_kind_are_refused():
    with pytest.raises(
        TopgraftError, match=r"reads pictures, and the data are texts. For them there is hf/all-MiniLM"
    ):
        load("timm/test_resnet", weights="none", modality="text")


def test_arrays_need_an_example():
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    with pytest.raises(TopgraftError, match="example="):
        load(network, preprocess=ArrayPreprocess("input"))


@pytest.mark.parametrize(
    "recipe", [{}, {"kind": "smell"}, {"kind": "timm"}, {"kind": "hf", "class": "BertModel"}]
)
def test_a_recipe_that_is_none_is_said(recipe):
    with pytest.raises(TopgraftError, match=r"Unknown kind of network|can't be used"):
        rebuild(recipe)
