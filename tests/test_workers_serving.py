from __future__ import annotations

import platform
import warnings
from collections.abc import Callable

import pytest
import torch

import topgraft
from topgraft.data.example import ExampleError
from topgraft.errors import RunningError, TopgraftError, TopgraftWarning
from topgraft.halving import MemoryWarning
from topgraft.workers import Item
from topgraft.workers.serving import Machine, Worker


class Number(Item):
    def __init__(self, value: int, lacking: tuple[str, ...] = ()) -> None:
        self.value, self.lacking = value, lacking

    def lacks(self) -> tuple[str, ...]:
        return self.lacking


class Adding:
    """A task that notes how often it was started."""

    def __init__(self, more: int) -> None:
        self.more, self.starts = more, 0

    def start(self) -> Callable[[Number], int]:
        self.starts += 1
        return lambda number: self._add(number.value)

    def _add(self, value: int) -> int:
        if value == -1:
            raise ExampleError("a.png", "an empty file (0 bytes)")
        if value == -2:
            raise RunningError("the disk is full")
        if value == -3:
            raise ZeroDivisionError("a fault of ours")
        if value == 7:
            warnings.warn("fewer at once", MemoryWarning, stacklevel=2)
            warnings.warn("not ours", UserWarning, stacklevel=2)
        return value + self.more


@pytest.fixture
def worker() -> Worker:
    before = torch.get_num_threads()
    made = Worker(lambda sent: sent, lambda: "node")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
    return made


def test_a_task_is_started_once_and_does_all_its_items(worker):
    task = Adding(10)
    assert [worker.do("a", task, Number(n)).taken() for n in range(3)] == [10, 11, 12]
    assert task.starts == 1


def test_only_the_tasks_used_last_are_held(worker):
    tasks = {key: Adding(n) for n, key in enumerate("abc")}
    for key in ("a", "b", "a", "c", "a", "b"):
        worker.do(key, tasks[key], Number(1))
    assert {key: task.starts for key, task in tasks.items()} == {"a": 1, "b": 2, "c": 1}


def test_nothing_is_done_where_files_are_lacking(worker):
    task = Adding(1)
    done = worker.do("a", task, Number(1, ("/there/a.png",)))
    assert done.lacking == ("/there/a.png",)
    assert task.starts == 0


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [(-1, TopgraftError, "a.png: an empty file"), (-2, RunningError, "the disk is full")],
)
def test_an_error_that_the_user_can_mend_comes_back_with_its_message(worker, value, kind, said):
    done = worker.do("a", Adding(1), Number(value))
    with pytest.raises(TopgraftError, match=said) as caught:
        done.taken()
    assert type(caught.value) is kind


def test_a_fault_of_ours_is_no_error_of_the_user(worker):
    with pytest.raises(ZeroDivisionError):
        worker.do("a", Adding(1), Number(-3))


def test_warnings_of_ours_are_given_where_the_result_is_taken(worker):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = worker.do("a", Adding(1), Number(7))
    with pytest.warns(MemoryWarning, match="fewer at once") as heard:
        assert done.taken() == 8
    assert [w.category for w in heard] == [MemoryWarning]
    assert issubclass(MemoryWarning, TopgraftWarning)


def test_a_worker_says_who_it_is_and_what_computes(worker):
    machine = worker.hello()
    assert (machine.host, machine.node) == (platform.node(), "node")
    assert machine.versions == {"topgraft": topgraft.__version__, "torch": torch.__version__}
    assert machine.processor == Machine.here().processor
