"""Workers that are this very process, and get the task and each item as another would: pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from topgraft.workers import Item, Seat, Shared, Task


@dataclass
class OneTogether:
    """One that does what several would, by itself."""

    work: Callable[[Any], Any]
    items: list[Any]
    losses: int

    def do(self, make: Callable[[Seat], Item], then: str) -> Any:
        item = make(Seat(0, 1, "127.0.0.1", ("127.0.0.1", 0)))
        self.items.append((item, then))
        found = self.work(pickle.loads(pickle.dumps(item)))
        if self.losses:
            self.losses -= 1
            return None
        return pickle.loads(pickle.dumps(found))


class OneByOne:
    """They note the items that they get."""

    def __init__(self, *, losses: int = 0) -> None:
        self.items: list[Any] = []
        self.losses = losses
        """How often what is done together is lost."""

    def in_order(self, task: Task, items: Iterable[Item], *, at_once: int = 1) -> Iterator[Any]:
        del at_once
        work = pickle.loads(pickle.dumps(task)).start()
        for item in items:
            self.items.append(item)
            yield pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(item.packed())))))

    def together(self, task: Shared, *, most: int) -> OneTogether:
        del most
        return OneTogether(pickle.loads(pickle.dumps(task)).start(), self.items, self.losses)

    def for_training(self) -> tuple[int, str]:
        return 2, "one a machine of the cluster (--training-workers)"

    def told(self) -> dict[str, Any]:
        return {"items": len(self.items)}
