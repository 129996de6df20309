"""The export for ``torch.export``, opened by PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from exported_grafts import NAMES, arrays, expected, fresh_batch, pictures, real, texts

from topgraft.export import export
from topgraft.saved import Model


def check(model: Model, out: Path) -> None:
    made = export(model, "torch", out)
    extra = {"topgraft.classes": ""}
    network = torch.export.load(out / "model.pt2", extra_files=extra).module()
    for count in (1, 4):
        batch = fresh_batch(model, count)
        logits, probabilities = network(*batch.values())
        torch.testing.assert_close(logits, expected(model, batch), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(probabilities, torch.softmax(logits, 1))
    assert json.loads(extra["topgraft.classes"]) == list(NAMES)
    assert made.document["runtime"] == f"torch.export of PyTorch {torch.__version__}"
    assert made.difference.probabilities < 1e-5


@pytest.mark.parametrize("model", [arrays, pictures, texts], ids=lambda f: f.__name__)
def test_pytorch_opens_it_and_gives_the_same(model, tmp_path):
    check(model(), tmp_path / "out")


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["picture", "text"])
def test_so_it_does_for_the_packaged_backbones(modality, tmp_path):
    check(real(modality), tmp_path / "out")
