"""Pieces of work handed to workers on a Ray cluster, results taken in order, what was lost done again.

A worker is an actor with one core. It is never restarted by Ray: what it had under way when it died is given
to another here, so that each item has one result, however many workers began it. Where a core of the cluster
has no worker, because one died or a machine joined, another is asked for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from topgraft.console import counted
from topgraft.errors import RunningError
from topgraft.workers import AT_ONCE, Item, Shared, Task
from topgraft.workers.hands import Hand, Hands, last_line, lost, sent_once
from topgraft.workers.serving import Done
from topgraft.workers.together import RayTogether

AHEAD = 4
"""Items a worker that are taken before the first of them must be done: what a slow one may hold up."""
TRIES = 4
"""Workers that may die over one item before it counts as what ends them."""


@dataclass
class _Piece:
    item: Item
    tries: int = 0
    done: Done | None = None


@dataclass
class _Work:
    """A task under way: what was taken, in order; what waits for a worker; what workers have."""

    key: str
    sent: Any
    at_once: int = AT_ONCE
    order: deque[_Piece] = field(default_factory=deque)
    waiting: deque[_Piece] = field(default_factory=deque)
    busy: dict[Any, tuple[_Piece, Hand]] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Take one more item."""
        self.order.append(_Piece(item))
        self.waiting.append(self.order[-1])


class RayWorkers(Hands):
    """Hands that do pieces of the work."""

    def together(self, task: Shared, *, most: int) -> RayTogether:
        """As :meth:`topgraft.workers.Workers.together`."""
        return RayTogether(self, task, most=most)

    def in_order(self, task: Task, items: Iterable[Item], *, at_once: int = AT_ONCE) -> Iterator[Any]:
        """Results in the order of the items, each taken once.

        Parameters
        ----------
        task, items
            What is done, and on what.
        at_once
            Items that a worker has at the same time.

        Raises
        ------
        RunningError
            If there is no worker for :data:`PATIENCE` seconds, or :data:`TRIES` of them died over one item.
        TopgraftError
            If the task can't be sent, or what an item's work raised.
        """
        work = _Work(self.key(), sent_once(task), at_once)
        source, is_over = iter(items), False
        self._seen = time.monotonic()
        self.look(force=True)
        try:
            while True:
                while not is_over and len(work.order) < AHEAD * max(1, len(self._hands)):
                    try:
                        item = next(source)
                    except StopIteration:
                        is_over = True
                        break
                    work.add(item.filled() if self.fills else item)
                if not work.order:
                    return
                if (done := work.order[0].done) is not None:
                    work.order.popleft()
                    yield done.taken()
                    continue
                self._hand_out(work)
                self._wait(work)
        finally:
            for _, hand in work.busy.values():  # nobody waits any more for what is under way
                hand.under_way -= 1

    def _hand_out(self, work: _Work) -> None:
        """Give what waits to those that have least to do, on the machine that has least to do."""
        while work.waiting and self._hands:
            busy = Counter[tuple[str, str]]()
            for hand in self._hands:
                busy[hand.place] += hand.under_way
            hand = min(self._hands, key=lambda hand: (hand.under_way, busy[hand.place]))
            if hand.under_way >= work.at_once:
                return
            piece = work.waiting.popleft()
            # in a list the reference stays one: the worker fetches the task itself, once
            work.busy[hand.actor.do.remote(work.key, [work.sent], piece.item.packed())] = piece, hand
            hand.under_way += 1

    def _wait(self, work: _Work) -> None:
        """Take what was done meanwhile, and put back what was lost."""
        import ray

        self.look()
        references = [*work.busy, *self._starting]
        if not references:
            time.sleep(1.0)
            return
        ready, _ = ray.wait(references, num_returns=1, timeout=1.0)
        for reference in ready:
            if reference in self._starting:
                self._welcome(reference)
                continue
            piece, hand = work.busy.pop(reference)
            hand.under_way -= 1
            try:
                done: Done = ray.get(reference)
            except lost() as error:
                self.lose(hand)
                piece.tries += 1
                self.count_again()
                if piece.tries >= TRIES:
                    said = f"{counted(TRIES, 'worker')} died over one piece of work, {piece.item}"
                    raise RunningError(f"{said}: {last_line(error)}") from error
                work.waiting.appendleft(piece)
                continue
            if done.lacking:
                self.say_lacking(done.lacking[0], hand)
                piece.item = piece.item.filled()
                work.waiting.appendleft(piece)
                continue
            piece.done = done
            self.count_piece(hand)
