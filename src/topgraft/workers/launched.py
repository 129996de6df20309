"""Processes that ``torchrun`` started side by side: the first one leads, the others do pieces of the work.

All go in step: the leading process says what is done next, each gets its item, does it, and gives the result
back. Where one of them dies, ``torchrun`` ends all of them, and starts them again if it was told to; then the
run goes on from what it has kept.
"""

from __future__ import annotations

import itertools
import os
import platform
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from topgraft.data_parallel import opened
from topgraft.errors import TopgraftError
from topgraft.side_by_side import of_threads
from topgraft.workers import AT_ONCE, TORCHRUN, Item, Seat, Shared, Task, WorkersWarning
from topgraft.workers.serving import Done, Worker

TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
WAITING = timedelta(days=7)
"""That the others wait for the leading process at most, while it works by itself."""
HELD = 4
"""Tasks that a process holds, those that were sent last."""

_dist: Any = torch.distributed


def are_several() -> bool:
    """Whether ``torchrun``, or what tells the same, started several processes, of which this is one."""
    return os.environ.keys() >= set(TOLD) and int(os.environ["WORLD_SIZE"]) > 1


def place(*, dry_run: bool) -> str | None:
    """What ``--on`` is where nobody says; a process that another leads first does what that says, and ends.

    Raises
    ------
    SystemExit
        In a process that another one leads, at the end.
    """
    if not are_several():
        return None
    if int(os.environ["RANK"]) > 0:
        if not dry_run:
            serve()
        raise SystemExit(0)
    return None if dry_run else TORCHRUN


class _Member:
    """One of the processes, once all are there."""

    def __init__(self) -> None:
        first = os.environ["MASTER_ADDR"]
        _dist.init_process_group("gloo", timeout=WAITING)
        for name in (*TOLD, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)  # else what trains in the first one would wait for the others
        self.rank, self.size = int(_dist.get_rank()), int(_dist.get_world_size())
        self.tasks: dict[str, Task] = {}
        with of_threads(torch.get_num_threads()):
            self.worker = Worker(self.tasks.__getitem__, lambda: str(self.rank))
        self.seats: list[tuple[str, str]] = self.gathered((own_address(first), platform.node()))
        """Address and machine of each, for the first one."""

    def gathered(self, own: Any) -> list[Any]:
        """What each of them has, for the first one."""
        every: list[Any] | None = [None] * self.size if self.rank == 0 else None
        _dist.gather_object(own, every, dst=0)
        return every or []

    def hold(self, key: str, task: Task) -> None:
        """A task, of which items follow."""
        self.tasks[key] = task
        while len(self.tasks) > HELD:
            self.tasks.pop(next(iter(self.tasks)))

    def turn(self, key: str, items: list[Item | None] | None = None) -> list[Done | None]:
        """Do one's own item, which the first one gives; the results of all, for the first one."""
        own: list[Any] = [None]
        _dist.scatter_object_list(own, items, src=0)
        if own[0] is None:
            return self.gathered(None)
        with of_threads(1):
            done = self.worker.do(key, key, own[0])
        return self.gathered(done)


def serve() -> None:
    """Do what the first process says, until it says that this is all."""
    member = _Member()
    while True:
        said: list[Any] = [None]
        _dist.broadcast_object_list(said, src=0)
        what, key, task = said[0]
        if what == "end":
            return
        if what == "task":
            member.hold(key, task)
        else:
            member.turn(key)


@contextmanager
def leading() -> Iterator[LaunchedWorkers]:
    """In the block the processes do pieces of the work; then they end.

    Raises
    ------
    TopgraftError
        If there are not several.
    """
    if not are_several():
        raise TopgraftError(
            "--on torchrun is for what torchrun started: torchrun --nproc-per-node 2 -m topgraft fit photos/"
        )
    workers = LaunchedWorkers()
    try:
        yield workers
    finally:
        workers.say("end")


