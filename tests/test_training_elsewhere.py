"""Trainings on a real cluster of two nodes: the same bits, whoever dies in their middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_cluster import TwoNodes, two_nodes
from ray_work import Reading, until
from s3_server import s3_server
from small_networks import backbone_of, bits, data_of_maps, differing, example_maps, kept, maps, material_of

from topgraft.candidates import Candidate, Trying
from topgraft.errors import RunningError
from topgraft.features import sources
from topgraft.features.store import Store
from topgraft.graft import Graft
from topgraft.history import Epoch, History, Recipe
from topgraft.search import Material, new_graft, run_trial, source_at
from topgraft.train import train
from topgraft.training_elsewhere import train_by_parts
from topgraft.workers import WorkersWarning, led
from topgraft.workers.connecting import connected
from topgraft.workers.leading import RayWorkers

KEEP, FREEZE = 4, 2
RECIPE = Recipe(epochs=4, batch_size=7, rate=0.01, patience=50, mixup=0.4, parts=2)
STEPS = 16  # four an epoch


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the workers' machine."""
    return tmp_path_factory.mktemp("theirs")


@pytest.fixture(scope="module")
def cluster(theirs: Path) -> Iterator[TwoNodes]:
    with s3_server("bucket"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(theirs))
        with two_nodes() as nodes:
            patch.undo()
            yield nodes


@pytest.fixture(scope="module")
def workers(cluster: TwoNodes) -> Iterator[RayWorkers]:
    with connected(cluster.address) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_all() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    settings = {"engine": "torch", "batch_size": 7, "rate": 0.01, "dropout": 0.2}
    backbone = backbone_of(maps(), example_maps())
    return material_of(backbone, data_of_maps(36), tmp_path_factory.mktemp("store"), **settings)


def trained(
    how: Callable[..., History], material: Material, folder: Path, *, reading: dict[str, Any], **options: Any
) -> tuple[Graft, History, Reading]:
    folder.mkdir(exist_ok=True)
    graft = new_graft(material, KEEP, FREEZE, material.rows)
    source = Reading(source_at(material, KEEP, FREEZE)[0], folder, **reading)
    told: dict[str, Any] = {
        "recipe": RECIPE,
        "validation": material.validation,
        "from_start": False,
        **options,
    }
    history = how(graft, source, material.targets, material.rows, **told)
    return graft, history, source


@pytest.fixture(scope="module")
def here(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Graft, History]:
    """In this process, part by part."""
    graft, history, _ = trained(train, material, tmp_path_factory.mktemp("here"), reading={})
    return graft, history


def same(graft: Graft, history: History, here: tuple[Graft, History]) -> bool:
    assert [e.validation_loss for e in history.epochs] == [e.validation_loss for e in here[1].epochs]
    assert (history.best, history.marks, history.steps) == (here[1].best, here[1].marks, here[1].steps)
    return differing(kept(graft), kept(here[0])) == set()


def test_two_workers_train_to_the_bits_of_one_process_and_what_is_frozen_stays(
    material: Material, workers: RayWorkers, here: tuple[Graft, History], tmp_path: Path
) -> None:
    before, seen = workers.told(), []
    start = kept(new_graft(material, KEEP, FREEZE, material.rows))
    with led(workers):
        graft, history, source = trained(
            train_by_parts, material, tmp_path, reading={}, advance=lambda epoch: seen.append(epoch.number)
        )
    assert same(graft, history, here)
    assert history.resumed == 0
    assert seen == [0, 1, 2, 3, 4]
    assert source.nodes() == 2
    changed = differing(kept(graft), start)
    assert changed
    assert not any(name.startswith("frozen.") or "running" in name for name in changed)
    told = workers.told()
    assert told["pieces"] - before["pieces"] == 2 * RECIPE.epochs  # each worker's part of each epoch
    assert (told["workers_lost"], told["done_again"]) == (before["workers_lost"], before["done_again"])


