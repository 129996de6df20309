from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from child_process import in_program
from packaged_data import pictures_of
from processor import told_without_bf16
from small_networks import bits, differing, example_maps, kept, maps
from torch import Tensor, nn

import topgraft as tg
from topgraft.chain import Chain
from topgraft.errors import TopgraftError
from topgraft.features.engine import Engine, EngineWarning, engine_of, usable, version_of
from topgraft.features.openvino import OpenVinoEngine
from topgraft.side_by_side import of_threads, single_threaded


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain.of(maps(dropout=0.5), example_maps())


def layouts_of(chain: Chain) -> dict[int, str]:
    return {block.index: block.layout for block in chain}


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_it_gives_the_states_that_pytorch_gives(chain, cut, count):
    x = {"x": example_maps(count, seed=3)}
    theirs, ours = Engine(chain[:cut]).run(x), engine_of(chain[:cut], name="openvino").run(x)
    assert ours.tensors[0].dtype == torch.float32
    torch.testing.assert_close(ours.tensors[0], theirs.tensors[0], rtol=1e-5, atol=1e-5)


def test_every_cut_comes_out_pooled_in_one_run(chain):
    x = {"x": example_maps(5, seed=3)}
    layouts = layouts_of(chain)
    expected = Engine(chain[: len(chain)]).pooled(x, layouts)
    got = OpenVinoEngine(chain[: len(chain)]).pooled(x, layouts)
    assert list(got) == list(expected) == list(range(1, len(chain) + 1))
    for cut, pooled in got.items():
        torch.testing.assert_close(pooled, expected[cut], rtol=1e-5, atol=1e-5)


def test_bf16_is_near_and_how_near_is_known(chain):
    x = {"x": example_maps(6)}
    with told_without_bf16():
        engine = OpenVinoEngine(chain[:4], precision="bf16")
    rough, exact = engine.run(x).tensors[0], Engine(chain[:4]).run(x).tensors[0]
    apart = float((rough - exact).norm() / exact.norm())
    assert 0 <= apart < 0.05
    assert 0 <= engine.differences["state"] < 0.05


def test_threads_side_by_side_get_what_one_gets(chain):
    batches = [{"x": example_maps(n % 3 + 1, seed=n)} for n in range(12)]
    alone = OpenVinoEngine(chain[:3])
    expected = [alone.run(batch).tensors[0] for batch in batches]
    engine = OpenVinoEngine(chain[:3])
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda batch: engine.run(batch).tensors[0], batches))
    assert [bits(t) for t in got] == [bits(t) for t in expected]


def test_made_where_operations_have_one_thread_it_runs_a_batch_on_each_core(chain, tmp_path):
    x, store, streams = {"x": example_maps(2)}, tg.Store(tmp_path), []
    with of_threads(2):
        for _ in range(2):  # converted, then read from where it is kept
            with single_threaded():
                engine = OpenVinoEngine(chain[:3], store=store)
                engine.run(x)
            streams.append(engine._compiled["state"].get_property("NUM_STREAMS"))
    assert streams == [2, 2]


def pressed_after_engines_were_freed() -> str:
    """Ctrl-C where an engine was made and run, and freed in another thread."""
    chain = Chain.of(maps(dropout=0.5), example_maps())
    engines = [engine_of(chain[:2], name="openvino")]
    engines[0].run({"x": example_maps(3)})
    freeing = threading.Thread(target=engines.clear)
    freeing.start()
    freeing.join()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        freeing.join()  # a place for Python to hear it
    except KeyboardInterrupt:
        return "stopped"
    return "went on"


def test_engines_freed_in_another_thread_leave_interrupts_as_they_were():
    assert in_program(pressed_after_engines_were_freed) == "stopped"


def test_the_part_that_it_was_made_from_stays_as_it_was(chain):
    segment = chain[:3].train()
    before = kept(segment)
    with told_without_bf16():
        engine = OpenVinoEngine(segment, precision="bf16")
    engine.run({"x": example_maps(3)})
    assert differing(kept(segment), before) == set()
    assert segment.training


class CountsItsBatch(nn.Module):
    """A network that tracing gets wrong: the number of examples becomes a constant of its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows + torch.ones(int(rows.shape[0]), 4)
        for block in self.blocks:
            rows = torch.tanh(block(rows))
        return rows


def test_what_tracing_gets_wrong_is_refused():
    chain = Chain.of(CountsItsBatch().eval(), torch.randn(3, 4), output_layer="")
    with pytest.raises(TopgraftError, match=r"CountsItsBatch.*\n?.*--engine torch"):
        OpenVinoEngine(chain[:2]).run({"rows": torch.randn(5, 4)})


def test_where_it_is_missing_that_is_said(chain, monkeypatch):
    monkeypatch.setattr("topgraft.features.openvino.find_spec", lambda _name: None)
    with pytest.raises(TopgraftError, match=r"pip install 'topgraft\[openvino\]'"):
        engine_of(chain[:2], name="openvino")
    with pytest.warns(EngineWarning, match="PyTorch runs it"):
        assert usable("openvino") == "torch"
    assert usable("torch") == "torch"


def test_numbers_of_one_engine_are_not_taken_for_those_of_another():
    assert version_of("torch") != version_of("openvino")


@pytest.mark.exhaustive
def test_a_fit_with_it_is_that_of_pytorch_within_rounding(tmp_path: Path):
    files = [file for c in ("animals", "food", "plants") for file in pictures_of(c, 0, 12)]
    labels = [file.parent.name for file in files]
    new = [file for c in ("animals", "food", "plants") for file in pictures_of(c, 12, 3)]
    backbone = tg.load(None, modality="picture")
    found = {}
    for engine in ("torch", "openvino"):
        run = tg.fit(
            (files, labels),
            tmp_path / engine,
            backbone=copy.deepcopy(backbone),
            engine=engine,
            keep="16",
            freeze="15",
            epochs=1,
            folds=3,
            store=tg.Store(tmp_path / f"store-{engine}"),
        )
        model = tg.open_model(run.folder)
        assert model.engine == engine
        found[engine] = tg.predict(model, new)
    for ours, theirs in zip(found["openvino"], found["torch"], strict=True):
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=2e-3)


def test_nothing_is_told_to_its_makers_and_nothing_is_left_in_the_home_folder(tmp_path: Path) -> None:
    home, tests = tmp_path / "home", Path(__file__).parent
    home.mkdir()
    converts = (
        "import sys\n"
        "from small_networks import example_maps, maps\n"
        "from topgraft.chain import Chain\n"
        "from topgraft.features.openvino import OpenVinoEngine\n"
        "chain = Chain.of(maps(dropout=0.5), example_maps())\n"
        "OpenVinoEngine(chain[:2]).run({'x': example_maps(3)})\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])\n"
    )
    told = os.environ | {"HOME": str(home), "PYTHONPATH": str(tests)}
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # where it is silent of itself
        told.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", converts], env=told, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert not (home / "intel").exists()
