from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from child_process import in_program, killed
from hub_cache import tiny_bert
from one_by_one import OneByOne
from small_networks import backbone_of, bits, data_of_maps, differing, example_maps, maps
from torch import Tensor

from topgraft.backbones import ArrayPreprocess, load
from topgraft.backbones.types import Backbone
from topgraft.chain import Chain
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.features import passes
from topgraft.features.batching import batches, lacking
from topgraft.features.engine import Engine
from topgraft.features.passes import is_storable, mended, one_pass, states
from topgraft.features.shelf import NotStored, StoreWarning
from topgraft.features.sources import StateSource
from topgraft.features.store import Store
from topgraft.pooling import pool, width
from topgraft.stopping import gently
from topgraft.workers import led

DATA = data_of_maps(24)
TEXTS = [
    "a film",
    "a good long story about people",
    "bad",
    "the film was good and the story was bad",
    "people",
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(), example_maps())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder)
    return load(f"hf/{folder}", modality="text")


@pytest.fixture(scope="module")
def texts() -> Data:
    return read((TEXTS, ["x", "y", "x", "y", "x"]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def counted(backbone: Backbone) -> tuple[Backbone, list[int]]:
    """The backbone with a network that notes how many examples go through it."""
    network = copy.deepcopy(backbone.network)
    seen: list[int] = []
    chain = Chain.of(network, example_maps())
    network.stem.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    return replace(backbone, chain=chain), seen


# equal


@pytest.mark.parametrize("batch_size", [5, 24, 32])
def test_features_of_every_cut_are_those_of_the_part_run_live(backbone, store, batch_size):
    features, reused = one_pass(backbone, DATA, store, batch_size=batch_size)
    assert reused == 0
    assert list(features.cuts) == [1, 2, 3, 4]
    for cut, array in features.cuts.items():
        block = backbone.chain.blocks[cut - 1]
        with torch.no_grad():
            live = pool(backbone.chain[:cut].eval()(torch.from_numpy(DATA.inputs)), block.layout)
        assert array.shape == (24, width(block))
        assert torch.allclose(array, live, rtol=1e-5, atol=1e-6)


def test_the_same_batches_give_the_same_bits_again(backbone, tmp_path):
    first, second = (one_pass(backbone, DATA, Store(tmp_path / n), batch_size=7)[0] for n in "ab")
    assert all(bits(first.cuts[cut]) == bits(second.cuts[cut]) for cut in first.cuts)
    assert first.key == second.key


def test_padding_of_texts_changes_no_examples_features(bert, texts, tmp_path):
    together = one_pass(bert, texts, Store(tmp_path / "together"), batch_size=5)[0]
    alone = one_pass(bert, texts, Store(tmp_path / "alone"), batch_size=1)[0]
    lengths = bert.preprocess.batch(TEXTS)["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 2  # else nothing was padded
    for cut, array in together.cuts.items():
        assert torch.allclose(array, alone.cuts[cut], rtol=1e-5, atol=1e-5), cut


@pytest.mark.parametrize("cut", [1, 2])
def test_states_of_texts_come_back_without_padding_and_give_the_same_output(bert, texts, store, cut):
    shelf, _ = states(bert, texts, store, cut, batch_size=2)
    source = StateSource(shelf, texts.digests)
    rows = [3, 0, 4]
    state = source.batch(rows, training=True)
    inputs = bert.preprocess.batch([TEXTS[i] for i in rows])
    assert torch.equal(state.inputs["attention_mask"], inputs["attention_mask"])
    with torch.no_grad():
        live = bert.chain[:cut](inputs)
        got, wanted = bert.chain[cut:](state), bert.network(**inputs).last_hidden_state
    real = inputs["attention_mask"].bool()
    assert torch.allclose(state.tensors[0][real], live.tensors[0][real], rtol=1e-5, atol=1e-5)
    assert torch.allclose(got[real], wanted[real], rtol=1e-4, atol=1e-5)


def test_padding_on_the_left_is_cut_off_on_the_left(bert, texts, store):
    left = replace(bert, preprocess=replace(bert.preprocess, padding_side="left"))
    shelf, _ = states(left, texts, store, 1, batch_size=5)
    stored = shelf.read(texts.digests)
    batch = left.preprocess.batch(TEXTS)
    assert batch["attention_mask"][2, 0] == 0
    for i in range(len(TEXTS)):
        real = batch["attention_mask"][i].bool()
        assert torch.equal(stored["in.input_ids"][i], batch["input_ids"][i][real])
        with torch.no_grad():
            live = left.chain[:1](batch).tensors[0][i][real]
        assert torch.allclose(stored["t0"][i], live, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_stored_states_are_bit_for_bit_what_the_same_batch_gave(backbone, store, cut):
    shelf, _ = states(backbone, DATA, store, cut, batch_size=8)
    engine = Engine(backbone.chain[:cut])
    for start in (0, 8, 16):
        rows = list(range(start, start + 8))
        live = engine.run(backbone.preprocess.batch([DATA.decode(i) for i in rows]))
        stored = shelf.read([DATA.digests[i] for i in rows])["t0"]
        assert isinstance(stored, Tensor)
        assert bits(stored) == bits(live.tensors[0])


def test_half_precision_is_stored_as_it_came(backbone, store):
    shelf, _ = states(backbone, DATA, store, 2, precision="bf16")
    assert shelf.read(DATA.digests)["t0"].dtype == torch.bfloat16
    assert one_pass(backbone, DATA, store, precision="bf16")[0].cuts[2].dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["maps", "texts"])
def test_the_task_that_is_sent_elsewhere_makes_the_same_bits_of_the_same_batches(
    backbone, bert, texts, tmp_path, kind, precision
):
    network, data = (backbone, DATA) if kind == "maps" else (bert, texts)
    stores, workers = [Store(tmp_path / "here"), Store(tmp_path / "there")], OneByOne()
    made = []
    for store, where in zip(stores, (contextlib.nullcontext(), led(workers)), strict=True):
        with where:
            features, _ = one_pass(network, data, store, batch_size=2, precision=precision)
            shelf, _ = states(network, data, store, 2, batch_size=2, precision=precision)
        made.append({str(cut): x for cut, x in features.cuts.items()} | shelf.read(data.digests))
    here, there = made
    assert here.keys() == there.keys()
    for name, array in here.items():
        pairs = zip(array, there[name], strict=True)
        assert all(a.dtype == b.dtype and bits(a) == bits(b) for a, b in pairs), name
    fresh = batches(data, lacking(data, frozenset()), batch_size=2)
    chunks = [tuple(data.names[i] for i in rows) for rows in fresh]
    assert [item.data.names for item in workers.items] == chunks * 2


# what is stored is used again, and only what is missing is computed


def test_what_is_stored_is_not_computed_again(backbone, store):
    counting, seen = counted(backbone)
    first, _ = one_pass(counting, DATA, store)
    assert sum(seen) == 24
    again, reused = one_pass(counting, DATA, store)
    assert (sum(seen), reused) == (24, 24)
    assert all(bits(again.cuts[cut]) == bits(first.cuts[cut]) for cut in first.cuts)


def test_only_what_is_missing_is_computed_and_progress_adds_up(backbone, store):
    counting, seen = counted(backbone)
    half = DATA.subset(range(0, 24, 2))
    one_pass(counting, half, store)
    done: list[int] = []
    features, reused = one_pass(counting, DATA, store, advance=done.append)
    assert (sum(seen), reused, sum(done)) == (24, 12, 24)
    with torch.no_grad():
        live = pool(backbone.chain[:2].eval()(torch.from_numpy(DATA.inputs)), "map")
    assert torch.allclose(features.cuts[2], live, atol=1e-6)  # in the order of the data


def test_the_same_content_twice_is_computed_once(backbone, store):
    counting, seen = counted(backbone)
    inputs = np.concatenate([DATA.inputs, DATA.inputs[:3]])
    twice = replace(
        DATA, inputs=inputs, names=(*DATA.names, "a", "b", "c"), digests=(*DATA.digests, *DATA.digests[:3])
    )
    features, _ = one_pass(counting, twice, store)
    assert sum(seen) == 24
    assert torch.equal(features.cuts[4][24:], features.cuts[4][:3])


def test_a_pass_that_was_ended_goes_on(backbone, store, monkeypatch):
    class Ended(Exception):
        pass

    def end(_count: int) -> None:
        done.append(_count)
        if len(done) == 4:
            raise Ended

    done: list[int] = []
    counting, seen = counted(backbone)
    monkeypatch.setattr(passes, "SHARD", 8)
    with pytest.raises(Ended):
        one_pass(counting, DATA, store, batch_size=4, advance=end)
    seen.clear()
    features, reused = one_pass(counting, DATA, store, batch_size=4)
    assert reused == 12  # what was done is stored, whatever ended it
    assert sum(seen) == 12
    with torch.no_grad():
        live = pool(backbone.chain[:3].eval()(torch.from_numpy(DATA.inputs)), "map")
    assert torch.allclose(features.cuts[3], live, atol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_a_pass_that_is_killed_loses_only_some_seconds(backbone, store, monkeypatch):
    def die(_count: int) -> None:
        done.append(_count)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    done: list[int] = []
    monkeypatch.setattr(passes, "SECONDS", 0.0)
    killed(lambda: one_pass(backbone, DATA, store, batch_size=4, advance=die))
    _, reused = one_pass(backbone, DATA, store, batch_size=4)
    assert reused == 12  # the first was told as none, and the last had not been stored


@pytest.mark.usefixtures("one_thread")
def stopped_pass(folder: str) -> int:
    """A pass at which Ctrl-C is pressed once a batch is done; gives how many batches it did."""
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if sum(done) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with gently(), pytest.raises(KeyboardInterrupt):
        one_pass(backbone_of(maps(), example_maps()), DATA, Store(Path(folder)), batch_size=4, advance=stop)
    return sum(done)


def test_a_pass_that_is_to_stop_stores_what_it_has_begun(backbone, tmp_path):
    done = in_program(stopped_pass, str(tmp_path / "store"))
    _, reused = one_pass(backbone, DATA, Store(tmp_path / "store"), batch_size=4)
    assert 8 <= done < 24
    assert reused == done


# fresh


def other_weights(_: Backbone) -> Backbone:
    network = maps()
    with torch.no_grad():
        network.blocks[0].conv.weight[0, 0, 0, 0] += 1e-3
    return backbone_of(network, example_maps())


def other_statistics(_: Backbone) -> Backbone:
    network = maps()
    network.blocks[1].norm.running_mean[0] += 1e-3
    return backbone_of(network, example_maps())


def other_function(_: Backbone) -> Backbone:
    network = maps()
    network.blocks[0].norm.eps = 0.1
    return backbone_of(network, example_maps())


def other_preprocessing(backbone: Backbone) -> Backbone:
    return replace(backbone, preprocess=Doubled("x"))


class Doubled(ArrayPreprocess):
    """Arrays times two."""

    def batch(self, raw: Any) -> dict[str, Tensor]:
        return {name: 2 * t for name, t in super().batch(raw).items()}

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "times": 2}


@pytest.mark.parametrize("other", [other_weights, other_statistics, other_function, other_preprocessing])
def test_what_another_backbone_stored_is_not_used(
    backbone: Backbone, store: Store, tmp_path: Path, other: Callable[[Backbone], Backbone]
) -> None:
    one_pass(backbone, DATA, store)
    states(backbone, DATA, store, 2)
    changed = other(backbone)
    features, reused = one_pass(changed, DATA, store)
    assert reused == 0
    assert states(changed, DATA, store, 2)[1] == 0
    clean, _ = one_pass(changed, DATA, Store(tmp_path / "clean"))
    assert all(bits(features.cuts[cut]) == bits(clean.cuts[cut]) for cut in clean.cuts)
    assert bits(features.cuts[4]) != bits(one_pass(backbone, DATA, store)[0].cuts[4])


def test_another_precision_or_cut_or_content_is_not_taken_for_it(backbone, store):
    one_pass(backbone, DATA, store)
    assert one_pass(backbone, DATA, store, precision="bf16")[1] == 0
    states(backbone, DATA, store, 2)
    assert states(backbone, DATA, store, 3)[1] == 0
    assert states(backbone, DATA, store, 2, precision="bf16")[1] == 0
    assert states(backbone, DATA, store, 2)[1] == 24
    inputs = np.array(DATA.inputs)
    inputs[5, 0, 0, 0] = np.nextafter(inputs[5, 0, 0, 0], np.float32(9))
    changed = read((inputs, [DATA.classes[t] for t in DATA.targets]))
    assert one_pass(backbone, changed, store)[1] == 23


def test_another_number_of_heads_is_another_network(tmp_path, texts, store):
    tiny_bert(tmp_path)
    one_pass(load(f"hf/{tmp_path}"), texts, store)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_attention_heads": 4}))
    other = load(f"hf/{tmp_path}")
    features, reused = one_pass(other, texts, store)
    assert reused == 0
    batch = other.preprocess.batch(TEXTS)
    with torch.no_grad():
        live = pool(other.chain[:3](batch), "tokens")
    assert torch.allclose(features.cuts[3], live, atol=1e-5)


def damaged(folder: Path) -> int:
    """Flip one bit in the last tensor of every shard."""
    shards = sorted(folder.rglob("*.safetensors"))
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(bytes(content))
    return len(shards)


def test_a_damaged_shard_is_made_again_at_once(backbone, store):
    before, _ = one_pass(backbone, DATA, store)
    assert damaged(store.root) == 1
    with pytest.warns(StoreWarning, match="is damaged"):
        after, _ = one_pass(backbone, DATA, Store(store.root))
    assert all(bits(after.cuts[cut]) == bits(before.cuts[cut]) for cut in before.cuts)
    again, reused = one_pass(backbone, DATA, Store(store.root))
    assert reused == 24
    assert all(bits(again.cuts[cut]) == bits(before.cuts[cut]) for cut in before.cuts)


def test_a_limit_too_small_for_a_run_is_told_and_changes_no_number(backbone, store, monkeypatch):
    wanted, _ = one_pass(backbone, DATA, Store(store.root.parent / "unbounded"))
    monkeypatch.setenv("TOPGRAFT_CACHE_LIMIT", "1kB")
    monkeypatch.setattr(passes, "SHARD", 8)
    with pytest.warns(StoreWarning, match="over its limit of 1.0 kB"):
        found, _ = one_pass(backbone, DATA, store, batch_size=8)
    assert all(torch.allclose(found.cuts[cut], wanted.cuts[cut], atol=1e-6) for cut in wanted.cuts)
    with pytest.warns(StoreWarning, match="over its limit of 1.0 kB"):
        shelf, _ = states(backbone, DATA, store, 2, batch_size=8)
    with torch.no_grad():
        live = backbone.chain[:2].eval()(torch.from_numpy(DATA.inputs)).tensors[0]
    assert torch.allclose(shelf.read(DATA.digests)["t0"], live, atol=1e-6)
    again = Store(store.root)  # the same run once more finds all of it
    assert one_pass(backbone, DATA, again)[1] == 24
    assert states(backbone, DATA, again, 2)[1] == 24
    del again, shelf, store._recent[:]
    with pytest.warns(StoreWarning) as told:  # another run drops it
        one_pass(backbone, DATA, Store(store.root), precision="bf16", batch_size=8)
    assert "pooled, all cuts of small_networks:Maps" in str(told[0].message)


def test_a_store_that_is_damaged_each_time_is_an_error():
    tries = []

    def fill() -> None:
        tries.append(1)
        raise NotStored(["a"])

    with pytest.raises(NotStored):
        mended(fill, most=2)
    assert len(tries) == 3


# batches


def test_batches_hold_every_example_once_and_texts_by_length(texts):
    got = batches(texts, range(5), batch_size=2)
    assert [len(rows) for rows in got] == [2, 2, 1]
    order = [i for rows in got for i in rows]
    assert sorted(order) == list(range(5))
    assert order == sorted(order, key=lambda i: len(TEXTS[i]))
    assert batches(DATA, [3, 1, 2], batch_size=2) == [[3, 1], [2]]
    assert batches(texts, [], batch_size=2) == []


def test_what_can_be_stored(bert, backbone):
    assert all(is_storable(b) for b in (*bert.chain, *backbone.chain))
    assert not is_storable(replace(bert.chain.blocks[0], shape=(4, -1)))
    assert not is_storable(replace(bert.chain.blocks[0], layout="map", shape=(-1, 4, 4)))


def test_the_pass_leaves_the_network_as_it_was(backbone, store):
    before = {n: t.clone() for n, t in backbone.network.state_dict().items()}
    one_pass(backbone, DATA, store)
    states(backbone, DATA, store, 2)
    assert differing(backbone.network.state_dict(), before) == set()
