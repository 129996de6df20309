from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from child_process import in_child, limit_file_size
from processor import either_way
from small_networks import backbone_of, bits, data_of_maps, example_maps, graft_of, maps
from torch import Tensor

from topgraft.chain import Chain, Segment
from topgraft.data.unlabelled import Row
from topgraft.features.converted import Converted, Place, identity_of
from topgraft.features.engine import EngineWarning, engine_of
from topgraft.features.openvino import OpenVinoEngine
from topgraft.features.passes import one_pass, states
from topgraft.features.shelf import StoreWarning
from topgraft.features.store import Store
from topgraft.predict import Predictor
from topgraft.saved import Model, describe, open_model, save

X = {"x": example_maps(5, seed=3)}
ROWS = [Row(str(i), array, None) for i, array in enumerate(data_of_maps().inputs[:4])]


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain.of(maps(), example_maps())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with each conversion."""
    found: list[object] = []
    trace: Callable[..., object] = torch.jit.trace

    def counted(*args: object, **options: object) -> object:
        found.append(args)
        return trace(*args, **options)

    monkeypatch.setattr(torch.jit, "trace", counted)
    return found


def state(segment: Segment, store: Store | None, **options: str) -> Tensor:
    return OpenVinoEngine(segment, store=store, **options).run(X).tensors[0]


def converted(store: Store) -> list[Path]:
    return [shelf.folder for shelf in store.shelves() if shelf.description["what"] == "converted"]


def test_the_next_engine_opens_what_the_first_converted(chain, store, traces):
    layouts = {block.index: block.layout for block in chain}
    first = OpenVinoEngine(chain[:3], store=store)
    expected, pooled = first.run(X).tensors[0], first.pooled(X, layouts)
    assert len(traces) == 2
    again = OpenVinoEngine(copy.deepcopy(chain[:3]), store=Store(store.root))
    assert bits(again.run(X).tensors[0]) == bits(expected)
    assert {cut: bits(p) for cut, p in again.pooled(X, layouts).items()} == {
        cut: bits(p) for cut, p in pooled.items()
    }
    assert len(traces) == 2
    assert again.differences == first.differences
    assert again.seconds == first.seconds
    assert min(first.seconds.values()) > 0


def test_nothing_is_kept_where_there_is_no_store(chain, traces):
    assert bits(state(chain[:3], None)) == bits(state(chain[:3], None))
    assert len(traces) == 2


@either_way
def test_another_part_other_weights_or_another_precision_are_converted_anew(chain, store, traces):
    first = state(chain[:3], store)
    assert bits(state(chain[:2], store)) != bits(first)
    assert bits(state(chain[:3], store, precision="bf16")) != bits(first)
    other = Chain.of(maps(), example_maps())
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.5)
    assert bits(state(other[:3], store)) != bits(first)
    statistics = Chain.of(maps(), example_maps())
    name, buffer = next((n, b) for n, b in statistics[:3].named_buffers() if b.is_floating_point())
    buffer.add_(0.5)
    assert bits(state(statistics[:3], store)) != bits(first), name
    assert len(traces) == len(converted(store)) == 5
    assert bits(state(chain[:3], store)) == bits(first)
    assert len(traces) == 5


def test_pooling_in_another_way_is_another_graph(chain, store, traces):
    layouts = {block.index: block.layout for block in chain}
    OpenVinoEngine(chain[:3], store=store).pooled(X, layouts)
    OpenVinoEngine(chain[:3], store=store).pooled(X, layouts | {3: "vector"})
    assert len(traces) == 2


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Saved and opened again; two of its three blocks are frozen and run by OpenVINO."""
    backbone, data = backbone_of(maps(), example_maps()), data_of_maps()
    graft = graft_of(backbone.chain, 3, 2)
    description = describe(
        graft, backbone, classes=data.classes, columns={}, engine="openvino", precision="fp32"
    )
    (tmp_path / "model").mkdir()
    save(tmp_path / "model", graft, backbone.preprocess, description)
    return open_model(tmp_path / "model", module=maps(1))


