"""Workers that are this very process, and get the task and each item as another would: pickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from topgraft.workers import Item, Task


class OneByOne:
    """They note the items that they get."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def in_order(self, task: Task, items: Iterable[Item], *, at_once: int = 1) -> Iterator[Any]:
        del at_once
        work = pickle.loads(pickle.dumps(task)).start()
        for item in items:
            self.items.append(item)
            yield pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(item.packed())))))

    def told(self) -> dict[str, Any]:
        return {"items": len(self.items)}
