from __future__ import annotations

import pytest
import torch
from small_networks import maps

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.data.types import Data
from topgraft.features.passes import one_pass
from topgraft.features.trial import WORTH_IT, choose_engine


@pytest.fixture(scope="module")
def pictures() -> Data:
    from topgraft import demo

    return tg.read(demo.pictures())


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tg.load(None, modality="picture")


def test_few_examples_are_not_worth_a_trial(backbone, pictures, tmp_path):
    choice = choose_engine(backbone, pictures.subset(range(8)), tg.Store(tmp_path))
    assert choice.engine == "torch"
    assert "little to do for 8 examples" in choice.reason


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_engine_whose_numbers_are_stored_is_taken(backbone, pictures, tmp_path, engine):
    some = pictures.subset(range(6))
    one_pass(backbone, some, tg.Store(tmp_path), engine=engine)
    choice = choose_engine(backbone, some, tg.Store(tmp_path))
    assert (choice.engine, choice.reason) == (engine, "its numbers are stored by an earlier run")
    assert choose_engine(backbone, pictures.subset(range(7)), tg.Store(tmp_path)).reason != choice.reason


def test_the_faster_one_is_taken_and_why_is_told(backbone, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("topgraft.features.trial.WORTH_IT", 0.0)  # a trial however few there are
    many = choose_engine(backbone, pictures, tg.Store(tmp_path))
    few = choose_engine(backbone, pictures.subset(range(4)), tg.Store(tmp_path))
    assert WORTH_IT > 0
    assert "ms an example by PyTorch" in many.reason
    assert "by OpenVINO after" in few.reason
    assert few.engine == "torch"  # compiling alone takes longer than four pictures
    if many.engine == "openvino":
        assert many.difference is not None
        assert 0 <= many.difference < 1e-4


def test_a_network_that_can_not_be_converted_runs_by_pytorch(tmp_path, monkeypatch):
    from packaged_data import glosses_of

    monkeypatch.setattr("topgraft.features.trial.WORTH_IT", 0.0)
    rows = list(glosses_of(("food", "plant"), 20))
    data = tg.read([text for text, _ in rows], targets=[label for _, label in rows])
    choice = choose_engine(tg.load(None, modality="text"), data, tg.Store(tmp_path))
    assert choice.engine == "torch"
    assert "PyTorch" in choice.reason


def test_without_openvino_it_is_pytorch_and_how_to_get_it_is_told(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("topgraft.features.trial.is_installed", lambda: False)
    network = tg.load(maps(), modality="array", example=torch.randn(2, 2, 6, 6))
    choice = choose_engine(network, pictures, tg.Store(tmp_path))
    assert choice.engine == "torch"
    assert "pip install" in choice.reason
