from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from topgraft.serve.batching import Batcher, Closed, Full


class Gate:
    """Work that waits until it may go on, and keeps what it was given."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.began = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.began.release()
        assert self.is_open.wait(60)
        return [n * n for n in items]


def first_under_way(gate: Gate, **options: int) -> tuple[Batcher[int, int], Future[int]]:
    """A batcher whose one worker is busy with the item 0."""
    batcher = Batcher(gate, workers=1, pause=0.0, **options)
    (first,) = batcher.submit([(0, 0)])
    assert gate.began.acquire(timeout=60)
    return batcher, first


def test_everybody_gets_the_own_results_in_the_own_order():
    sizes: list[int] = []
    batcher = Batcher(lambda some: [n * n for n in some], workers=3, most=7, seen=sizes.append)

    def ask(start: int) -> list[int]:
        return [f.result(60) for f in batcher.submit([(start + i, 0) for i in range(5)])]

    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(ask, range(0, 2000, 5)))
    batcher.close()
    assert found == [[(start + i) ** 2 for i in range(5)] for start in range(0, 2000, 5)]
    assert sum(sizes) == 2000
    assert max(sizes) <= 7


def test_what_waits_is_run_together_up_to_the_size_of_a_batch_in_the_order_in_which_it_came():
    gate = Gate()
    batcher, _ = first_under_way(gate, most=4)
    for n in range(1, 7):
        batcher.submit([(n, 0)])
    assert len(batcher) == 6
    gate.is_open.set()
    batcher.close()
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_batch_holds_no_more_than_its_weight_and_what_is_heavier_is_run_alone():
    gate = Gate()
    batcher, _ = first_under_way(gate, most=8, heaviest=10)
    batcher.submit([(1, 4), (2, 6), (3, 1), (4, 50), (5, 9), (6, 0)])
    gate.is_open.set()
    batcher.close()
    assert gate.batches == [[0], [1, 2], [3], [4], [5, 6]]


def test_where_all_are_filled_up_to_the_heaviest_each_weighs_as_much():
    gate = Gate()
    batcher, _ = first_under_way(gate, most=8, heaviest=10, is_padded=True)
    batcher.submit([(1, 1), (2, 2), (3, 3), (4, 5), (5, 50), (6, 5), (7, 0)])
    gate.is_open.set()
    batcher.close()
    assert gate.batches == [[0], [1, 2, 3], [4], [5], [6, 7]]


def test_a_batch_that_is_not_full_waits_a_moment_for_others():
    batches: list[list[int]] = []

    def work(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    batcher = Batcher(work, workers=2, most=3, pause=30.0)
    began = time.monotonic()
    answers = [f for n in range(3) for f in batcher.submit([(n, 0)])]
    assert [f.result(25) for f in answers] == [0, 1, 2]
    assert time.monotonic() - began < 25  # a full one does not wait
    batcher.close()
    assert batches == [[0, 1, 2]]


def test_batches_are_run_side_by_side():
    together = threading.Barrier(2, timeout=60)

    def work(items: list[int]) -> list[int]:
        together.wait()
        return items

    batcher = Batcher(work, workers=2, most=1)
    assert [f.result(60) for f in batcher.submit([(1, 0), (2, 0)])] == [1, 2]
    batcher.close()


def test_an_item_that_fails_fails_alone():
    gate = Gate()

    def work(items: list[int]) -> list[float]:
        gate(items)
        return [1 / n if n else 0.0 for n in items if n != 5] + [1 / 0 for n in items if n == 5]

    batcher: Batcher[int, float] = Batcher(work, workers=1, most=8, pause=0.0)
    batcher.submit([(0, 0)])
    assert gate.began.acquire(timeout=60)
    answers = batcher.submit([(4, 0), (5, 0), (2, 0)])
    gate.is_open.set()
    batcher.close()
    assert gate.batches == [[0], [4, 5, 2], [4], [5], [2]]
    assert (answers[0].result(), answers[2].result()) == (0.25, 0.5)
    with pytest.raises(ZeroDivisionError):
        answers[1].result()


def test_what_has_no_room_is_refused_whole():
    gate = Gate()
    batcher, first = first_under_way(gate, most=2, waiting=3)
    answers = batcher.submit([(1, 0), (2, 0)])
    with pytest.raises(Full):
        batcher.submit([(3, 0), (4, 0)])
    answers += batcher.submit([(5, 0)])
    with pytest.raises(Full):
        batcher.submit([(6, 0)])
    gate.is_open.set()
    assert [f.result(60) for f in (first, *answers)] == [0, 1, 4, 25]
    assert [f.result(60) for f in batcher.submit([(7, 0)])] == [49]
    batcher.close()


def test_what_nobody_waits_for_any_more_is_not_run():
    gate = Gate()
    batcher, _ = first_under_way(gate, most=2)
    answers = batcher.submit([(1, 0), (2, 0), (3, 0), (4, 0)])
    assert all(answers[i].cancel() for i in (0, 1, 2))
    gate.is_open.set()
    batcher.close()
    assert gate.batches == [[0], [4]]
    assert answers[3].result() == 16


def test_the_end_answers_what_waits_and_takes_nothing_more():
    gate = Gate()
    batcher, first = first_under_way(gate, most=2)
    answers = [first, *batcher.submit([(n, 0) for n in range(1, 8)])]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.is_open.set()
    closing.join(60)
    assert not closing.is_alive()
    assert wait(answers, 0).not_done == set()
    assert [f.result() for f in answers] == [n * n for n in range(8)]
    with pytest.raises(Closed):
        batcher.submit([(1, 0)])
