from __future__ import annotations

import pytest
import torch
from processor import needs_bf16
from small_networks import maps

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.features.engine import PRECISIONS, engine_of
from topgraft.features.openvino import LARGEST, apart
from topgraft.features.passes import one_pass
from topgraft.features.trial import WORTH_IT, Choice, choose_engine


@pytest.fixture(scope="module")
def pictures() -> Data:
    from topgraft import demo

    return tg.read(demo.pictures())


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tg.load(None, modality="picture")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A trial of every engine however few there are."""
    monkeypatch.setattr("topgraft.features.trial.WORTH_IT", 0.0)
    monkeypatch.setattr("topgraft.features.trial.STARTS", 0.0)
    return monkeypatch


def test_few_examples_are_not_worth_a_trial(backbone, pictures, tmp_path):
    choice = choose_engine(backbone, pictures.subset(range(8)), tg.Store(tmp_path))
    assert (choice.engine, choice.precision) == ("torch", "fp32")
    assert "little to do for 8 examples" in choice.reason
    assert WORTH_IT > 0


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("torch", "fp32"), ("openvino", "fp32"), pytest.param("openvino", "bf16", marks=needs_bf16)],
)
def test_the_engine_whose_numbers_are_stored_is_taken(
    backbone, pictures, tmp_path, monkeypatch, engine, precision
):
    monkeypatch.setattr("topgraft.features.trial.has_fast_bf16", lambda *_: True)
    some, store = pictures.subset(range(6)), tg.Store(tmp_path)
    one_pass(backbone, some, store, engine=engine, precision=precision)
    choice = choose_engine(backbone, some, store)
    assert (choice.engine, choice.precision) == (engine, precision)
    assert choice.reason == "its numbers are stored by an earlier run"
    assert choose_engine(backbone, pictures.subset(range(7)), store).reason != choice.reason


@pytest.mark.usefixtures("always")
def test_what_was_asked_for_is_taken_without_a_trial(backbone, pictures, tmp_path):
    choice = choose_engine(backbone, pictures, tg.Store(tmp_path), engine="torch", precision="bf16")
    assert choice == Choice("torch", "bf16", "as asked")


@pytest.mark.usefixtures("always")
def test_the_faster_one_is_taken_and_why_is_told(backbone, pictures, tmp_path):
    many = choose_engine(backbone, pictures, tg.Store(tmp_path / "many"), precision="fp32")
    few = choose_engine(backbone, pictures.subset(range(4)), tg.Store(tmp_path / "few"), precision="fp32")
    assert "ms an example by PyTorch in fp32" in many.reason
    assert "by OpenVINO in fp32 after" in few.reason
    assert few.engine == "torch"  # compiling alone takes longer than four pictures
    if many.engine == "openvino":
        assert many.difference is not None
        assert 0 <= many.difference < 1e-4


def test_an_engine_that_takes_longer_to_start_than_all_the_work_is_not_tried(
    backbone, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr("topgraft.features.trial.WORTH_IT", 0.0)
    store, few = tg.Store(tmp_path), pictures.subset(range(4))
    choice = choose_engine(backbone, few, store)
    assert choice.engine == "torch"
    assert "by OpenVINO" not in choice.reason
    assert "; OpenVINO was not tried, since PyTorch takes 0." in choice.reason
    assert not list(store.root.rglob("*.safetensors"))  # nothing was converted
    assert choose_engine(backbone, few, store, engine="openvino").engine == "openvino"  # as asked


@needs_bf16
def test_bf16_is_taken_where_the_processor_has_it_and_how_far_it_is_off_is_told(
    backbone, pictures, tmp_path, always
):
    store = tg.Store(tmp_path)
    always.setattr("topgraft.features.trial.has_fast_bf16", lambda *_: False)
    assert choose_engine(backbone, pictures, store).precision == "fp32"
    always.setattr("topgraft.features.trial.has_fast_bf16", lambda *_: True)
    choice = choose_engine(backbone, pictures, store, engine="openvino")
    assert "by OpenVINO in bf16" in choice.reason
    assert choice.engine == "openvino"
    assert choice.precision == "bf16"
    assert choice.difference is not None
    assert 1e-4 < choice.difference < LARGEST["bf16"]
    told = f"activations differ by {choice.difference:.0e} from those of PyTorch in fp32"
    assert told in choice.reason
    runs = [engine_of(backbone.chain[:18], name="openvino", precision=p, store=store) for p in PRECISIONS]
    batch = backbone.preprocess.batch([pictures.decode(i) for i in range(0, len(pictures), 200)])
    exact, rough = (run.pooled(batch, {b.index: b.layout for b in backbone.chain})[18] for run in runs)
    assert 0 < apart(rough, exact) < LARGEST["bf16"]


@needs_bf16
def test_a_precision_that_is_too_far_off_is_refused(backbone, pictures, tmp_path, always):
    always.setattr("topgraft.features.trial.has_fast_bf16", lambda *_: True)
    always.setitem(LARGEST, "bf16", 1e-6)
    choice = choose_engine(backbone, pictures, tg.Store(tmp_path))
    assert choice.precision == "fp32"
    assert "bf16" not in choice.reason
    asked = choose_engine(backbone, pictures, tg.Store(tmp_path), engine="openvino")
    assert (asked.engine, asked.precision) == ("openvino", "fp32")
    always.setitem(LARGEST, "fp32", 1e-12)
    with pytest.raises(TopgraftError, match="differ by"):
        choose_engine(backbone, pictures, tg.Store(tmp_path / "other"), engine="openvino")


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=needs_bf16)])
def test_a_network_that_can_not_be_converted_runs_by_pytorch(tmp_path, always, fast):
    from packaged_data import glosses_of

    always.setattr("topgraft.features.trial.has_fast_bf16", lambda *_: fast)
    rows = list(glosses_of(("food", "plant"), 20))
    data = tg.read([text for text, _ in rows], targets=[label for _, label in rows])
    choice = choose_engine(tg.load(None, modality="text"), data, tg.Store(tmp_path))
    assert choice.engine == "torch"
    assert ("ms an example by PyTorch in bf16" in choice.reason) is fast


def test_without_openvino_it_is_pytorch_and_how_to_get_it_is_told(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("topgraft.features.trial.is_installed", lambda: False)
    network = tg.load(maps(), modality="array", example=torch.randn(2, 2, 6, 6))
    choice = choose_engine(network, pictures, tg.Store(tmp_path))
    assert choice.engine == "torch"
    assert "pip install" in choice.reason
