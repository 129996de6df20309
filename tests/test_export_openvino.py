"""The export to OpenVINO, opened by OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path

import openvino
import pytest
import torch
from exported_grafts import NAMES, arrays, expected, fresh_batch, pictures, real, texts

from topgraft.export import export
from topgraft.features.openvino import new_core
from topgraft.saved import Model


def check(model: Model, out: Path) -> None:
    made = export(model, "openvino", out)
    core = new_core()
    network = core.read_model(out / "model.xml")
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 4):
        batch = fresh_batch(model, count)
        found = compiled({name: tensor.numpy() for name, tensor in batch.items()})
        wanted = expected(model, batch)
        torch.testing.assert_close(torch.tensor(found["logits"]), wanted, rtol=1e-4, atol=1e-4)
        chances = torch.tensor(found["probabilities"])
        torch.testing.assert_close(chances, torch.softmax(wanted, 1), rtol=1e-4, atol=1e-5)
    assert made.document["runtime"] == f"OpenVINO {openvino.__version__}"
    assert made.difference.probabilities < 1e-5
    assert [port.get_any_name() for port in network.inputs] == [p["name"] for p in made.document["inputs"]]
    fixed = [[s for s in p["shape"] if isinstance(s, int)] for p in made.document["inputs"]]
    sizes = [[d.get_length() for d in port.partial_shape if d.is_static] for port in network.inputs]
    assert sizes == fixed
    assert json.loads(network.get_rt_info(["model_info", "topgraft_classes"]).astype(str)) == list(NAMES)


@pytest.mark.parametrize("model", [arrays, pictures, texts], ids=lambda f: f.__name__)
def test_openvino_opens_it_and_gives_the_same(model, tmp_path):
    check(model(), tmp_path / "out")


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["picture", "text"])
def test_so_it_does_for_the_packaged_backbones(modality, tmp_path):
    check(real(modality), tmp_path / "out")
