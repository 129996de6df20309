"""The engine on a GPU beside the one on the processor; without a GPU, what is said of that."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from packaged_data import pictures_of
from small_networks import bits, example_maps, maps
from torch import nn

import topgraft as tg
from topgraft import demo
from topgraft.chain import Chain
from topgraft.device import has_gpu
from topgraft.errors import TopgraftError
from topgraft.features import cuda
from topgraft.features.cuda import CudaEngine
from topgraft.features.engine import Engine, EngineWarning, engine_of, usable, version_of
from topgraft.features.openvino import LARGEST, apart
from topgraft.features.trial import choose_engine
from topgraft.halving import MemoryWarning

on_gpu = pytest.mark.skipif(not has_gpu(), reason="there is no GPU here")
without = pytest.mark.skipif(has_gpu(), reason="there is a GPU here")


@pytest.fixture(autouse=True)
def _records_at_once(monkeypatch):
    monkeypatch.setattr(cuda, "AFTER", 1)


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain.of(maps(dropout=0.5), example_maps())


@without
def test_where_there_is_none_that_is_said_before_anything_begins(chain):
    for refused in (lambda: engine_of(chain[:2], name="cuda"), lambda: version_of("cuda")):
        with pytest.raises(TopgraftError, match=r"PyTorch sees none.*--engine torch"):
            refused()


@without
def test_a_model_made_on_one_runs_on_the_processor_and_that_is_said():
    with pytest.warns(EngineWarning, match="there is none here: PyTorch runs it on the processor"):
        assert usable("cuda") == "torch"


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packaged_pictures_get_what_the_processor_gives(precision):
    backbone = tg.load(modality="picture")
    layouts = {block.index: block.layout for block in backbone.chain}
    data = tg.read(demo.pictures())
    inputs = backbone.preprocess.batch([data.decode(i) for i in range(12)])
    expected = Engine(backbone.chain[:18]).pooled(inputs, layouts)
    engine = CudaEngine(backbone.chain[:18], precision=precision)
    for _ in range(5):  # launched step by step, then recorded in each slot
        got = engine.pooled(inputs, layouts)
        assert got.keys() == expected.keys()
        most = {"fp32": 1e-5, "bf16": LARGEST["bf16"]}[precision]
        assert max(apart(got[cut], expected[cut]) for cut in expected) < most
    assert all(t.device.type == "cpu" and t.dtype == torch.float32 for t in got.values())


@on_gpu
def test_a_recorded_launch_gives_the_bits_of_single_ones(chain):
    engine = CudaEngine(chain[:4])
    layouts = {block.index: block.layout for block in chain.blocks[:4]}
    x, other = example_maps(6, seed=1), example_maps(6, seed=2)
    first = engine.pooled({"x": x}, layouts)
    for _ in range(6):
        engine.pooled({"x": other}, layouts)
        again = engine.pooled({"x": x}, layouts)
        assert {k: bits(t) for k, t in again.items()} == {k: bits(t) for k, t in first.items()}


@on_gpu
def test_a_state_stays_when_the_next_batch_has_run(chain):
    engine = CudaEngine(chain[:2])
    inputs = [{"x": example_maps(4, seed=seed)} for seed in range(12)]
    states = [engine.run(one).tensors[0] for one in inputs]
    for one, state in zip(inputs, states, strict=True):
        expected = Engine(chain[:2]).run(one).tensors[0]
        assert state.device.type == "cuda"
        assert apart(state.cpu(), expected) < 1e-5


@on_gpu
def test_many_threads_get_each_its_own_numbers(chain):
    engine = CudaEngine(chain[:4])
    layouts = {block.index: block.layout for block in chain.blocks[:4]}
    inputs = [{"x": example_maps(3 + seed % 3, seed=seed)} for seed in range(60)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda one: engine.pooled(one, layouts), inputs))
    exact = Engine(chain[:4])
    for one, found in zip(inputs, got, strict=True):
        expected = exact.pooled(one, layouts)
        assert max(apart(found[cut], expected[cut]) for cut in expected) < 1e-5


class LooksAtItsNumbers(nn.Module):
    """A network that asks for a number on its way, which no recording can have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = self.first(rows)
        return self.second(rows * 2 if float(rows.sum()) > 0 else rows)


@on_gpu
def test_what_cannot_be_recorded_runs_step_by_step():
    chain = Chain.of(LooksAtItsNumbers().eval(), torch.randn(3, 4), output_layer="")
    engine, exact = CudaEngine(chain[:2]), Engine(chain[:2])
    for seed in range(5):
        rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        got, expected = (e.run({"rows": rows}).tensors[0].cpu() for e in (engine, exact))
        assert apart(got, expected) < 1e-5


@on_gpu
def test_batches_are_as_large_as_memory_allows(chain, monkeypatch):
    engine = CudaEngine(chain[:4])
    assert engine.examples_at_once({"x": example_maps(4)}) == cuda.MOST
    monkeypatch.setattr(cuda, "SHARE", 1e-5)
    few = engine.examples_at_once({"x": example_maps(4)})
    assert 1 <= few < cuda.MOST


@on_gpu
def test_too_little_memory_halves_the_batch_and_gives_the_same(tmp_path):
    backbone, data = tg.load(modality="picture"), tg.read(demo.pictures())
    whole, _ = tg.one_pass(backbone, data, tg.Store(tmp_path / "a"), engine="cuda")
    _, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.2e9 / total)
    try:
        with pytest.warns(MemoryWarning, match="from now on"):
            parts, _ = tg.one_pass(backbone, data, tg.Store(tmp_path / "b"), engine="cuda", batch_size=129)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert max(apart(parts.cuts[cut], whole.cuts[cut]) for cut in whole.cuts) < 1e-5


@on_gpu
def test_a_trial_takes_the_gpu_and_says_what_it_measured(tmp_path):
    backbone, data = tg.load(modality="picture"), tg.read(demo.pictures())
    choice = choose_engine(backbone, data, tg.Store(tmp_path))
    assert choice.engine == "cuda"
    assert "by PyTorch on the GPU in" in choice.reason
    assert choose_engine(backbone, data, tg.Store(tmp_path), engine="torch").engine == "torch"


@on_gpu
@pytest.mark.parametrize("freeze", [0, 12, 18])
def test_a_fit_runs_there_and_its_model_on_the_processor_too(tmp_path, freeze, monkeypatch):
    for name in ("animals", "food"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for path in pictures_of(name, 0, 30):
            shutil.copy(path, tmp_path / "data" / name)
    told = {"keep": 18, "freeze": freeze, "epochs": 2, "augment": "none", "soup": 1, "resize": "pretrained"}
    run = tg.fit(tmp_path / "data", tmp_path / "run", store=tg.Store(tmp_path / "store"), taps="none", **told)
    model = tg.open_model(run.folder)
    assert model.engine == "cuda"
    packaged = tg.load(modality="picture").network.state_dict()
    frozen = model.graft.frozen_tensors()
    assert (len(frozen) > 0) == (freeze > 0)
    for name, tensor in frozen.items():
        assert bits(tensor.cpu()) == bits(packaged[name])
    rows = pictures_of("food", 30, 20)
    there = tg.predict(tg.open_model(run.folder), rows)
    monkeypatch.setattr("topgraft.features.engine.has_gpu", lambda: False)
    with pytest.warns(EngineWarning, match="made on a GPU"):
        here = tg.predict(tg.open_model(run.folder), rows)
    one, other = (torch.tensor([p.probabilities for p in found]) for found in (there, here))
    assert one.shape == (20, 2)
    assert float((one - other).abs().max()) < 0.05
