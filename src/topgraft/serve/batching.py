"""Inputs of concurrent requests put together into batches, in the order in which they came."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
PAUSE = 0.002
"""Seconds that a worker lets others come before it runs a batch that is not full."""


class Full(Exception):
    """Too much waits already."""


class Closed(Exception):
    """Nothing is taken any more."""


@dataclass(frozen=True)
class Waiting(Generic[Item, Result]):
    """One input that waits.

    Parameters
    ----------
    item
        What is to be worked on.
    weight
        What it adds to its batch.
    answer
        What somebody waits for.
    """

    item: Item
    weight: int
    answer: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """A queue, and threads that each take a batch from it.

    One thread at a time gathers, so that what came together is run together; the others compute meanwhile.
    A batch that fails is run again item by item, so that nobody's answer depends on what others sent.

    Parameters
    ----------
    work
        Gives a result for each item of a batch, in order; called by several threads.
    workers
        Threads; with none, everything waits.
    most
        Items in a batch.
    heaviest
        Weight of a batch; a heavier item is run alone.
    is_padded
        Whether each item is filled up to the heaviest of its batch, so that all weigh as much as that one.
    waiting
        Items that may wait.
    pause
        Seconds that a batch which is not full waits for others.
    seen
        Is told the number of items of each batch.

    Examples
    --------
    >>> batcher = Batcher(lambda some: [n * n for n in some], workers=1, most=8)
    >>> answers = batcher.submit([(2, 0), (3, 0)])
    >>> [answer.result() for answer in answers]
    [4, 9]
    >>> batcher.close()
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result]],
        *,
        workers: int,
        most: int,
        heaviest: int = 1,
        is_padded: bool = False,
        waiting: int = 1024,
        pause: float = PAUSE,
        seen: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._work, self._most, self._heaviest, self._is_padded = work, most, heaviest, is_padded
        self._room, self._pause, self._seen = waiting, pause, seen
        self._queue: deque[Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._gathering = threading.Lock()
        self._is_closing = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"batch-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._queue)

    def submit(self, items: Sequence[tuple[Item, int]]) -> list[Future[Result]]:
        """Let items wait, each with its weight: all of them or none.

        An answer that is cancelled before its turn is not worked on.

        Raises
        ------
        Full
            If there is no room for all.
        Closed
            After :meth:`close`.
        """
        new = [Waiting[Item, Result](item, weight) for item, weight in items]
        with self._changed:
            if self._is_closing:
                raise Closed
            if len(self._queue) + len(new) > self._room:
                raise Full
            self._queue.extend(new)
            self._changed.notify_all()
        return [one.answer for one in new]

    def close(self) -> None:
        """Take nothing more, work on what waits, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._answer(batch)

    def _next(self) -> list[Waiting[Item, Result]] | None:
        """The next batch; empty if all of it was given up meanwhile, ``None`` at the end."""
        with self._gathering, self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if not self._queue:
                return None
            until = time.monotonic() + self._pause
            while len(self._queue) < self._most and not self._is_closing:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            return self._taken()

    def _taken(self) -> list[Waiting[Item, Result]]:
        batch: list[Waiting[Item, Result]] = []
        while self._queue and len(batch) < self._most:
            if batch and self._weight([*batch, self._queue[0]]) > self._heaviest:
                break
            one = self._queue.popleft()
            if one.answer.set_running_or_notify_cancel():
                batch.append(one)
        return batch

    def _weight(self, batch: Sequence[Waiting[Item, Result]]) -> int:
        weights = [one.weight for one in batch]
        return len(weights) * max(weights) if self._is_padded else sum(weights)

    def _answer(self, batch: list[Waiting[Item, Result]]) -> None:
        self._seen(len(batch))
        try:
            results = self._work([one.item for one in batch])
        except Exception as error:  # noqa: BLE001 (whoever waits is told, whatever it is)
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for one in batch:
                self._answer([one])
            return
        for one, result in zip(batch, results, strict=True):
            one.answer.set_result(result)
