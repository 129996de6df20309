"""Work for real workers, in a module that they can import: noted, waited for, and deadly where so told."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import torch

from topgraft.data_parallel import Gloo
from topgraft.errors import RunningError
from topgraft.workers import Item, Seat

LIMIT = 120.0
"""Seconds that one waits for another at most."""


@dataclass(frozen=True)
class Deed:
    """Before a block runs in a worker: note it, wait until both nodes have begun, and die if so told."""

    folder: Path
    dies: bool = False
    waits_on: str = ""

    def __call__(self, _module: Any, args: tuple[Any, ...]) -> None:
        node = ray.get_runtime_context().get_node_id()
        with (self.folder / "calls").open("a") as file:
            file.write(f"{node} {len(args[0])}\n")
        (self.folder / f"began {node}").touch()
        until(lambda: len(list(self.folder.glob("began *"))) == 2)
        if self.dies and once(self.folder / "died"):
            os.kill(os.getpid(), signal.SIGKILL)
        if node == self.waits_on:
            (self.folder / "waiting").touch()
            time.sleep(LIMIT)

    def calls(self) -> int:
        """Batches that any worker began."""
        return len((self.folder / "calls").read_text().splitlines())


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError("another worker never began")
        time.sleep(0.02)


def once(place: Path) -> bool:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(place, os.O_CREAT | os.O_EXCL))
        return True
    return False


@dataclass(frozen=True)
class Number(Item):
    """An item that has a file, which only its owner finds."""

    value: int
    owner: int
    content: int = 0

    def lacks(self) -> tuple[str, ...]:
        return () if self.content or os.getpid() == self.owner else (f"/there/{self.value}.png",)

    def filled(self) -> Number:
        return replace(self, content=self.value)


@dataclass(frozen=True)
class Task:
    what: str = ""

    def start(self) -> Callable[[Number], Any]:
        return self._do

    def _do(self, number: Number) -> Any:
        if number.value == 3 and self.what == "end":
            os.kill(os.getpid(), signal.SIGKILL)
        if number.value == 3 and self.what == "refuse":
            raise RunningError("3.png: its file changed")
        return number.value * 10, torch.get_num_threads()


@dataclass
class Reading:
    """What a training reads, as it is, until a batch at which this worker dies or waits, if so told."""

    source: Any
    folder: Path
    at: int = 0
    """Batches of training that a worker reads before."""
    dies: bool = False
    waits_on: str = ""
    refuses: bool = False
    seen: int = 0
    home: int = field(default_factory=os.getpid)
    """The leading process, in which nothing happens."""

    def batch(self, rows: Any, *, training: bool) -> Any:
        if training and os.getpid() != self.home:
            node = ray.get_runtime_context().get_node_id()
            (self.folder / f"began {node}").touch()
            self.seen += 1
            if self.seen > self.at:
                self._do(node)
        return self.source.batch(rows, training=training)

    def _do(self, node: str) -> None:
        until(lambda: len(list(self.folder.glob("began *"))) == 2)
        if self.dies and once(self.folder / "died"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.refuses and once(self.folder / "refused"):
            raise RunningError("3.png: its file changed")
        if node == self.waits_on:
            (self.folder / "waiting").touch()
            time.sleep(LIMIT)

    def nodes(self) -> int:
        """On how many it was read."""
        return len(list(self.folder.glob("began *")))


@dataclass(frozen=True)
class Sitting(Item):
    """An item for one of several that work together."""

    seat: Seat


@dataclass(frozen=True)
class Gathering:
    """A task in which each tells the others its rank and where it is."""

    lacking: tuple[str, ...] = ()

    def files(self) -> tuple[str, ...]:
        return self.lacking

    def filled(self) -> Gathering:
        return Gathering()

    def start(self) -> Callable[[Sitting], Any]:
        assert not self.lacking
        return self._tell

    def _tell(self, item: Sitting) -> list[tuple[int, int]]:
        seat = item.seat
        node = int(ray.get_runtime_context().get_node_id()[:12], 16)
        team = Gloo(seat.rank, seat.size, seat.address, seat.meeting)
        found = team.gathered(torch.tensor([seat.rank, node]))
        team.close()
        return [tuple(one.tolist()) for one in found]
