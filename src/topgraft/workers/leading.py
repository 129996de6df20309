"""Pieces of work handed to workers on a Ray cluster, results taken in order, what was lost done again.

A worker is an actor with one core. It is never restarted by Ray: what it had under way when it died is given
to another here, so that each item has one result, however many workers began it. Where a core of the cluster
has no worker, because one died or a machine joined, another is asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from topgraft.console import counted
from topgraft.errors import RunningError, TopgraftError, TopgraftWarning
from topgraft.workers import AT_ONCE, Item, Task
from topgraft.workers.serving import Done, Machine, Worker

AHEAD = 4
"""Items a worker that are taken before the first of them must be done: what a slow one may hold up."""
TRIES = 4
"""Workers that may die over one item before it counts as what ends them."""
PATIENCE = 300.0
"""Seconds without a single worker after which there is none to be had."""
MOST_STILLBORN = 8
"""Workers that may die before they have begun while there is no other."""
LOOK = 5.0
"""Seconds after which the cluster is looked at again."""


class WorkersWarning(TopgraftWarning):
    """Workers died, compute by other instructions, or lack files."""


@dataclass
class _Piece:
    item: Item
    tries: int = 0
    done: Done | None = None


@dataclass(eq=False)
class _Hand:
    """A worker as the leader knows it."""

    actor: Any
    machine: Machine | None = None
    under_way: int = 0


@dataclass
class _Work:
    """A task under way: what was taken, in order; what waits for a worker; what workers have."""

    key: str
    sent: Any
    at_once: int = AT_ONCE
    order: deque[_Piece] = field(default_factory=deque)
    waiting: deque[_Piece] = field(default_factory=deque)
    busy: dict[Any, tuple[_Piece, _Hand]] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Take one more item."""
        self.order.append(_Piece(item))
        self.waiting.append(self.order[-1])


@dataclass
class _Count:
    """What ran where: machines by node and host."""

    pieces: Counter[tuple[str, str]] = field(default_factory=Counter)
    workers: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: int = 0
    stillborn: int = 0
    again: int = 0
    sent: int = 0


