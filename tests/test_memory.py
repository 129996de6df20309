from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import topgraft as tg
from topgraft.chain import Chain
from topgraft.features.engine import Engine
from topgraft.memory import MemoryFormat, formatted


class Flattens(nn.Module):
    """Written as many first networks are: ``view`` flattens maps, and takes their memory for granted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.hidden, self.out = nn.Linear(8 * 4 * 4, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = nn.functional.max_pool2d(torch.relu(self.second(x)), 2)
        x = torch.relu(self.hidden(x.view(len(x), -1)))
        return self.out(x)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Flattens().eval()


def test_states_inputs_and_tensors_are_laid_out_and_what_is_no_map_stays():
    x, rows = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    found = formatted({"x": x, "rows": rows}, torch.channels_last)
    assert found["x"].is_contiguous(memory_format=torch.channels_last)
    assert found["rows"] is rows
    assert torch.equal(found["x"], x)
    back = formatted(tg.State((found["x"],)), torch.contiguous_format)
    assert back.tensors[0].is_contiguous()


def test_code_that_takes_the_memory_for_granted_runs_in_the_usual_layout(network):
    memory, x = MemoryFormat(network), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(memory.run(network, x), network(x))
    assert memory.format == torch.contiguous_format


def test_other_errors_are_not_swallowed(network):
    with pytest.raises(RuntimeError, match="channels"):
        MemoryFormat(network).run(network, torch.randn(4, 2, 8, 8))


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_engine_gives_its_states(network, cut):
    chain, x = Chain.of(network, torch.randn(3, 3, 8, 8)), torch.randn(5, 3, 8, 8)
    engine = Engine(chain[:cut])
    for _ in range(2):
        got = engine.run({"x": x}).tensors[0]
        with torch.no_grad():
            torch.testing.assert_close(got, chain[:cut].eval()(x).tensors[0], rtol=1e-5, atol=1e-6)


def test_it_is_fit_from_any_cut(network, tmp_path: Path):
    backbone = tg.load(network, modality="array", example=torch.randn(3, 3, 8, 8))
    rows = np.random.default_rng(0).normal(size=(36, 3, 8, 8)).astype("float32")
    labels = [f"class {n % 3}" for n in range(36)]
    for freeze in ("0", "1", "2"):
        run = tg.fit(
            (rows, labels),
            tmp_path / freeze,
            backbone=backbone,
            keep="3",
            freeze=freeze,
            epochs=1,
            folds=3,
            store=tg.Store(tmp_path / "store"),
        )
        assert len(tg.predict(tg.open_model(run.folder, module=Flattens()), rows[:4])) == 4
