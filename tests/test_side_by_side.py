"""Batches side by side: in order, bounded, and with torch's threads put back."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from topgraft.side_by_side import Shared, in_order, single_threaded


def test_results_come_in_the_order_of_the_items_though_the_first_is_the_slowest():
    gate = threading.Event()

    def work(n: int) -> int:
        if n == 0:
            gate.wait(5)
        else:
            gate.set()
        return n

    assert list(in_order(work, range(6), workers=2)) == list(range(6))


def test_items_are_taken_only_as_there_is_room():
    taken: list[int] = []

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    results = in_order(lambda n: n, items(), workers=2)
    assert next(results) == 0
    assert len(taken) <= 5
    assert list(results) == list(range(1, 100))


def test_an_error_in_a_worker_reaches_the_caller():
    def work(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        return n

    with pytest.raises(ValueError, match="three"):
        list(in_order(work, range(10), workers=2))


def test_threads_of_torch_are_put_back_even_after_an_error():
    before = torch.get_num_threads()
    inside: list[int] = []

    def fails() -> None:
        with single_threaded() as cores:
            inside.extend([cores, torch.get_num_threads()])
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fails()
    assert inside == [before, 1]
    assert torch.get_num_threads() == before


def test_workers_too_have_one_thread():
    with single_threaded():
        assert set(in_order(lambda _n: torch.get_num_threads(), range(4), workers=2)) == {1}


def test_shared_pieces_are_each_done_once_side_by_side():
    both = threading.Barrier(2, timeout=5)
    done: list[int] = []

    def piece(n: int) -> int:
        if n < 2:
            both.wait()  # passed only where two threads have one each
        done.append(n)
        return n

    shared = Shared([partial(piece, n) for n in range(5)])
    results = list(in_order(lambda _: shared.results(), range(6), workers=2))
    assert results == [list(range(5))] * 6
    assert sorted(done) == list(range(5))


def test_an_error_in_a_shared_piece_is_everybodys_and_nobody_waits_for_ever():
    def fails() -> int:
        raise ValueError("shared")

    shared = Shared([lambda: 1, fails, lambda: 3])
    for _ in range(2):
        with pytest.raises(ValueError, match="shared"):
            shared.results()
