"""A fit under way: what its stages share, with a clock and a ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.calibration import NOT_CALIBRATED, Calibration
from topgraft.configuration import Told
from topgraft.console import Console, duration
from topgraft.cost import Costs
from topgraft.features.shelf import Shelf
from topgraft.features.store import Store
from topgraft.files import DamagedFile, read_json, write_json
from topgraft.ledger import Ledger
from topgraft.nested import Nested
from topgraft.plan import Plan
from topgraft.rehearsal import costs_for, memory_held
from topgraft.run import RunFolder
from topgraft.search import reads_views
from topgraft.settings import Settings
from topgraft.stages import Prepared, reuse
from topgraft.tracking import Tracking
from topgraft.workload import Speed

SPEED = "speed.json"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Underway:
    """A fit under way, for the stages that share it.

    Parameters
    ----------
    ready
        Data and backbone.
    run
        The folder that it leaves behind.
    plan
        What is decided.
    store
        Where activations are kept.
    console
        Where results and progress go.
    began
        ``time.monotonic()`` at the start.
    resumed
        What did not have to be done again, in the fixed form of ``fit --json``.
    skipped
        What the budget left out, in words.
    seconds_of_pass
        How long the one pass takes over the development part.
    ledger
        What each stage was said to cost, and what it cost.
    health
        Of the gradients of the training, in the fixed form of ``fit --json``; ``None`` where nothing trained.
    calibration
        Of the probabilities, on examples that were not trained on.
    searched
        Marks ``(n,)`` of the examples by which the choice was made, see :func:`topgraft.objective.marks`: out
        of fold for a probe, on the validation part for a training.
    nested
        What models said that learned from other examples, where the final score is theirs.
    told_by
        What of the command a configuration file said.
    tracking
        Who is told what is found, beside the console.
    """

    ready: Prepared
    run: RunFolder
    plan: Plan
    store: Store
    console: Console
    began: float
    resumed: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds_of_pass: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    health: dict[str, Any] | None = None
    calibration: Calibration = NOT_CALIBRATED
    searched: Array = field(default_factory=lambda: np.zeros(0))
    nested: Nested | None = None
    told_by: Told | None = None
    tracking: Tracking = field(default_factory=Tracking)

    @property
    def settings(self) -> Settings:
        """As given."""
        return self.ready.settings

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return max(0.0, self.settings.budget - (time.monotonic() - self.began))

    @cached_property
    def costs(self) -> Costs:
        """What every forecast follows from: a short trial is run when it is first asked for.

        A killed run that goes on takes what its trial measured, so that no example passes for it again.
        """
        place, spent = self.run.work / SPEED, time.monotonic() - self.began
        known, decisions = speed_in(place), self.plan.decisions
        found = costs_for(self.ready, self.store, spent=spent, decisions=decisions, storing=True, speed=known)
        if known is None:
            write_json(place, asdict(found.speed))
        return found

    @contextmanager
    def spending(self, stage: str, *shelves: Shelf) -> Iterator[None]:
        """Note the time that a stage takes, what the process held at most, and by how much shelves grew."""
        before, began = sum(shelf.size() for shelf in shelves), time.monotonic()
        yield
        grown = {"disk": float(sum(shelf.size() for shelf in shelves) - before)} if shelves else {}
        most = memory_held()[1] or None
        self.ledger.spend(stage, seconds=time.monotonic() - began, memory=most, **grown)

    def note_reuse(self, stage: str, items: int, seconds: float) -> None:
        """Note what did not have to be done again, if anything."""
        self.resumed += reuse(stage, items, seconds)

    def views(self, keep: int, freeze: int) -> int:
        """How many changed views of each picture are stored beside it at a cut, which is decided once."""
        if not reads_views(self.ready.backbone, self.settings, keep, freeze):
            return 0

        def choose() -> tuple[int, str]:
            each = duration(self.costs.storing_views(freeze, 1).seconds)
            told = f"storing one view of each picture takes about {each}, {duration(self.left)} left"
            return self.costs.views(keep, freeze, self.left), told

        return self.plan.decide(f"views_at_{freeze}", choose)


def speed_in(place: Path) -> Speed | None:
    """What an earlier process of the same run measured; ``None`` where nothing whole is there.

    The examples that it stored then are not counted: they were there before this process began.
    """
    try:
        return replace(Speed(**read_json(place)), kept=0) if place.is_file() else None
    except (DamagedFile, TypeError):
        return None
