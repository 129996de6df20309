"""Workers on a Ray cluster as they come and go: one a core, those that died told and not waited for."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from topgraft.errors import RunningError, TopgraftError
from topgraft.workers import Task, WorkersWarning
from topgraft.workers.serving import Machine, Worker

PATIENCE = 300.0
"""Seconds without a single worker after which there is none to be had."""
MOST_STILLBORN = 8
"""Workers that may die before they have begun while there is no other."""
LOOK = 5.0
"""Seconds after which the cluster is looked at again."""
ANSWER = 10.0
"""Seconds in which a worker that does nothing must answer."""


@dataclass(eq=False)
class Hand:
    """A worker as the leader knows it."""

    actor: Any
    machine: Machine | None = None
    under_way: int = 0
    asked: float = field(default_factory=time.monotonic)

    @property
    def place(self) -> tuple[str, str]:
        """Node and host."""
        return self.known.node, self.known.host

    @property
    def known(self) -> Machine:
        """Who it said it is."""
        assert self.machine is not None
        return self.machine

    def end(self) -> None:
        """End it; what it holds is given back to the cluster."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self.actor)


@dataclass
class _Count:
    """What ran where: machines by node and host."""

    pieces: Counter[tuple[str, str]] = field(default_factory=Counter)
    workers: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: int = 0
    stillborn: int = 0
    again: int = 0
    sent: int = 0


class Hands:
    """Workers of the cluster that this process is connected to, one a core, as they come and go.

    Parameters
    ----------
    address
        Of the cluster, to be told.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._hands: list[Hand] = []
        self._starting: dict[Any, Hand] = {}
        self._count = _Count()
        self._keys = itertools.count()
        self._looked = float("-inf")
        self._seen = time.monotonic()
        self.fills = False
        """Whether the content of files is sent, since workers lack them."""

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
            hand.end()
        self._hands.clear()
        self._starting.clear()

    def lose(self, hand: Hand, then: str = "what it had under way is done again") -> None:
        """Count a worker as dead, and say so."""
        if hand not in self._hands:  # another piece of it was lost before
            return
        self._hands.remove(hand)
        self._count.lost += 1
        hand.end()  # it may only be out of reach
        warnings.warn(
            f"A worker on {hand.place[1]} died: {then}.",
            WorkersWarning,
            stacklevel=2,
        )
        self.look(force=True)

    def key(self) -> str:
        """A name for a task that no other has."""
        return str(next(self._keys))

    def count_piece(self, hand: Hand) -> None:
        """Count a piece as done."""
        self._count.pieces[hand.place] += 1

    def count_again(self) -> None:
        """Count a piece that is done again."""
        self._count.again += 1

    def several(self, most: int, *, wait: float) -> list[Hand]:
        """Workers, at most so many, on as many machines as there are; one at least.

        Those that are starting are waited for, until ``wait`` seconds after they were asked for: a core may
        be somebody else's.

        Raises
        ------
        RunningError
            If there is none for :data:`PATIENCE` seconds.
        """
        self._seen = time.monotonic()
        self.look(force=True)
        while len(self._hands) < most and (self._is_starting(wait) or not self._hands):
            self._await_start()
            self.look()
        before = Counter[tuple[str, str]]()
        turns: list[tuple[int, int]] = []
        for hand in self._hands:
            turns.append((before[hand.place], len(turns)))
            before[hand.place] += 1
        return [self._hands[number] for _, number in sorted(turns)[:most]]

    def _is_starting(self, wait: float) -> bool:
        """Whether a worker was asked for just now."""
        return any(time.monotonic() - hand.asked < wait for hand in self._starting.values())

    def _await_start(self) -> None:
        """Wait up to a second for one that is starting."""
        import ray

        if not self._starting:
            time.sleep(1.0)
            return
        ready, _ = ray.wait(list(self._starting), num_returns=1, timeout=1.0)
        for reference in ready:
            self._welcome(reference)

    def for_training(self) -> tuple[int, str]:
        """As :meth:`topgraft.workers.Workers.for_training`: a machine counts that has a core."""
        import ray

        count = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
        return max(1, count), "one a machine of the cluster (--training-workers)"

    def look(self, *, force: bool = False) -> None:
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
            hand = Hand(actor.remote(_fetched, _node, _address))
            self._starting[hand.actor.hello.remote()] = hand

    def lose_dead(self, hands: Sequence[Hand], then: str) -> None:
        """Count those as dead that do not answer."""
        for hand in hands:
            if not _answers(hand):
                self.lose(hand, then)

    def say_lacking(self, path: str, hand: Hand) -> None:
        """From now on the content of files is sent, which is said once."""
        if not self.fills:
            warnings.warn(
                f"{path} is not there for workers on {hand.place[1]}: the content of files is sent "
                "to the workers. A file system that all machines share is quicker.",
                WorkersWarning,
                stacklevel=2,
            )
        self.fills = True
        self._count.sent += 1

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
                    f"No worker starts on the cluster at {self.address}: {last_line(error)}\n"
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
        if there.processor != here.processor and hand.place not in self._count.workers:
            warnings.warn(
                f"{there.host} computes by other instructions ({there.processor}) than this machine "
                f"({here.processor}): last digits may differ from those of a run here.",
                WorkersWarning,
                stacklevel=2,
            )
        self._count.workers[hand.place] += 1
        self._hands.append(hand)


def _answers(hand: Hand) -> bool:
    import ray

    gone: tuple[type[Exception], ...] = (*lost(), TimeoutError)  # Ray's own is one, too
    try:
        ray.get(hand.actor.hello.remote(), timeout=ANSWER)
    except gone:
        return False
    return True


def sent_once(task: Task) -> Any:
    """The reference by which workers fetch a task."""
    import ray

    try:
        return ray.put(task)
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        raise TopgraftError(
            f"This network can't be sent to other processes ({type(error).__name__}: {last_line(error)}). "
            "Leave --on away, so that this process does the work."
        ) from error


def _fetched(sent: Any) -> Any:
    import ray

    return ray.get(sent[0])


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())[:12]


def _address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def last_line(error: BaseException) -> str:
    """The last thing that an error says."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)])[-1]


def _said(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def lost() -> tuple[type[Exception], ...]:
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
