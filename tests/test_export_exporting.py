"""The command and the function: what is told, what is refused, and that nothing half-done is left."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from command_line import called, content, done
from exported_grafts import NAMES, arrays, model_of, pictures, saved
from small_networks import CLASSES, backbone_of, example_maps
from torch import Tensor, nn

import topgraft as tg
from topgraft.backbones import open_preprocess
from topgraft.console import Console
from topgraft.errors import RunningError, TopgraftError
from topgraft.export import FORMATS, export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(pictures(), tmp_path_factory.mktemp("runs") / "photos.topgraft")


def test_the_command_writes_a_folder_and_one_document(folder, tmp_path):
    out = tmp_path / "out"
    outcome = done("export", folder, "--to", "torch", "-o", out, "--json")
    told = outcome.json
    assert (told["format"], told["path"]) == ("torch", str(out))
    assert told["files"] == sorted(content(out))
    assert told["bytes"] == sum(map(len, content(out).values()))
    assert told["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 160, 160]}]
    assert [port["name"] for port in told["outputs"]] == ["logits", "probabilities"]
    assert told["tolerance"] == {"probabilities": 1e-4, "logits": 1e-3}
    assert 0 <= told["difference"]["probabilities"] < 1e-5
    assert told["from_predict"] is None
    written = json.loads((out / "export.json").read_text())
    assert written == {k: v for k, v in told.items() if k not in ("path", "bytes", "files")}
    assert written["classes"] == list(NAMES)
    assert open_preprocess(out / "preprocessing") == pictures().preprocess
    assert "Checked" in outcome.err
    assert "6 packaged pictures, in batches of 1 and 5" in outcome.err
    quiet = done("export", folder, "--to", "state-dict", "-o", tmp_path / "other", "--quiet")
    assert (quiet.out, quiet.err) == ("", "")
    assert (tmp_path / "other" / "head.safetensors").is_file()


def test_a_place_that_is_taken_is_refused_before_any_work(folder, tmp_path):
    out = tmp_path / "out"
    done("export", folder, "--to", "state-dict", "-o", out)
    before = content(out)
    refused = called("export", folder, "--to", "huggingface", "-o", out)
    assert refused.status == 2
    assert "--overwrite" in refused.err
    assert content(out) == before
    done("export", folder, "--to", "huggingface", "-o", out, "--overwrite")
    assert "graft.json" in content(out)
    assert "backbone.safetensors" not in content(out)


def test_an_unknown_format_and_a_folder_that_is_no_graft_are_refused(tmp_path):
    wrong = called("export", tmp_path, "--to", "onxx", "-o", tmp_path / "out")
    assert wrong.status == 2
    assert "give one of onnx, torch, openvino, state-dict, huggingface. Nearest: onnx." in wrong.err
    wrong = called("export", tmp_path, "--to", "torch", "-o", tmp_path / "out")
    assert wrong.status == 2
    assert "not a saved graft" in wrong.err
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_named_after_model_and_format(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tg.export(folder, "state-dict")
    assert made.path == Path("photos-state-dict")
    assert (tmp_path / "photos-state-dict" / "export.json").is_file()


def test_what_predict_computes_in_bf16_is_told_with_the_difference(tmp_path):
    stream = io.StringIO()
    made = export(arrays(precision="bf16"), "torch", tmp_path / "out", console=Console(stream))
    told = made.document["from_predict"]
    assert (told["precision"], told["engine"]) == ("bf16", "torch")
    assert 1e-6 < told["difference"]["probabilities"] < 0.1
    words = " ".join(stream.getvalue().split())
    assert f"they differ by up to: probabilities by {told['difference']['probabilities']:.1e}" in words
    assert "predict runs the frozen part in bf16 by torch, and this is fp32" in words
    assert made.difference.probabilities < 1e-5


class Scaled(nn.Module):
    """A network with a number of its own that no file of weights carries."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 4, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.fc = nn.Linear(4, CLASSES)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(block(x)) * self.scale
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("to", ["torch", "state-dict"])
def test_an_export_that_computes_something_else_is_refused_and_not_left(to, tmp_path):
    backbone = backbone_of(Scaled(1.0), example_maps())
    model = model_of(backbone, 3, 1)
    with pytest.raises(RunningError, match=r"computes something else than PyTorch(.|\n)*Nothing was written"):
        export(model, to, tmp_path / "out", module=Scaled(1.5))
    assert list(tmp_path.iterdir()) == []
    assert export(model, to, tmp_path / "out", module=Scaled(1.0)).difference.probabilities < 1e-6


def test_ones_own_network_in_two_parts_has_to_be_given(tmp_path):
    with pytest.raises(TopgraftError, match=r"module=\.\.\."):
        export(arrays(4, 2), "torch", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_format_has_a_module_that_writes():
    from importlib import import_module

    for name in FORMATS.values():
        assert callable(import_module(f"topgraft.export.{name}").write)
