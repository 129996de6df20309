from __future__ import annotations

import numpy as np
import pytest
import torch
from hub_cache import tiny_bert
from small_networks import backbone_of, bits, data_of_maps, example_maps, maps

from topgraft.backbones import load
from topgraft.chain import State
from topgraft.data import read
from topgraft.features import sources
from topgraft.features.engine import Engine
from topgraft.features.passes import states
from topgraft.features.sources import FeatureSource, LiveSource, StateSource, ViewSource
from topgraft.features.store import Store

DATA = data_of_maps(12)
ROWS = [7, 2, 2, 11, 0]
TEXTS = ["a film", "a good long story about people", "bad", "the film was good"]


@pytest.fixture(scope="module")
def backbone():
    return backbone_of(maps(dropout=0.5), example_maps())


def test_features_come_in_the_order_asked():
    features = torch.arange(12.0).view(6, 2)
    assert FeatureSource(features).batch([4, 0, 4], training=True).tolist() == [[8, 9], [0, 1], [8, 9]]


@pytest.mark.parametrize("limit", [sources.IN_MEMORY, 0])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_states_from_memory_and_from_the_store_are_those_run_live(
    backbone, tmp_path, monkeypatch, limit, precision
):
    monkeypatch.setattr(sources, "IN_MEMORY", limit)
    shelf, _ = states(backbone, DATA, Store(tmp_path), 2, precision=precision, batch_size=12)
    source = StateSource(shelf, DATA.digests)
    assert (source._held is None) == (limit == 0)
    engine = Engine(backbone.chain[:2], precision=precision)
    whole = engine.run({"x": torch.from_numpy(DATA.inputs)}).tensors[0].float()
    state = source.batch(ROWS, training=True)
    assert isinstance(state, State)
    assert state.tensors[0].dtype == torch.float32
    assert bits(state.tensors[0]) == bits(whole[ROWS])
    assert bits(source.batch(ROWS, training=False).tensors[0]) == bits(state.tensors[0])


def test_what_a_batch_is_given_is_its_own(backbone, tmp_path):
    shelf, _ = states(backbone, DATA, Store(tmp_path), 2)
    source = StateSource(shelf, DATA.digests)
    before = bits(source.batch(ROWS, training=True).tensors[0])
    source.batch(ROWS, training=True).tensors[0].zero_()
    assert bits(source.batch(ROWS, training=True).tensors[0]) == before


def test_texts_are_padded_to_the_longest_of_the_batch(tmp_path):
    tiny_bert(tmp_path / "bert")
    bert = load(f"hf/{tmp_path / 'bert'}")
    data = read((TEXTS, ["x", "y", "x", "y"]))
    shelf, _ = states(bert, data, Store(tmp_path / "store"), 1)
    source = StateSource(shelf, data.digests)
    for rows in ([0, 2], [1, 2, 3]):
        state = source.batch(rows, training=True)
        inputs = bert.preprocess.batch([TEXTS[i] for i in rows])
        assert state.inputs.keys() == inputs.keys()
        for name, tensor in inputs.items():
            assert torch.equal(state.inputs[name], tensor), name
        assert state.tensors[0].shape[:2] == inputs["input_ids"].shape
        assert len(state) == len(rows)


@pytest.mark.parametrize("cut", [0, 2])
def test_live_gives_inputs_or_the_state_of_the_examples(backbone, cut):
    engine = Engine(backbone.chain[:cut]) if cut else None
    source = LiveSource(DATA, backbone.preprocess, engine=engine, augment=None)
    given = source.batch(ROWS, training=True)
    if engine is None:
        assert given.keys() == {"x"}
        assert torch.equal(given["x"], torch.from_numpy(DATA.inputs)[ROWS])
        return
    expected = engine.run({"x": torch.from_numpy(DATA.inputs)[ROWS]}).tensors[0]
    assert bits(given.tensors[0]) == bits(expected)
    assert not given.tensors[0].is_inference()  # else no gradient could pass what comes after it


def test_examples_are_changed_in_training_only(backbone):
    source = LiveSource(DATA, backbone.preprocess, engine=None, augment=lambda x: x + 1)
    plain = torch.from_numpy(DATA.inputs)[ROWS]
    assert torch.equal(source.batch(ROWS, training=False)["x"], plain)
    assert torch.equal(source.batch(ROWS, training=True)["x"], plain + 1)


def test_training_draws_a_view_of_each_example_and_all_else_reads_it_as_it_is(tmp_path):
    backbone, data = pictures_and_network()
    shelves = [states(backbone, data, Store(tmp_path / "store"), 2, view=view)[0] for view in range(3)]
    views = [StateSource(shelf, data.digests) for shelf in shelves]
    rows = [3, 0, 0, 2, 1, 3]
    given = [[bits(view.batch([row], training=False).tensors[0][0]) for row in rows] for view in views]
    source = ViewSource(views)
    plain = source.batch(rows, training=False).tensors[0]
    assert [bits(t) for t in plain] == given[0]
    seen = [set() for _ in rows]
    for seed in range(30):
        torch.manual_seed(seed)
        drawn = source.batch(rows, training=True).tensors[0]
        torch.manual_seed(seed)
        assert bits(source.batch(rows, training=True).tensors[0]) == bits(drawn)
        for place, tensor in enumerate(drawn):
            seen[place].add([view[place] for view in given].index(bits(tensor)))
    assert all(views == {0, 1, 2} for views in seen)


def pictures_and_network():
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)
    network = load("timm/resnet10t", weights="none")
    return network, read((noise, ["a", "b", "a", "b"]), modality="picture")