class LaunchedWorkers:
    """The processes, the leading one among them."""

    def __init__(self) -> None:
        self._member = _Member()
        self._keys = itertools.count()
        self._pieces: Counter[int] = Counter()
        self._fills, self._sent = False, 0

    def in_order(self, task: Task, items: Iterable[Item], *, at_once: int = AT_ONCE) -> Iterator[Any]:
        """As :meth:`topgraft.workers.Workers.in_order`: an item each, then the next."""
        del at_once
        key, waiting = self.send(task), iter(items)
        while some := list(itertools.islice(waiting, self._member.size)):
            while True:
                packed = [(item.filled() if self._fills else item).packed() for item in some]
                every = self.turn(key, packed)
                lacking = [done.lacking[0] for done in every if done.lacking]
                if not lacking:
                    break
                self.say_lacking(lacking[0])
            for done in every:
                yield done.taken()

    def together(self, task: Shared, *, most: int) -> LaunchedTogether:
        """As :meth:`topgraft.workers.Workers.together`."""
        return LaunchedTogether(self, self.send(task), most)

    def for_training(self) -> tuple[int, str]:
        """As :meth:`topgraft.workers.Workers.for_training`."""
        return self._member.size, "one a process of torchrun (--training-workers)"

    def told(self) -> dict[str, Any]:
        """What ran where, as JSON."""
        hosts = Counter(host for _, host in self._member.seats)
        pieces = Counter[str]()
        for rank, number in self._pieces.items():
            pieces[self._member.seats[rank][1]] += number
        return {
            "kind": "torchrun",
            "address": self._member.seats[0][0],
            "machines": [
                {"node": host, "host": host, "workers": number, "pieces": pieces[host]}
                for host, number in sorted(hosts.items())
            ],
            "pieces": sum(pieces.values()),
            "workers_lost": 0,
            "done_again": 0,
            "files_sent": self._sent,
        }

    def say(self, what: str, key: str = "", task: Task | None = None) -> None:
        """Tell all others what comes."""
        _dist.broadcast_object_list([(what, key, task)], src=0)

    def send(self, task: Task) -> str:
        """Give all of them a task; its name."""
        key = str(next(self._keys))
        self.say("task", key, task)
        self._member.hold(key, task)
        return key

    def turn(self, key: str, items: list[Item]) -> list[Done]:
        """An item each, to the first of them; what each gave."""
        self.say("turn", key)
        every = self._member.turn(key, [*items, *[None] * (self._member.size - len(items))])
        found = [done for done in every if done is not None]
        self._pieces.update(rank for rank, done in enumerate(found) if not done.lacking)
        return found

    def seats(self, most: int) -> list[Seat]:
        """Places for some of them that are to find one another."""
        self._meeting = opened(self._member.seats[0][0])
        meeting = self._member.seats[0][0], int(self._meeting.port)
        size = min(most, self._member.size)
        return [Seat(rank, size, self._member.seats[rank][0], meeting) for rank in range(size)]

    def say_lacking(self, path: str) -> None:
        """From now on the content of files is sent."""
        self._fills, self._sent = True, self._sent + 1
        warnings.warn(
            f"{path} is not there for all processes: the content of files is sent to them.",
            WorkersWarning,
            stacklevel=2,
        )


class LaunchedTogether:
    """Several of the processes that do pieces of one task together."""

    def __init__(self, workers: LaunchedWorkers, key: str, most: int) -> None:
        self._workers, self._key, self._most = workers, key, most

    def do(self, make: Callable[[Seat], Item], then: str) -> Any:
        """As :meth:`topgraft.workers.Together.do`; whoever is lost ends all."""
        del then
        every = self._workers.turn(self._key, [make(seat) for seat in self._workers.seats(self._most)])
        for done in every:
            if done.problem is not None:
                done.taken()
        return None if any(done.result is None for done in every) else every[0].taken()


def own_address(other: str) -> str:
    """The address of this machine on the way to another one.

    Examples
    --------
    >>> own_address("127.0.0.1")
    '127.0.0.1'
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((other, 9))  # nothing is sent
        return str(one.getsockname()[0])