class RayWorkers:
    """Workers of the cluster that this process is connected to, one a core.

    Parameters
    ----------
    address
        Of the cluster, to be told.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._hands: list[_Hand] = []
        self._starting: dict[Any, _Hand] = {}
        self._count = _Count()
        self._keys = itertools.count()
        self._looked = float("-inf")
        self._seen = time.monotonic()
        self._fills = False

    def told(self) -> dict[str, Any]:
        """What ran where: pieces by machine, workers that died, pieces that were done again."""
        count = self._count
        return {
            "kind": "ray",
            "address": self.address,
            "machines": [
                {"node": node, "host": host, "workers": number, "pieces": count.pieces[node, host]}
                for (node, host), number in sorted(count.workers.items())
            ],
            "pieces": sum(count.pieces.values()),
            "workers_lost": count.lost,
            "done_again": count.again,
            "files_sent": count.sent,
        }

    def end(self) -> None:
        """End the workers; what they hold is given back to the cluster."""
        for hand in (*self._hands, *self._starting.values()):
            _end(hand)
        self._hands.clear()
        self._starting.clear()

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
        work = _Work(str(next(self._keys)), _sent(task), at_once)
        source, is_over = iter(items), False
        self._seen = time.monotonic()
        self._look(force=True)
        try:
            while True:
                while not is_over and len(work.order) < AHEAD * max(1, len(self._hands)):
                    try:
                        item = next(source)
                    except StopIteration:
                        is_over = True
                        break
                    work.add(item.filled() if self._fills else item)
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
                busy[_place(hand)] += hand.under_way
            hand = min(self._hands, key=lambda hand: (hand.under_way, busy[_place(hand)]))
            if hand.under_way >= work.at_once:
                return
            piece = work.waiting.popleft()
            # in a list the reference stays one: the worker fetches the task itself, once
            work.busy[hand.actor.do.remote(work.key, [work.sent], piece.item.packed())] = piece, hand
            hand.under_way += 1

    def _wait(self, work: _Work) -> None:
        """Take what was done meanwhile, and put back what was lost."""
        import ray

        self._look()
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
            except _lost() as error:
                self._lose(hand)
                piece.tries += 1
                self._count.again += 1
                if piece.tries >= TRIES:
                    said = f"{counted(TRIES, 'worker')} died over one piece of work, {piece.item}"
                    raise RunningError(f"{said}: {_last_line(error)}") from error
                work.waiting.appendleft(piece)
                continue
            if done.lacking:
                self._fill(piece, done.lacking, hand)
                work.waiting.appendleft(piece)
                continue
            piece.done = done
            self._count.pieces[_place(hand)] += 1

    def _fill(self, piece: _Piece, lacking: tuple[str, ...], hand: _Hand) -> None:
        """From now on, files are sent; this piece first."""
        if not self._fills:
            warnings.warn(
                f"{lacking[0]} is not there for workers on {_place(hand)[1]}: the content of files is sent "
                "to the workers. A file system that all machines share is quicker.",
                WorkersWarning,
                stacklevel=2,
            )
        self._fills = True
        piece.item = piece.item.filled()
        self._count.sent += 1

    def _lose(self, hand: _Hand) -> None:
        if hand not in self._hands:  # another piece of it was lost before
            return
        self._hands.remove(hand)
        self._count.lost += 1
        _end(hand)  # it may only be out of reach
        warnings.warn(
            f"A worker on {_place(hand)[1]} died: what it had under way is done again.",
            WorkersWarning,
            stacklevel=2,
        )
        self._look(force=True)

    def _look(self, *, force: bool = False) -> None:
        """Ask for a worker for each core of the cluster that has none."""
        import ray

        now = time.monotonic()
        if self._hands:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise RunningError(
                f"The cluster at {self.address} has had no free core for {PATIENCE:g} s. "
                "Is it busy with other work?"
            )
        if not force and now - self._looked < LOOK:
            return
        self._looked = now
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores <= len(self._hands) + len(self._starting):
            return
        actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        for _ in range(cores - len(self._hands) - len(self._starting)):
            hand = _Hand(actor.remote(_fetched, _node))
            self._starting[hand.actor.hello.remote()] = hand

    def _welcome(self, reference: Any) -> None:
        """A worker that has started, if it computes as this process does."""
        import ray

        hand = self._starting.pop(reference)
        try:
            there: Machine = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._count.stillborn += 1
            if self._count.stillborn >= MOST_STILLBORN and not self._hands:
                raise RunningError(
                    f"No worker starts on the cluster at {self.address}: {_last_line(error)}\n"
                    "Its machines need the same packages as this one: pip install 'topgraft[ray]'."
                ) from error
            return
        here = Machine.here()
        if there.versions != here.versions:
            raise TopgraftError(
                f"{there.host} has {_said(there.versions)}, and this machine has {_said(here.versions)}: "
                "numbers of one would be taken for those of the other. Install the same on all machines."
            )
        hand.machine = there
        if there.processor != here.processor and _place(hand) not in self._count.workers:
            warnings.warn(
                f"{there.host} computes by other instructions ({there.processor}) than this machine "
                f"({here.processor}): last digits may differ from those of a run here.",
                WorkersWarning,
                stacklevel=2,
            )
        self._count.workers[_place(hand)] += 1
        self._hands.append(hand)


def _sent(task: Task) -> Any:
    """The reference by which workers fetch a task."""
    import ray

    try:
        return ray.put(task)
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        raise TopgraftError(
            f"This network can't be sent to other processes ({type(error).__name__}: {_last_line(error)}). "
            "Leave --on away, so that this process does the work."
        ) from error


def _end(hand: _Hand) -> None:
    import ray

    with contextlib.suppress(ray.exceptions.RayError, ValueError):
        ray.kill(hand.actor)


def _fetched(sent: Any) -> Any:
    import ray

    return ray.get(sent[0])


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())[:12]


def _place(hand: _Hand) -> tuple[str, str]:
    assert hand.machine is not None
    return hand.machine.node, hand.machine.host


def _last_line(error: BaseException) -> str:
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)])[-1]


def _said(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _lost() -> tuple[type[Exception], ...]:
    """What Ray raises where a worker or its machine is gone, or what it gave."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.ActorUnschedulableError,
        exceptions.ObjectLostError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
    )
