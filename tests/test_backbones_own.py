from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from topgraft.backbones import ArrayPreprocess, PicturePreprocess, load, rebuild
from topgraft.backbones.loading import find
from topgraft.backbones.own import call_target
from topgraft.errors import TopgraftError

SOURCE = """
import torch
from torch import nn
from topgraft.backbones import ArrayPreprocess, PicturePreprocess

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)
    def forward(self, values):
        return self.last(torch.relu(self.second(torch.relu(self.first(values)))))

def bare():
    return Net()

def pair():
    return Net(), ArrayPreprocess("values")

def pictures():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 2))

def wrong():
    return [1, 2]

def wrong_pair():
    return Net(), "resize to 224"

def fails():
    raise ValueError("no luck")

number = 3
"""
EXAMPLE = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mynet(tmp_path, monkeypatch):
    (tmp_path / "mynet_for_a_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield "mynet_for_a_test"
    sys.modules.pop("mynet_for_a_test", None)


def test_a_function_beside_us_gives_the_network_and_its_preprocessing(mynet):
    before = list(sys.path)
    backbone = load(f"{mynet}:pair", example=EXAMPLE)
    assert sys.path == before
    assert backbone.preprocess == ArrayPreprocess("values")
    assert (backbone.modality, backbone.report.matched) == ("array", "as given")
    assert [b.name for b in backbone.chain] == ["first", "second"]
    assert backbone.report.tensors == 4  # the old output layer is found and left out
    raw = [np.ones(4), np.zeros(4)]
    batch = backbone.preprocess.batch(raw)
    with torch.no_grad():
        assert backbone.network(**batch).shape == (2, 3)
    assert load(f"{mynet}:bare", example=EXAMPLE, preprocess=ArrayPreprocess("values")).modality == "array"


def test_weights_from_a_file_and_random_values(mynet, tmp_path):
    network = call_target(f"{mynet}:bare")[0]
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone = load(f"{mynet}:pair", weights=tmp_path / "w.pth", example=EXAMPLE)
    assert torch.equal(backbone.network.first.weight, network.first.weight)
    assert backbone.report.not_needed == ("last.bias", "last.weight")
    assert (backbone.report.arrived, backbone.report.share) == (4, 1.0)
    digests = [
        load(f"{mynet}:pair", weights="none", seed=s, example=EXAMPLE).report.digest for s in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_module_is_used_itself_and_can_be_given_random_values():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    before = network[0].weight.clone()
    backbone = load(network, example=EXAMPLE)
    assert backbone.network is network
    assert torch.equal(network[0].weight, before)
    assert backbone.source == "Sequential"
    load(network, example=EXAMPLE, weights="none", seed=3)
    assert not torch.equal(network[0].weight, before)
    network.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(TopgraftError, match="Sequential has no reset_parameters"):
        load(network, example=EXAMPLE, weights="none")


def test_the_usual_preprocessing_of_pictures_is_stated(mynet):
    found = find(f"{mynet}:pictures")
    assert isinstance(found.preprocess, PicturePreprocess)
    assert found.preprocess.size == (224, 224)
    assert found.notes == ("preprocessing: ImageNet's usual one, as none came with the network",)
    smaller = find(f"{mynet}:pictures", example=torch.zeros(2, 3, 32, 48))
    assert (smaller.preprocess.size, smaller.preprocess.key) == ((32, 48), "input")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("mynet_for_a_tset:bare", "no Python module 'mynet_for_a_tset'"),
        ("mynet_for_a_test:bear", "has no 'bear'. Nearest: bare"),
        ("mynet_for_a_test:wrong", "gave a list; expected an nn.Module"),
        ("mynet_for_a_test:wrong_pair", "preprocessing is a str; expected PicturePreprocess"),
        ("mynet_for_a_test:fails", "failed: ValueError: no luck"),
        ("mynet_for_a_test:number", "is a int; expected a function"),
        ("mynet_for_a_test:bare", "not plain what Net reads"),
    ],
)
@pytest.mark.usefixtures("mynet")
def test_what_does_not_give_a_network_is_said(target, says):
    with pytest.raises(TopgraftError, match=says):
        find(target)


def test_opening_runs_ones_own_code_only_when_it_is_trusted(mynet):
    backbone = load(f"{mynet}:pair", example=EXAMPLE)
    recipe = json.loads(json.dumps(backbone.recipe))
    del sys.modules[mynet]
    with pytest.raises(TopgraftError, match="--trust-code"):
        rebuild(recipe)
    assert mynet not in sys.modules
    assert rebuild(recipe, module=backbone.network) is backbone.network
    rebuild(recipe, trust_code=True).load_state_dict(backbone.network.state_dict())
    with pytest.raises(TopgraftError, match="the module given is torch"):
        rebuild(recipe, module=nn.Linear(1, 1))
    module = load(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)), example=EXAMPLE)
    with pytest.raises(TopgraftError, match="Give the module"):
        rebuild(module.recipe, trust_code=True)