def test_the_frozen_part_of_a_saved_model_is_the_chains(model, store, traces):
    backbone = backbone_of(maps(), example_maps())
    states(backbone, data_of_maps(), store, 2, engine="openvino")
    assert len(traces) == 1
    assert identity_of(model.graft.frozen) == identity_of(backbone.chain[:2])
    predicted = list(Predictor(model, store=store).predict(ROWS))
    assert all(p.error is None for p in predicted)
    assert len(traces) == 1


def test_the_pass_reads_what_an_earlier_one_converted(store, traces):
    backbone, data = backbone_of(maps(), example_maps()), data_of_maps()
    first, _ = one_pass(backbone, data, store, engine="openvino")
    for shelf in store.shelves():
        if shelf.description["what"] == "pooled":
            store.clear([shelf.key])
    again, reused = one_pass(backbone, data, store, engine="openvino")
    assert reused == 0
    assert [bits(a) for a in again.cuts.values()] == [bits(a) for a in first.cuts.values()]
    assert len(traces) == 1


def test_a_damaged_one_is_told_and_converted_again(chain, store, traces):
    expected = state(chain[:3], store)
    (shard,) = converted(store)[0].glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.warns(StoreWarning, match="is damaged"):
        assert bits(state(chain[:3], Store(store.root))) == bits(expected)
    assert len(traces) == 2
    assert bits(state(chain[:3], Store(store.root))) == bits(expected)
    assert len(traces) == 2


def test_one_that_openvino_cannot_read_is_told_and_converted_again(chain, store, traces):
    engine = OpenVinoEngine(chain[:3], store=store)
    engine._place({"use": "state"}).keep(Converted(b"not a graph", 0.0, 1.0))
    with pytest.warns(EngineWarning, match="can't read the network that was kept"):
        found = engine.run(X).tensors[0]
    assert len(traces) == 1
    assert bits(found) == bits(state(chain[:3], None))


def test_where_it_cannot_be_kept_that_is_told_and_the_run_goes_on(chain, tmp_path):
    (tmp_path / "file").write_text("no folder")
    blocked = Store(tmp_path / "file")
    with pytest.warns(StoreWarning) as told:
        found = state(chain[:3], blocked)
    assert all("file/features-1" in str(w.message) for w in told)
    assert bits(found) == bits(state(chain[:3], None))


def test_a_full_disk_keeps_nothing_and_the_run_goes_on(store):
    def work() -> list[str]:
        limit_file_size(4096)
        with pytest.warns(StoreWarning, match="is not kept, and will be made again next time") as told:
            Place(store, {"cut": 1}).keep(Converted(bytes(10_000), 0.0, 1.0))
        return [str(told[0].message), *(path.name for path in store.root.rglob("*.safetensors"))]

    said = in_child(work)
    assert len(said) == 1
    assert "limit for the size of one file" in said[0]


def test_prediction_needs_no_store(monkeypatch, model):
    expected = list(Predictor(model, store=None).predict(ROWS))
    monkeypatch.setenv("TOPGRAFT_CACHE_LIMIT", "much")
    with pytest.warns(StoreWarning, match="TOPGRAFT_CACHE_LIMIT"):
        assert list(Predictor(model).predict(ROWS)) == expected


def test_pytorch_converts_nothing(chain, store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine_of(chain[:3], store=store).run(X)
    assert converted(store) == []


def test_it_is_listed_and_does_not_push_what_a_run_uses_out_of_use(chain, store):
    shelves = [store.shelf({"what": "pooled", "number": n}) for n in range(4)]
    for shelf in shelves:
        shelf.append(["e"], {"a": torch.ones(1, 2)})
    del shelf, shelves
    state(chain[:3], store)
    assert {s.description.get("number") for s in store.shelves() if s.is_used} == {0, 1, 2, 3}
    assert str(next(s for s in store.shelves() if not s.is_used)) == "a converted network, 3 blocks of Maps"


def test_a_place_gives_back_what_it_was_given(store):
    given = Converted(bytes(range(256)), 1e-6, 2.5)
    assert Place(store, {"cut": 1}).read() is None
    Place(store, {"cut": 1}).keep(given)
    assert Place(Store(store.root), {"cut": 1}).read() == given
    assert Place(store, {"cut": 2}).read() is None
