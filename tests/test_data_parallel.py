"""How many parts a batch has decides the bits; how many processes compute them does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from child_process import program
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import CLASSES, backbone_of, data_of_maps, differing, example_maps, graft_of, kept, maps
from torch import nn

from topgraft.checkpoint import put, weights_of
from topgraft.data_parallel import Gloo, Parted, flat, of_every_part, opened, part_of, put_sum, seed_of
from topgraft.evaluating import predict_logits
from topgraft.graft import Graft
from topgraft.history import History, Recipe
from topgraft.train import stretch, train
from topgraft.training_loop import Course

DATA = data_of_maps(36)
TARGETS = torch.as_tensor(DATA.targets)
ROWS, VALIDATION = list(range(25)), list(range(25, 36))
RECIPE = Recipe(epochs=3, batch_size=8, rate=0.01, patience=50, parts=3)  # the last batch has one example


def new(**options: Any) -> Graft:
    return graft_of(backbone_of(maps(), example_maps()).chain, 4, 1, **options)


def source_of(graft: Graft) -> Any:
    with torch.no_grad():
        state = graft.frozen(torch.from_numpy(DATA.inputs))

    class Held:
        def batch(self, rows: Any, *, training: bool) -> Any:  # noqa: ARG002 (the protocol's form)
            return state.map(lambda t: t[list(rows)])

    return Held()


def trained(recipe: Recipe, **options: Any) -> tuple[Graft, History]:
    graft = new(dropout=0.3)
    history = train(graft, source_of(graft), TARGETS, ROWS, recipe=recipe, validation=VALIDATION, **options)
    return graft, history


@given(st.integers(1, 40), st.integers(1, 9))
def test_parts_hold_every_example_once_and_are_as_long_as_one_another(count: int, parts: int) -> None:
    every = [part_of(range(count), part, parts) for part in range(parts)]
    assert sorted(row for part in every for row in part) == list(range(count))
    assert max(map(len, every)) - min(map(len, every)) <= 1


def test_what_is_drawn_for_a_part_is_its_own() -> None:
    every = {seed_of(seed, step, part) for seed in range(3) for step in range(20) for part in range(4)}
    assert len(every) == 3 * 20 * 4
    assert max(every) < 2**32


@settings(max_examples=10)
@given(
    weights=st.sampled_from([(), (0.2, 1.0, 3.0)]),
    smoothing=st.sampled_from([0.0, 0.1]),
    parts=st.integers(2, 9),
    balanced=st.booleans(),
)
def test_the_parts_of_a_batch_add_up_to_its_gradient(
    weights: tuple[float, ...], smoothing: float, parts: int, balanced: bool
) -> None:
    recipe = replace(RECIPE, epochs=1, class_weights=weights, smoothing=smoothing, balanced=balanced, parts=1)
    ends = []
    for count in (1, parts):
        graft = new()
        history = train(graft, source_of(graft), TARGETS, ROWS, recipe=replace(recipe, parts=count))
        ends.append((weights_of(graft), history.epochs[-1].loss))
    (whole, loss), (divided, same_loss) = ends
    assert loss == pytest.approx(same_loss, rel=1e-4)
    assert whole.keys() == divided.keys()
    apart = {n: float((whole[n].float() - divided[n].float()).abs().max()) for n in whole}
    assert max(apart.values()) < 2e-3, apart  # Adam's first steps make much of little
    assert min(float((whole[n] == divided[n]).float().mean()) for n in whole) < 1  # else it is not divided


def test_a_parameter_that_no_example_reaches_keeps_having_no_gradient() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    vectors = []
    for value in (1.0, 2.0):
        used.grad, unused.grad = torch.full((2, 2), value), None
        vectors.append(flat([used, unused], value))
    assert put_sum([used, unused], vectors) == 3.0
    assert used.grad is not None
    assert used.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert unused.grad is None


def together(size: int, work: Callable[[Gloo], Any]) -> list[Any]:
    """What each of several members gives; they are threads here, and talk as processes do."""
    store = opened("127.0.0.1")
    results: list[Any] = [None] * size

    def member(rank: int) -> None:
        team = None
        try:
            team = Gloo(rank, size, "127.0.0.1", ("127.0.0.1", store.port))
            results[rank] = work(team)
        except BaseException as error:  # noqa: BLE001 (given back)
            results[rank] = error
        finally:
            if team is not None:
                team.close()

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


@pytest.mark.parametrize(("size", "parts"), [(2, 2), (2, 5), (3, 4)])
def test_every_member_has_what_all_made_in_the_order_of_the_parts(size: int, parts: int) -> None:
    every = together(
        size,
        lambda team: of_every_part(
            team, [torch.tensor([float(part)]) for part in range(team.rank, parts, size)], parts
        ),
    )
    for found in every:
        assert [t.tolist() for t in found] == [[float(part)] for part in range(parts)]


@pytest.mark.parametrize("rows", [[3], list(range(36))])
def test_logits_are_shared_to_the_bit(rows: list[int]) -> None:
    graft = new()
    source = source_of(graft)
    here = predict_logits(graft, source, rows, batch_size=5)
    grafts = [new(), new()]
    every = together(2, lambda team: predict_logits(grafts[team.rank], source, rows, batch_size=5, team=team))
    assert all(torch.equal(there, here) for there in every)
    assert here.shape == (len(rows), CLASSES)


def test_a_member_that_is_gone_is_noticed_by_those_that_wait() -> None:
    def work(team: Gloo) -> Any:
        if team.rank == 1:
            raise ZeroDivisionError
        return of_every_part(team, [torch.zeros(1)], 2)

    waiting, gone = together(2, work)
    assert isinstance(waiting, Parted)
    assert isinstance(gone, ZeroDivisionError)


def test_where_nobody_meets_it_is_told_that_they_are_gone() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topgraft.data_parallel.MEETING", timedelta(seconds=1))
        with pytest.raises(Parted):
            Gloo(0, 2, "127.0.0.1", ("127.0.0.1", port))


MEMBER = """
import sys
from pathlib import Path
import torch
import test_data_parallel
torch.set_num_threads(1)
rank, port = int(sys.argv[1]), int(sys.argv[2])
test_data_parallel.take_part(rank, 2, port, Path(sys.argv[3]))
"""
DRAWING = replace(RECIPE, mixup=0.4, class_weights=(0.5, 1.0, 2.0))


def take_part(rank: int, size: int, port: int, folder: Path) -> None:
    """One of several processes: stretch by stretch, each from the checkpoint that the first one wrote."""
    graft = new(dropout=0.3)
    begin, source = weights_of(graft), source_of(graft)
    course = Course.of(ROWS, DRAWING)
    team = Gloo(rank, size, "127.0.0.1", ("127.0.0.1", port))
    for until in (1, 3, 99, 6, 99, 99):
        put(graft, begin)  # all that counts is in the checkpoint
        stretch(
            graft,
            source,
            TARGETS,
            ROWS,
            recipe=DRAWING,
            validation=VALIDATION,
            course=course,
            until=until,
            from_start=True,
            checkpoint=folder / "state.safetensors",
            team=team,
        )
        team.gathered(torch.zeros(1))  # until it is written
    team.close()


@pytest.mark.usefixtures("one_thread")
def test_processes_train_stretch_by_stretch_to_the_bits_of_one_process(tmp_path: Path) -> None:
    alone, here = trained(DRAWING)
    store = opened("127.0.0.1")
    arguments = [(str(rank), str(store.port), str(tmp_path)) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda given: program(MEMBER, *given), arguments):
            assert done.returncode == 0, done.stderr
    graft, there = trained(DRAWING, checkpoint=tmp_path / "state.safetensors")
    assert there.resumed == DRAWING.epochs  # nothing was left to do
    assert differing(kept(graft), kept(alone)) == set()
    assert [e.validation_loss for e in there.epochs] == [e.validation_loss for e in here.epochs]
    assert [e.loss for e in there.epochs[1:]] == [e.loss for e in here.epochs[1:]]
    assert (there.best, there.marks, there.steps) == (here.best, here.marks, here.steps)
    signals = [[one.signal or -1.0 for one in history.readings] for history in (there, here)]
    assert signals[0] == pytest.approx(signals[1], rel=1e-4)  # summed in the order in which it lies in memory
    assert [replace(one, signal=None) for one in there.readings] == [
        replace(one, signal=None) for one in here.readings
    ]
    assert differing(weights_of(alone), weights_of(trained(replace(DRAWING, parts=2))[0])) != set()
