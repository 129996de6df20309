"""Workers that do one piece of work together, talking to one another; where one is lost, all of it is."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from topgraft.workers import Item, Seat, Shared, WorkersWarning
from topgraft.workers.hands import Hand, Hands, lost, sent_once
from topgraft.workers.serving import Done

GRACE = 10.0
"""Seconds in which the others must notice that one of them is gone."""
STARTING = 20.0
"""Seconds that are waited for workers that are starting, so that all take part."""


class RayTogether:
    """Workers of a cluster, chosen anew for each piece: those that are there, on different machines first.

    Parameters
    ----------
    hands
        Who there is.
    task
        What they do.
    most
        Workers at most.
    """

    def __init__(self, hands: Hands, task: Shared, *, most: int) -> None:
        self._hands, self._task, self._most = hands, task, most
        self._key, self._sent = "", None
        self._asked: set[Hand] = set()

    def do(self, make: Callable[[Seat], Item], then: str) -> Any:
        """As :meth:`topgraft.workers.Together.do`.

        Raises
        ------
        RunningError
            If there is no worker for a long time.
        TopgraftError
            What the work of one of them raised.
        """
        import ray

        chosen = self._hands.several(self._most, wait=STARTING)
        first = chosen[0].known
        try:
            self._send(chosen)
            port = int(ray.get(chosen[0].actor.meet.remote()))
        except lost():
            self._hands.lose_dead(chosen, then)
            return None
        waiting: dict[Any, Hand] = {}
        for rank, hand in enumerate(chosen):
            item = make(Seat(rank, len(chosen), hand.known.address, (first.address, port)))
            waiting[hand.actor.do.remote(self._key, [self._sent], item)] = hand
            hand.under_way += 1
        before = self._hands.told()["workers_lost"]
        every = self._all(waiting, then)
        for done in every.values():
            if done.problem is not None:
                done.taken()
        if len(every) < len(chosen) or any(done.result is None for done in every.values()):
            self._hands.count_again()
            if self._hands.told()["workers_lost"] == before:
                said = f"Workers lost their connections to one another: {then}."
                warnings.warn(said, WorkersWarning, stacklevel=2)
            return None
        for hand in chosen:
            self._hands.count_piece(hand)
        return every[chosen[0]].taken()

    def _send(self, chosen: list[Hand]) -> None:
        """Send the task, once, and once more with its files where these are lacking."""
        import ray

        files = list(self._task.files())
        unasked = [hand for hand in chosen if hand not in self._asked] if files else []
        if not self._hands.fills and unasked:
            every = ray.get([hand.actor.missing.remote(files) for hand in unasked])
            for hand, missing in zip(unasked, every, strict=True):
                if missing and not self._hands.fills:
                    self._hands.say_lacking(missing[0], hand)
            self._asked |= set(unasked)
        if self._hands.fills and files:
            self._task, self._key = self._task.filled(), ""
        if not self._key:
            self._key, self._sent = self._hands.key(), sent_once(self._task)

    def _all(self, waiting: dict[Any, Hand], then: str) -> dict[Hand, Done]:
        """What each of them gave; those that died, or went on waiting for one that did, are left out."""
        import ray

        every: dict[Hand, Done] = {}
        parted: float | None = None
        try:
            while waiting:
                self._hands.look()
                ready, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
                for reference in ready:
                    hand = waiting.pop(reference)
                    hand.under_way -= 1
                    try:
                        every[hand] = ray.get(reference)
                    except lost():
                        self._hands.lose(hand, then)
                        parted = parted or time.monotonic()
                        continue
                    if every[hand].result is None:
                        parted = parted or time.monotonic()
                if parted is not None and time.monotonic() - parted > GRACE:
                    for hand in waiting.values():
                        self._hands.lose(hand, then)
                    break
        finally:
            for hand in waiting.values():
                hand.under_way -= 1
        return every
