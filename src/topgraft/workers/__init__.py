"""Where pieces of the work are done: here, or by other processes, on other machines too.

Which of the two changes no number, so that no stage is told: whoever starts a job says it
(:func:`working_on`), and the few places that do many pieces side by side ask (:func:`elsewhere`). A piece is
done by a task, which is sent to another process once, and an item, such as the examples of one batch. Results
are taken in the order of the items, whoever made them, so that what is stored or added up is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from topgraft.errors import TopgraftError, TopgraftWarning

AT_ONCE = 2
"""Pieces that a worker has at once, so that it need not wait for the next."""
TORCHRUN = "torchrun"
"""Where the command line says that the work is done when ``torchrun`` started several of it."""
CHOICES = "ray, ray://HOST:PORT or HOST:PORT"
_ADDRESS = re.compile(r"(ray://)?(\[[0-9a-fA-F:]+\]|[^\s/:\[\]]+):(\d{1,5})")


class WorkersWarning(TopgraftWarning):
    """Workers died, compute by other instructions, or lack files."""


class Item:
    """What a task does one piece of work on, as it is sent to another process."""

    def lacks(self) -> Sequence[str]:
        """Files that it names and that are not there for the process that asks."""
        return ()

    def filled(self) -> Item:
        """The same with the content of its files in it."""
        return self

    def packed(self) -> Item:
        """As it is sent: with what it only names while it waits, so that few are held at once."""
        return self


class Task(Protocol):
    """A kind of work; it is pickled, sent to each worker once, and started there once."""

    def start(self) -> Callable[[Any], Any]:
        """What does one piece of it, an item given."""


class Shared(Task, Protocol):
    """A task that several workers do together; it holds what all of them need."""

    def files(self) -> Sequence[str]:
        """Files that it names."""

    def filled(self) -> Shared:
        """The same with the content of these files in it."""


@dataclass(frozen=True)
class Seat:
    """A worker's place among several that do one piece of work together.

    Parameters
    ----------
    rank, size
        Which one it is, from 0, of how many.
    address
        Its own, by which the others reach it.
    meeting
        Host and port where they find one another.
    """

    rank: int
    size: int
    address: str
    meeting: tuple[str, int]


class Together(Protocol):
    """Several workers that do pieces of one task together, one piece after the other."""

    def do(self, make: Callable[[Seat], Item], then: str) -> Any:
        """What the first of them gives for a piece, of which ``make`` gives each of them its item.

        ``None`` where one of them was lost, so that none of the piece is done; that is told, and ``then``
        says what follows.
        """


class Workers(Protocol):
    """Other processes that do pieces of the work."""

    def in_order(self, task: Task, items: Iterable[Item], *, at_once: int = AT_ONCE) -> Iterator[Any]:
        """Results in the order of the items, which are taken only as there is room for them.

        ``at_once`` says how many a worker has at the same time: one where they take long.
        """

    def together(self, task: Shared, *, most: int) -> Together:
        """Workers for a task that several do together, at most so many, on as many machines as there are."""

    def for_training(self) -> tuple[int, str]:
        """Among how many of them a training is divided where nobody says, and why."""

    def told(self) -> dict[str, Any]:
        """What ran where, as JSON: the form of ``on`` in ``--json``."""


_WORKERS: ContextVar[Workers | None] = ContextVar("topgraft_workers", default=None)
Held = TypeVar("Held", bound=Workers)


def elsewhere() -> Workers | None:
    """Who does pieces of the work instead of this process; ``None`` where it does them itself.

    Examples
    --------
    >>> elsewhere() is None
    True
    """
    return _WORKERS.get()


@contextmanager
def led(workers: Held) -> Iterator[Held]:
    """In the block these workers do pieces of the work."""
    token = _WORKERS.set(workers)
    try:
        yield workers
    finally:
        _WORKERS.reset(token)


def address_of(on: str) -> str | None:
    """The address that ``--on`` names; ``None`` for ``ray`` alone.

    Raises
    ------
    TopgraftError
        If it is none of those that can be given.

    Examples
    --------
    >>> address_of("ray"), address_of("10.0.0.1:6379"), address_of("ray://head:10001")
    (None, '10.0.0.1:6379', 'ray://head:10001')
    """
    if on == "ray":
        return None
    found = _ADDRESS.fullmatch(on)
    if found is None or not 0 < int(found[3]) < 65536:
        raise TopgraftError(f"--on {on}: give {CHOICES}.")
    return on


@contextmanager
def working_on(on: str | None) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """In the block pieces of the work are done where ``--on`` says; gives what tells what ran where.

    Parameters
    ----------
    on
        ``None``: in this process. ``ray``: on the cluster at ``$RAY_ADDRESS``, or one that is started on this
        machine for as long as the block lasts. ``HOST:PORT``: on the cluster there, of which this machine is
        a node. ``ray://HOST:PORT``: on the cluster there, of which it is none. ``torchrun``: by the processes
        that it started, of which this is the first; the others are in
        :func:`topgraft.workers.launched.serve`.

    Raises
    ------
    TopgraftError
        If it is none of those, Ray is not installed, or there is no cluster at the address.

    Examples
    --------
    >>> with working_on(None) as told:
    ...     told() is None
    True
    """
    if on is None:
        yield lambda: None
        return
    if on == TORCHRUN:
        from topgraft.workers.launched import leading

        with leading() as launched, led(launched):
            yield launched.told
        return
    address = address_of(on)
    from topgraft.workers.connecting import connected

    with connected(address) as workers, led(workers):
        yield workers.told
