"""Exports in 8 bits: opened by ONNX Runtime, smaller, and with the loss of accuracy told as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command_line import called, table_of, word_texts
from exported_grafts import arrays, pictures, real, saved, texts

from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.export import export
from topgraft.features.reading import batch_of
from topgraft.saved import Model

CLASSES = ("buildings", "food", "tools")


def named(model: Model, classes: tuple[str, ...]) -> Model:
    return replace(model, classes=classes, description={**model.description, "classes": list(classes)})


def run_file(path: Path, batch: dict) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {name: tensor.numpy() for name, tensor in batch.items()})[0]


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("exported")
    model = saved(named(pictures(), CLASSES), folder / "model.topgraft")
    outcome = called(
        "export", model, "--to", "onnx", "--int8", "--check", photos, "-o", folder / "int8", "--json"
    )
    assert outcome.status == 0, outcome.err
    assert "ranges set by 18 other examples" in " ".join(outcome.err.split())
    return folder / "int8", outcome.json


def test_pictures_are_static_and_what_is_told_is_what_onnx_runtime_gives(
    made: tuple[Path, dict], photos: Path, tmp_path: Path
) -> None:
    folder, told = made
    assert json.loads((folder / "export.json").read_text(encoding="utf-8"))["int8"] == told["int8"]
    assert (told["precision"], told["int8"]["method"]) == ("int8", "static")
    assert told["int8"]["calibrated_on"] == told["int8"]["examples"] == 18
    kinds = {node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert told["int8"]["bytes"] == (folder / "model.onnx").stat().st_size < 0.6 * told["int8"]["bytes_fp32"]
    model = named(pictures(), CLASSES)
    export(model, "onnx", tmp_path / "fp32")
    data = read(photos)
    rows = np.random.default_rng(0).permutation(len(data))[18:].tolist()
    batch = batch_of(model.preprocess, data, rows)
    before, after = (run_file(place / "model.onnx", batch) for place in (tmp_path / "fp32", folder))
    assert told["int8"]["agreement"]["value"] == float((before.argmax(1) == after.argmax(1)).mean())
    assert told["int8"]["probabilities"] == pytest.approx(float(np.abs(before - after).max()), abs=2e-3)
    accuracy = told["int8"]["score"]
    assert accuracy["metric"] == "accuracy"
    assert accuracy["int8"] == float((after.argmax(1) == data.targets[rows]).mean())
    assert accuracy["loss"] == accuracy["fp32"] - accuracy["int8"]


def test_texts_are_dynamic_and_need_no_examples(tmp_path: Path) -> None:
    told = export(texts(), "onnx", tmp_path / "int8", int8=True).document["int8"]
    assert (told["method"], told["calibrated_on"], told["score"]) == ("dynamic", 0, None)
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "int8" / "model.onnx")).graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeLinear"}
    assert told["bytes"] < told["bytes_fp32"]


@pytest.mark.slow
def test_texts_with_labels_tell_the_loss_of_accuracy(tmp_path: Path) -> None:
    table = table_of(tmp_path / "words.csv", list(word_texts(30)))
    model = replace(
        named(texts(), ("blame", "neither", "praise")), columns={"text": "text", "label": "label"}
    )
    told = export(model, "onnx", tmp_path / "more", int8=True, check_on=str(table)).document["int8"]
    assert told["examples"] == 30
    assert told["score"]["loss"] == told["score"]["fp32"] - told["score"]["int8"]


def test_what_can_not_be_is_refused_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    model, out = named(pictures(), CLASSES), tmp_path / "x"
    few = read(sorted(photos.rglob("*.webp"))[:6], targets=["food"] * 6, classes=CLASSES)
    for options, words in (
        ({"to": "torch", "int8": True, "check_on": photos}, "--int8 is for --to onnx and --to openvino"),
        ({"to": "onnx", "int8": True}, "Give some, best labelled"),
        ({"to": "onnx", "check_on": photos}, "--check is for --int8"),
        ({"to": "onnx", "int8": True, "check_on": few}, "At least 16 are needed"),
    ):
        with pytest.raises(TopgraftError, match=words):
            export(model, out=out, **options)
        assert not out.exists()
    with pytest.raises(TopgraftError, match="this model reads arrays"):
        export(arrays(), "onnx", out, int8=True)
    with pytest.raises(TopgraftError, match="sets the range of activations by examples"):
        export(texts(), "openvino", out, int8=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["picture", "text"])
def test_packaged_weights_keep_most_answers(modality: str, photos: Path, tmp_path: Path) -> None:
    model = real(modality)
    check = None
    if modality == "picture":
        model, check = named(model, CLASSES), photos
    told = export(model, "onnx", tmp_path / "int8", int8=True, check_on=check).document["int8"]
    assert told["bytes"] < (0.5 if modality == "text" else 1) * told["bytes_fp32"]
    assert told["agreement"]["value"] >= 0.8
