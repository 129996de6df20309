"""Real workers on a real cluster of two nodes: the same bits, whoever dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from command_line import tiny_job
from ray_cluster import TwoNodes, two_nodes
from ray_work import Deed, Gathering, Number, Sitting, Task, until
from small_networks import backbone_of, bits, data_of_maps, example_maps, maps

import topgraft
from topgraft.backbones.types import Backbone
from topgraft.errors import RunningError, TopgraftError
from topgraft.features.passes import one_pass, states
from topgraft.features.shards import Shard
from topgraft.features.shelf import Shelf
from topgraft.features.store import Store
from topgraft.features.stored import SHARD
from topgraft.probe import probe
from topgraft.workers import Seat, WorkersWarning, leading, led
from topgraft.workers.connecting import connected
from topgraft.workers.leading import RayWorkers

DATA = data_of_maps(36)
SIZE = 3
BATCHES = len(DATA) // SIZE


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def workers(cluster: TwoNodes) -> Iterator[RayWorkers]:
    """Those of all tests here: each finds as many as the one before it left alive."""
    with connected(cluster.address) as found:
        yield found


class Since:
    """What workers did from now on, as numbers."""

    def __init__(self, workers: RayWorkers) -> None:
        self.workers, self.before = workers, workers.told()

    def __getitem__(self, name: str) -> int:
        return self.workers.told()[name] - self.before[name]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(), example_maps())


def doing(deed: Deed) -> Backbone:
    """The same network, whose first layer does something when it is run."""
    found = backbone_of(maps(), example_maps())
    found.network.stem.register_forward_pre_hook(deed)
    return found


def rows_in(shelf: Shelf) -> int:
    """Rows that lie in the shards of a shelf, each counted as often as it is there."""
    return sum(
        len(Shard(path, shelf.key).digests) for path in shelf.folder.iterdir() if SHARD.fullmatch(path.name)
    )


def differing(a: Shelf, b: Shelf) -> list[str]:
    """Arrays of which any bit differs."""
    left, right = a.read(DATA.digests), b.read(DATA.digests)
    assert left.keys() == right.keys()
    return [name for name in left if bits(torch.as_tensor(left[name])) != bits(torch.as_tensor(right[name]))]


@pytest.fixture(scope="module")
def local(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """States of the same batches, made in this process."""
    store = Store(tmp_path_factory.mktemp("local"))
    return states(backbone, DATA, store, 2, batch_size=SIZE)[0]


def test_two_nodes_make_the_same_bits_in_one_pass_each_batch_once(backbone, workers, tmp_path):
    here, _ = one_pass(backbone, DATA, Store(tmp_path / "here"), batch_size=SIZE)
    deed, seen = Deed(tmp_path), []
    with led(workers):
        there, reused = one_pass(
            doing(deed), DATA, Store(tmp_path / "there"), batch_size=SIZE, advance=seen.append
        )
    assert reused == 0
    assert there.key == here.key
    assert [cut for cut in here.cuts if bits(here.cuts[cut]) != bits(there.cuts[cut])] == []
    assert deed.calls() == BATCHES
    assert seen == [0, *[SIZE] * BATCHES]
    told = workers.told()
    assert (told["pieces"], told["workers_lost"], told["done_again"]) == (BATCHES, 0, 0)
    assert [machine["workers"] for machine in told["machines"]] == [1, 1]
    assert all(machine["pieces"] > 0 for machine in told["machines"])
    with led(workers):
        _, reused = one_pass(backbone, DATA, Store(tmp_path / "there"), batch_size=SIZE)
    assert reused == len(DATA)
    assert workers.told()["pieces"] == BATCHES


def test_results_come_in_order_by_one_thread_and_items_are_taken_as_there_is_room(workers):
    taken = []

    def items() -> Iterator[Number]:
        for value in range(60):
            taken.append(value)
            yield Number(value, 0, content=1)

    results = workers.in_order(Task(), items())
    assert next(results) == (0, 1)
    assert len(taken) <= 16
    assert list(results) == [(value * 10, 1) for value in range(1, 60)]


def test_what_a_piece_of_work_refuses_ends_the_whole_with_its_message(workers):
    results = workers.in_order(Task("refuse"), (Number(value, 0, content=1) for value in range(9)))
    assert [next(results)[0] for _ in range(3)] == [0, 10, 20]
    with pytest.raises(RunningError, match=r"^3.png: its file changed$"):
        next(results)
    assert [value for value, _ in workers.in_order(Task(), [Number(5, 0, content=1)])] == [50]


def test_a_network_that_cannot_be_sent_is_refused(workers):
    with pytest.raises(TopgraftError, match=r"can't be sent to other processes .*Leave --on away"):
        list(workers.in_order(Task(threading.Lock()), []))  # type: ignore[arg-type] (what no pickle holds)


def test_the_batch_of_a_killed_worker_is_done_again_and_stored_once(workers, local, tmp_path):
    deed, told = Deed(tmp_path, dies=True), Since(workers)
    with led(workers), pytest.warns(WorkersWarning, match=r"A worker on .* died: what it had under way"):
        shelf, _ = states(doing(deed), DATA, Store(tmp_path / "there"), 2, batch_size=SIZE)
    assert (tmp_path / "died").exists()
    assert told["workers_lost"] == 1
    assert told["done_again"] >= 1
    assert told["pieces"] == BATCHES
    assert BATCHES < deed.calls() <= BATCHES + told["done_again"]
    assert rows_in(shelf) == len(DATA)
    assert differing(shelf, local) == []


def test_what_a_killed_node_had_under_way_is_done_again_elsewhere(cluster, workers, local, tmp_path):
    deed, told = Deed(tmp_path, waits_on=cluster.second), Since(workers)

    def kill() -> None:
        until((tmp_path / "waiting").exists)
        cluster.kill_second()

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        with led(workers), pytest.warns(WorkersWarning, match="died"):
            shelf, _ = states(doing(deed), DATA, Store(tmp_path / "there"), 2, batch_size=SIZE)
    finally:
        killing.join()
        cluster.add()
    assert told["workers_lost"] >= 1
    assert told["done_again"] >= 1
    assert told["pieces"] == BATCHES
    assert rows_in(shelf) == len(DATA)
    assert differing(shelf, local) == []


def test_probes_measure_the_same(backbone, workers, tmp_path):
    features, _ = one_pass(backbone, DATA, Store(tmp_path), batch_size=SIZE)
    told = (features, torch.as_tensor(DATA.targets), np.arange(len(DATA)) % 4, len(DATA.classes))
    here, since = probe(*told), Since(workers)
    with led(workers):
        there = probe(*told)
    assert there.to_json() == here.to_json()
    assert since["pieces"] == len(features.cuts)


@pytest.mark.filterwarnings("ignore:A worker on")
def test_an_item_that_ends_every_worker_is_named(workers, monkeypatch):
    monkeypatch.setattr(leading, "TRIES", 2)
    with pytest.raises(RunningError, match=r"2 workers died over one piece of work, .*value=3"):
        list(workers.in_order(Task("end"), [Number(3, 0, content=1)]))


def test_content_is_sent_to_workers_that_lack_files_which_is_said(workers):
    with pytest.warns(WorkersWarning, match=r"/there/\d+.png is not there for workers on .*content of files"):
        results = list(workers.in_order(Task(), (Number(value, os.getpid()) for value in range(1, 9))))
    assert [value for value, _ in results] == [value * 10 for value in range(1, 9)]
    assert workers.told()["files_sent"] >= 1


def test_machines_with_other_versions_are_refused(workers, monkeypatch):
    workers.end()  # new ones say who they are
    monkeypatch.setattr(topgraft, "__version__", "9.9")
    with pytest.raises(TopgraftError, match=r"has topgraft 0.1.0, torch .* this machine has topgraft 9.9"):
        list(workers.in_order(Task(), [Number(1, 0, content=1)]))


# several that do one thing together


def rank_of(seat: Seat) -> Sitting:
    return Sitting(seat)


def test_those_that_work_together_are_on_different_machines_and_each_knows_the_others(workers):
    told = Since(workers)
    found = workers.together(Gathering(), most=2).do(rank_of, "")
    assert [rank for rank, _ in found] == [0, 1]
    assert len({node for _, node in found}) == 2
    assert told["pieces"] == 2
    assert [rank for rank, _ in workers.together(Gathering(), most=1).do(rank_of, "")] == [0]


def test_files_that_workers_lack_are_sent_with_the_task_before_they_begin(workers, monkeypatch):
    monkeypatch.setattr(workers, "fills", False)
    together = workers.together(Gathering(lacking=("/there/1.png",)), most=2)
    with pytest.warns(WorkersWarning, match=r"/there/1.png is not there for workers on .*content of files"):
        assert len(together.do(rank_of, "")) == 2
    assert workers.fills


@pytest.mark.exhaustive
def test_a_core_of_somebody_else_is_not_waited_for_again_and_again(workers):
    workers.end()
    other = ray.remote(num_cpus=1)(Number).remote(1, 0)
    ray.get(other.filled.remote())
    try:
        assert len(workers.several(2, wait=5.0)) == 1
        began = time.monotonic()
        assert len(workers.several(2, wait=5.0)) == 1
        assert time.monotonic() - began < 4.0
    finally:
        ray.kill(other)
    assert len(workers.several(2, wait=60.0 + time.monotonic())) == 2


DECIDED = ("--keep", "2", "--freeze", "1", "--epochs", "2", "--engine", "torch", "--precision", "fp32")
"""A training, too; nothing depends on a clock."""


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture
def fits(workers, tmp_path, monkeypatch):
    """Fits of one job, each with a store of its own, by one thread, as workers have."""
    workers.end()  # the command's own need the cores
    job = tiny_job(tmp_path / "job")
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def fit(name: str, *arguments: str | Path):
        monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / f"store {name}"))
        outcome = job.fit(tmp_path / name, *arguments, "--json")
        assert outcome.status == 0, outcome.err
        return outcome

    yield fit
    torch.set_num_threads(before)


def test_a_fit_on_the_cluster_gives_the_same_model_as_its_plan_here_and_says_what_ran_where(
    cluster, fits, tmp_path
):
    away = fits("there", *DECIDED, "--on", cluster.address)
    assert "Workers   training on 2 workers: one a machine of the cluster" in away.err
    plan = tmp_path / "there" / "plan.json"
    here = fits("here", "--plan", plan)
    assert "training on 2 workers, all in this process" in here.err
    assert weights(tmp_path / "here")
    assert weights(tmp_path / "here") == weights(tmp_path / "there")
    assert here.json["score"] == away.json["score"]
    on = away.json["on"]
    assert here.json["on"] is None
    assert (on["kind"], on["address"], on["workers_lost"], on["done_again"]) == ("ray", cluster.address, 0, 0)
    assert on["pieces"] == sum(machine["pieces"] for machine in on["machines"]) > 0


@pytest.mark.exhaustive
def test_a_search_on_the_cluster_finds_what_it_finds_here_and_one_worker_trains_as_here(
    cluster, fits, tmp_path
):
    deep = ("--keep", "3", "--epochs", "2", "--engine", "torch", "--precision", "fp32")
    away = ("--on", cluster.address, "--training-workers", "1")
    found = [fits(name, *deep, *on).json for name, on in (("here", ()), ("there", away))]
    here, there = ([{**one, "seconds": 0} for one in each["search"]] for each in found)
    assert here
    assert there == here
    assert found[1]["reasons"]["candidate"] == found[0]["reasons"]["candidate"]
    assert found[1]["reasons"]["short_3_2_2"] == "a training of 2 epochs, on the cluster"
    assert weights(tmp_path / "here")
    assert weights(tmp_path / "here") == weights(tmp_path / "there")
