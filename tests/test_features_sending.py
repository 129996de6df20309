"""What a training reads arrives whole in another process, without the store and without the files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import fsspec
import pytest
import torch
from command_line import tiny_job
from made_shards import write_shards
from small_networks import backbone_of, bits, data_of_maps, example_maps, maps

import topgraft as tg
from topgraft.chain import State
from topgraft.data.example import ExampleError
from topgraft.features import sending, sources
from topgraft.features.engine import Engine
from topgraft.features.passes import states
from topgraft.features.sending import NotSendable, named_files, sendable, with_files
from topgraft.features.sources import FeatureSource, LiveSource, StateSource, ViewSource
from topgraft.features.store import Store

ROWS = [5, 0, 3]


def arrays_of(state: object) -> list[bytes]:
    assert isinstance(state, State)
    return [bits(t) for t in (*state.tensors, *(state.inputs[n] for n in sorted(state.inputs)))]


@pytest.fixture
def of_maps(tmp_path: Path) -> StateSource:
    data = data_of_maps(12)
    shelf, _ = states(backbone_of(maps(), example_maps()), data, Store(tmp_path / "store"), 2)
    return StateSource(shelf, data.digests)


def test_states_travel_without_the_store(of_maps, tmp_path):
    here = arrays_of(of_maps.batch(ROWS, training=True))
    sent = pickle.dumps(sendable(of_maps))
    shutil.rmtree(tmp_path / "store")
    assert arrays_of(pickle.loads(sent).batch(ROWS, training=True)) == here


def test_sequences_of_different_length_travel_each_once(tmp_path):
    job = tiny_job(tmp_path / "job")
    data = tg.read(job.table)
    shelf, _ = states(tg.load(job.backbone), data, Store(tmp_path / "store"), 1)
    source = StateSource(shelf, data.digests)
    sent = pickle.dumps(sendable(source))
    shutil.rmtree(tmp_path / "store")
    again = pickle.loads(sent)
    assert arrays_of(again.batch(ROWS, training=True)) == arrays_of(source.batch(ROWS, training=True))
    held = sum(t.nbytes for arrays in source._held.values() for t in arrays)
    assert len(sent) < 1.5 * held + 10_000  # as views of their shards they would be pickled with all of these
    assert len(pickle.dumps(again)) == pytest.approx(len(sent), rel=0.1)


def test_views_travel_together(of_maps):
    source = ViewSource([of_maps, of_maps])
    again = pickle.loads(pickle.dumps(sendable(source)))
    drawn = []
    for one in (source, again):
        torch.manual_seed(0)
        drawn.append(arrays_of(one.batch(ROWS, training=True)))
    assert drawn[0] == drawn[1]


def test_features_are_sent_as_they_are():
    source = FeatureSource(torch.eye(3))
    assert sendable(source) is source
    assert named_files(source) == ()
    assert with_files(source) is source


def test_states_that_are_not_held_in_memory_are_not_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    data = data_of_maps(12)
    shelf, _ = states(backbone_of(maps(), example_maps()), data, Store(tmp_path), 2)
    with pytest.raises(NotSendable, match=r"more than 4.3 GB, and the store has no address"):
        sendable(StateSource(shelf, data.digests))


def test_states_that_are_not_held_are_found_at_the_address_of_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    data, address = data_of_maps(12), "memory://sending/store"
    shelf, _ = states(backbone_of(maps(), example_maps()), data, Store(tmp_path / "a", remote=address), 2)
    source = StateSource(shelf, data.digests)
    here = arrays_of(source.batch(ROWS, training=True))
    sent = pickle.dumps(sendable(source))
    assert len(sent) < 10_000
    shutil.rmtree(tmp_path / "a")  # as on another machine, which has a store of its own
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / "b"))
    assert arrays_of(pickle.loads(sent).batch(ROWS, training=True)) == here
    fsspec.filesystem("memory").rm("/sending", recursive=True)
    with pytest.raises(NotSendable, match="not all of them are at memory://sending/store"):
        sendable(source)


def test_an_engine_that_converts_is_not_sent():
    class Converting(Engine):
        name = "openvino"

    backbone = backbone_of(maps(), example_maps())
    source = LiveSource(
        data_of_maps(6), backbone.preprocess, engine=Converting(backbone.chain[:2]), augment=None
    )
    with pytest.raises(NotSendable, match="openvino runs the frozen part in each step"):
        sendable(source)


@pytest.fixture
def pictures(photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    preprocess = tg.load("timm/tf_efficientnet_lite0").preprocess
    return folder, LiveSource(tg.read(folder), preprocess, engine=None, augment=None)


def test_pictures_are_sent_with_their_files_where_these_are_lacking(pictures):
    folder, source = pictures
    here = source.batch(ROWS, training=True)
    sent = sendable(source)
    assert all(Path(path).exists() for path in named_files(sent))
    whole = pickle.dumps(with_files(sent))
    shutil.rmtree(folder)
    assert len(named_files(sent)) == 36
    assert not any(Path(path).exists() for path in named_files(sent))
    again = pickle.loads(whole)
    assert named_files(again) == ()
    there = again.batch(ROWS, training=True)
    assert {n: bits(t) for n, t in there.items()} == {n: bits(t) for n, t in here.items()}


def test_pictures_in_shards_are_sent_where_these_are_lacking(tmp_path, monkeypatch):
    write_shards(tmp_path / "shards")
    preprocess = tg.load("timm/tf_efficientnet_lite0").preprocess
    sent = sendable(LiveSource(tg.read(tmp_path / "shards"), preprocess, engine=None, augment=None))
    here = sent.batch(ROWS, training=True)
    assert [Path(path).name for path in named_files(sent)] == ["photos-000.tar", "photos-001.tar"]
    whole = pickle.dumps(with_files(sent))
    monkeypatch.setattr(sending, "IN_MEMORY", 1000)
    with pytest.raises(NotSendable, match="its files"):
        with_files(sent)
    shutil.rmtree(tmp_path / "shards")
    again = pickle.loads(whole)
    assert named_files(again) == ()
    there = again.batch(ROWS, training=True)
    assert {n: bits(t) for n, t in there.items()} == {n: bits(t) for n, t in here.items()}


def test_a_file_that_changed_is_not_sent(pictures):
    folder, source = pictures
    sent = sendable(source)
    first = sorted(folder.rglob("*.webp"))[0]
    first.write_bytes(first.read_bytes() + b"x")
    with pytest.raises(ExampleError, match=first.name):
        with_files(sent)


def test_files_that_are_too_much_for_memory_are_not_sent(pictures, monkeypatch):
    monkeypatch.setattr(sending, "IN_MEMORY", 1000)
    with pytest.raises(NotSendable, match=r"its files, .*, are not there for the workers"):
        with_files(sendable(pictures[1]))
