"""The export to ONNX, opened by ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from exported_grafts import NAMES, arrays, expected, fresh_batch, pictures, real, texts

from topgraft.export import export
from topgraft.saved import Model


def check(model: Model, out: Path) -> None:
    made = export(model, "onnx", out)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 4):
        batch = fresh_batch(model, count)
        given = {name: tensor.numpy() for name, tensor in batch.items()}
        logits, probabilities = session.run(["logits", "probabilities"], given)
        torch.testing.assert_close(torch.tensor(logits), expected(model, batch), rtol=1e-4, atol=1e-4)
        wanted = torch.softmax(expected(model, batch), 1)
        torch.testing.assert_close(torch.tensor(probabilities), wanted, rtol=1e-4, atol=1e-5)
    assert made.document["runtime"] == f"ONNX Runtime {onnxruntime.__version__}"
    assert made.difference.probabilities < 1e-5
    ports = {port.name: port.shape for port in session.get_inputs()}
    assert ports == {port["name"]: port["shape"] for port in made.document["inputs"]}
    assert [port.shape for port in session.get_outputs()] == [["batch", len(NAMES)]] * 2


@pytest.mark.parametrize("model", [arrays, pictures, texts], ids=lambda f: f.__name__)
def test_onnx_runtime_opens_it_and_gives_the_same(model, tmp_path):
    check(model(), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["picture", "text"])
def test_so_it_does_for_the_packaged_backbones(modality, tmp_path):
    check(real(modality), tmp_path / "out")


def test_the_file_says_its_classes_and_preprocessing(tmp_path):
    model = pictures()
    export(model, "onnx", tmp_path / "out")
    document = onnx.load(tmp_path / "out" / "model.onnx")
    notes = {entry.key: entry.value for entry in document.metadata_props}
    assert json.loads(notes["topgraft.classes"]) == list(NAMES)
    assert json.loads(notes["topgraft.preprocessing"]) == model.preprocess.describe()
    assert notes["topgraft.backbone"] == "timm/test_efficientnet"
