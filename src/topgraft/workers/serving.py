"""What runs in a worker: tasks that were sent once, and pieces of them, one thread each."""

from __future__ import annotations

import platform
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import topgraft
from topgraft.data_parallel import opened
from topgraft.errors import RunningError, TopgraftError, TopgraftWarning
from topgraft.workers import Item, Task

LOCAL = "127.0.0.1"
STARTED = 2
"""Tasks that a worker holds at once, those used last: each may hold a network."""


@dataclass(frozen=True)
class Done:
    """What became of one piece of work.

    Parameters
    ----------
    result
        What the task gave, where it gave something.
    lacking
        Files that are not there for the worker; then nothing was done.
    problem
        The message of an error that the user can mend, if there was one.
    status
        The exit status that goes with it.
    warned
        Class and message of each warning.
    """

    result: Any = None
    lacking: tuple[str, ...] = ()
    problem: str | None = None
    status: int = 0
    warned: tuple[tuple[type[TopgraftWarning], str], ...] = ()

    def taken(self) -> Any:
        """The result, after its warnings were given.

        Raises
        ------
        TopgraftError
            With the worker's message; a ``RunningError`` where its failure was one of running.
        """
        for category, message in self.warned:
            warnings.warn(message, category, stacklevel=2)
        if self.problem is not None:
            raise (RunningError if self.status == RunningError.exit_status else TopgraftError)(self.problem)
        return self.result


@dataclass(frozen=True)
class Machine:
    """What a worker's numbers depend on beside the task, and where it is.

    Parameters
    ----------
    host
        The machine's name.
    versions
        Of what computes, by name: they must be the same everywhere.
    processor
        The instructions that it computes by: with others, last digits may be others.
    node
        The cluster's name for the machine.
    address
        By which others of the cluster reach it.
    """

    host: str
    versions: dict[str, str] = field(default_factory=dict)
    processor: str = ""
    node: str = ""
    address: str = LOCAL

    @classmethod
    def here(cls, node: str = "", address: str = LOCAL) -> Machine:
        """Of this process."""
        versions = {"topgraft": topgraft.__version__, "torch": torch.__version__}
        said = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        return cls(platform.node(), versions, said, node, address)


class Worker:
    """Does pieces of work in its own process, one after the other.

    Parameters
    ----------
    fetch
        Gives the task of a reference that was sent in its stead.
    node, address
        Give the cluster's name for where it is, and the address by which others reach it.
    """

    def __init__(
        self,
        fetch: Callable[[Any], Task],
        node: Callable[[], str],
        address: Callable[[], str] = lambda: LOCAL,
    ) -> None:
        torch.set_num_threads(1)
        self._fetch, self._node, self._address = fetch, node, address
        self._meeting: Any = None
        self._started: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()

    def hello(self) -> Machine:
        """Who this is."""
        return Machine.here(self._node(), self._address())

    def meet(self) -> int:
        """Open a place where several workers find one another, until the next is opened; gives its port."""
        self._meeting = opened(self._address())
        return int(self._meeting.port)

    def missing(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Files of these that are not there."""
        return tuple(path for path in paths if not Path(path).exists())

    def do(self, key: str, sent: Any, item: Item) -> Done:
        """Do one piece of the task with this key."""
        if lacking := tuple(item.lacks()):
            return Done(lacking=lacking)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", TopgraftWarning)
            try:
                found = Done(self._work(key, sent)(item))
            except TopgraftError as error:
                found = Done(problem=str(error), status=error.exit_status)
        told = ((w.category, str(w.message)) for w in heard if issubclass(w.category, TopgraftWarning))
        return Done(found.result, (), found.problem, found.status, tuple(dict.fromkeys(told)))

    def _work(self, key: str, sent: Any) -> Callable[[Any], Any]:
        if key not in self._started:
            while len(self._started) >= STARTED:
                self._started.popitem(last=False)
            self._started[key] = self._fetch(sent).start()
        self._started.move_to_end(key)
        return self._started[key]
