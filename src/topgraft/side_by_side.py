"""Whole batches side by side, one thread each, instead of threads inside each operation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


_outside: list[int] = []
"""Threads before each block of :func:`single_threaded` that is open, the outermost first."""


@contextmanager
def of_threads(count: int) -> Iterator[int]:
    """So many threads for each operation of torch for a while; gives how many there were."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_threaded() -> Iterator[int]:
    """One thread for each operation of torch for a while; gives how many there were.

    Threads inside small operations mostly wait for one another, above all when another program is on the
    same cores (ten times the processor time for the probes, three times the wall time for a pass). Whole
    batches side by side do not, and the bits do not depend on the number of threads.
    """
    with of_threads(1) as before:
        _outside.append(before)
        try:
            yield before
        finally:
            _outside.pop()


def cores() -> int:
    """How many items run side by side: threads of torch; in :func:`single_threaded` those before it.

    Examples
    --------
    >>> import torch
    >>> with of_threads(3), single_threaded():
    ...     torch.get_num_threads(), cores()
    (1, 3)
    """
    import torch

    return _outside[0] if _outside else torch.get_num_threads()


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """Results of ``work`` in the order of the items, at most two items a worker under way.

    Items are taken only as room for them appears, so that memory does not grow with their number.

    Examples
    --------
    >>> list(in_order(lambda n: n * n, range(4), workers=2))
    [0, 1, 4, 9]
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Shared(Generic[Result]):
    """Pieces of work that several threads need the results of: each is done once, by whoever comes first.

    Parameters
    ----------
    pieces
        What makes each result; an error in one is everybody's.

    Examples
    --------
    >>> shared = Shared([lambda: 1, lambda: 2])
    >>> list(in_order(lambda _: shared.results(), range(2), workers=2))
    [[1, 2], [1, 2]]
    """

    def __init__(self, pieces: Iterable[Callable[[], Result]]) -> None:
        self._lock = Lock()
        self._open = deque((piece, Future[Result]()) for piece in pieces)
        self._made = [made for _, made in self._open]

    def results(self) -> list[Result]:
        """All of them, in order: what nobody has begun is done here, and what others do is waited for."""
        while (one := self._next()) is not None:
            piece, made = one
            try:
                made.set_result(piece())
            except BaseException as error:  # noqa: BLE001 (raised below; nobody may wait for ever)
                made.set_exception(error)
        return [made.result() for made in self._made]

    def _next(self) -> tuple[Callable[[], Result], Future[Result]] | None:
        with self._lock:
            return self._open.popleft() if self._open else None
