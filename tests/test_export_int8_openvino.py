"""OpenVINO models in 8 bits by NNCF: opened by OpenVINO, smaller, and with the loss told as it is."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import called, table_of, word_texts
from exported_grafts import pictures, real, saved, texts
from test_export_int8 import CLASSES, named

from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.export import export, int8_openvino
from topgraft.features.openvino import new_core
from topgraft.features.reading import batch_of


def types_in(file: Path) -> Counter[str]:
    network = new_core().read_model(file)
    kinds = [f"{node.get_type_name()} {node.get_output_element_type(0)}" for node in network.get_ops()]
    return Counter(kind for kind in kinds if kind.startswith(("FakeQuantize", "Constant")))


def test_pictures_are_static_and_what_is_told_is_what_openvino_gives(photos: Path, tmp_path: Path) -> None:
    before = dict(os.environ)
    model = saved(named(pictures(), CLASSES), tmp_path / "model.topgraft")
    out = tmp_path / "int8"
    outcome = called("export", model, "--to", "openvino", "--int8", "--check", photos, "-o", out, "--json")
    assert outcome.status == 0, outcome.err
    told = outcome.json
    assert sorted(path.name for path in out.glob("model*")) == ["model.bin", "model.xml"]
    assert (told["precision"], told["int8"]["method"]) == ("int8", "static")
    assert told["int8"]["calibrated_on"] == told["int8"]["examples"] == 18
    kinds = types_in(out / "model.xml")
    assert kinds["FakeQuantize <Type: 'float32'>"] > 3
    assert kinds["Constant <Type: 'int8_t'>"] > 3
    assert told["int8"]["bytes"] == sum(path.stat().st_size for path in out.glob("model*"))
    assert told["int8"]["bytes"] < told["int8"]["bytes_fp32"]
    data = read(photos)
    rows = np.random.default_rng(0).permutation(len(data))[18:].tolist()
    batch = batch_of(named(pictures(), CLASSES).preprocess, data, rows)
    compiled = new_core().compile_model(out / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    after = compiled({name: tensor.numpy() for name, tensor in batch.items()})["probabilities"]
    score = told["int8"]["score"]
    assert score["int8"] == float((after.argmax(1) == data.targets[rows]).mean())
    assert score["loss"] == score["fp32"] - score["int8"]
    assert {name: os.environ.get(name) for name in int8_openvino.SILENT} == {
        name: before.get(name) for name in int8_openvino.SILENT
    }


@pytest.mark.exhaustive
def test_texts_are_static_too(tmp_path: Path) -> None:
    table = table_of(tmp_path / "words.csv", list(word_texts(40)))
    given = read(str(table), text="text", label="label", classes=("blame", "neither", "praise"))
    model = named(texts(), ("blame", "neither", "praise"))
    told = export(model, "openvino", tmp_path / "int8", int8=True, check_on=given).document["int8"]
    assert (told["method"], told["calibrated_on"], told["examples"]) == ("static", 20, 20)
    assert told["score"]["metric"] == "accuracy"
    assert types_in(tmp_path / "int8" / "model.xml")["FakeQuantize <Type: 'float32'>"] > 3


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["picture", "text"])
def test_packaged_weights_keep_most_answers(modality: str, photos: Path, tmp_path: Path) -> None:
    model, check = real(modality), photos
    if modality == "picture":
        model = named(model, CLASSES)
    else:
        check = read([text for text, _ in word_texts(60)])
    told = export(model, "openvino", tmp_path / "int8", int8=True, check_on=check).document["int8"]
    assert told["bytes"] < (0.6 if modality == "text" else 1) * told["bytes_fp32"]
    assert told["agreement"]["value"] >= 0.8


def test_without_nncf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    int8_openvino.must_be_installed()
    monkeypatch.setattr(int8_openvino, "find_spec", lambda _: None)
    with pytest.raises(TopgraftError, match=r"needs nncf, an optional extra: .*topgraft\[openvino\]"):
        int8_openvino.must_be_installed()