def test_states_that_are_too_many_to_be_sent_are_found_by_workers_at_the_address_of_the_store(
    material: Material,
    workers: RayWorkers,
    here: tuple[Graft, History],
    theirs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    shared = replace(material, store=Store(tmp_path, remote="s3://bucket/states"))
    graft, source = new_graft(shared, KEEP, FREEZE, shared.rows), source_at(shared, KEEP, FREEZE)[0]
    with led(workers):
        history = train_by_parts(
            graft,
            source,
            shared.targets,
            shared.rows,
            recipe=RECIPE,
            validation=shared.validation,
            from_start=False,
        )
    assert same(graft, history, here)
    assert {p.name for p in theirs.rglob("*.safetensors")} == {
        p.name for p in tmp_path.rglob("*.safetensors")
    }


def test_another_number_of_parts_is_another_training_within_rounding(
    material: Material, tmp_path: Path
) -> None:
    plain = replace(RECIPE, mixup=0.0)
    calm = replace(material, settings=replace(material.settings, dropout=0.0))
    ends = [
        trained(train, calm, tmp_path, reading={}, recipe=replace(plain, parts=parts))[1] for parts in (1, 2)
    ]
    losses = [[epoch.validation_loss for epoch in history.epochs] for history in ends]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_a_worker_killed_in_the_middle_changes_no_bit(
    material: Material, workers: RayWorkers, here: tuple[Graft, History], tmp_path: Path
) -> None:
    with (
        led(workers),
        pytest.warns(
            WorkersWarning,
            match=r"^A worker on .* died: the training goes on from its last checkpoint, step 4 of 16\.$",
        ),
    ):
        graft, history, _ = trained(train_by_parts, material, tmp_path, reading={"at": 5, "dies": True})
    assert (tmp_path / "died").exists()
    assert same(graft, history, here)


@contextmanager
def killing(cluster: TwoNodes, folder: Path) -> Iterator[None]:
    """The second node is killed while a worker there waits."""

    def kill() -> None:
        until((folder / "waiting").exists)
        cluster.kill_second()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        cluster.add()


def test_a_node_killed_in_the_middle_changes_no_bit(
    cluster: TwoNodes,
    material: Material,
    workers: RayWorkers,
    here: tuple[Graft, History],
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    with (
        led(workers),
        killing(cluster, tmp_path),
        pytest.warns(WorkersWarning, match="goes on from its last checkpoint"),
    ):
        graft, history, _ = trained(
            train_by_parts, material, tmp_path, reading={"at": 6, "waits_on": cluster.second}
        )
    assert same(graft, history, here)
    assert time.monotonic() - began < 110  # nobody waited for the worker that waits


class Interrupted(Exception):
    """Stands for whatever ends the leading process."""


def test_a_training_begun_on_the_cluster_goes_on_here_to_the_same_bits(
    material: Material, workers: RayWorkers, here: tuple[Graft, History], tmp_path: Path
) -> None:
    def advance(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Interrupted

    place = tmp_path / "training.safetensors"
    with led(workers), pytest.raises(Interrupted):
        trained(train_by_parts, material, tmp_path, reading={}, checkpoint=place, advance=advance)
    graft, history, _ = trained(train_by_parts, material, tmp_path, reading={}, checkpoint=place)
    assert history.resumed == 2
    assert same(graft, history, here)


def test_it_ends_early_as_here(material: Material, workers: RayWorkers, tmp_path: Path) -> None:
    for name, options in (
        ("late", {"deadline": time.monotonic() - 1}),
        ("behind", {"recipe": replace(RECIPE, rate=3.0, patience=1)}),
        ("steps", {"steps": 6, "schedule_steps": 6, "validation": ()}),
    ):
        graft, history, _ = trained(train, material, tmp_path / name, reading={}, **options)
        with led(workers):
            there, again, _ = trained(train_by_parts, material, tmp_path / name, reading={}, **options)
        assert again.stopped == history.stopped
        assert len(again.epochs) == len(history.epochs) < 6
        assert differing(kept(there), kept(graft)) == set()


def test_what_one_of_them_refuses_ends_the_training_with_its_message(
    material: Material, workers: RayWorkers, tmp_path: Path
) -> None:
    with led(workers), pytest.raises(RunningError, match=r"^3.png: its file changed$"):
        trained(train_by_parts, material, tmp_path, reading={"at": 2, "refuses": True})
    assert workers.several(2, wait=20.0)  # they are there for what comes next


# the candidates of the search


def candidates(material: Material, folder: Path, **reading: Any) -> list[Candidate]:
    """Three, which read from what a worker may die over."""
    return [_Read(material, KEEP, freeze, 0, 2, 600.0).reading(folder, reading) for freeze in (3, 2, 0)]


class _Read(Candidate):
    def reading(self, folder: Path, told: dict[str, Any]) -> _Read:
        object.__setattr__(self, "told", (folder, told))
        return self

    def packed(self) -> Any:
        sent, (folder, told) = super().packed(), self.told  # type: ignore[attr-defined] (set above)
        source = Reading(sent.training.source, folder, **told)
        return replace(sent, training=replace(sent.training, source=source))


@pytest.fixture(scope="module")
def tried_here(material: Material) -> list[bytes]:
    every = []
    for freeze in (3, 2, 0):
        source = source_at(material, KEEP, freeze)[0]
        options: dict[str, Any] = {"epochs": 2, "stop_after": None, "checkpoint": None, "deadline": None}
        _, trial = run_trial(material, KEEP, freeze, source, **options, from_start=False, advance=None)
        assert trial.logits is not None
        every.append(bits(trial.logits))
    return every


def tried(workers: RayWorkers, waiting: list[Candidate]) -> list[bytes]:
    return [bits(outcome.logits) for outcome in workers.in_order(Trying(1), waiting, at_once=1)]


def test_candidates_side_by_side_have_the_bits_of_trainings_here(
    material: Material, workers: RayWorkers, tried_here: list[bytes], tmp_path: Path
) -> None:
    assert tried(workers, candidates(material, tmp_path)) == tried_here
    assert len(set(tried_here)) == 3
    assert len(list(tmp_path.glob("began *"))) == 2


def test_the_candidate_of_a_killed_worker_is_trained_again(
    material: Material, workers: RayWorkers, tried_here: list[bytes], tmp_path: Path
) -> None:
    with pytest.warns(WorkersWarning, match=r"A worker on .* died: what it had under way is done again"):
        assert tried(workers, candidates(material, tmp_path, at=4, dies=True)) == tried_here
    assert (tmp_path / "died").exists()


@pytest.mark.exhaustive
def test_the_candidate_of_a_killed_node_is_trained_elsewhere(
    cluster: TwoNodes, material: Material, workers: RayWorkers, tried_here: list[bytes], tmp_path: Path
) -> None:
    waiting = candidates(material, tmp_path, at=3, waits_on=cluster.second)
    with killing(cluster, tmp_path), pytest.warns(WorkersWarning, match="died"):
        assert tried(workers, waiting) == tried_here
