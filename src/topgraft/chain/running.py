"""What one call of a part of a chain knows while the network's own forward runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from topgraft.chain.nesting import put, take
from topgraft.chain.point import Place
from topgraft.chain.state import Inputs, State

Tap = Callable[[int, State], None]
"""Called with the number of the cut and the state there."""


class Stop(Exception):
    """The end of the part has been reached."""


@dataclass
class Run:
    """What one call of a segment knows while the network's forward runs."""

    start: int
    stop: int | None
    cuts: int
    places: Mapping[int, tuple[tuple[Place, ...], ...]]
    state: State | None
    carried: Inputs
    inputs: Inputs
    like: Tensor
    batch: int
    length: int
    tap: Tap | None
    counts: dict[str, int] = field(default_factory=dict)
    frames: list[tuple[str, int]] = field(default_factory=list)
    ops: dict[tuple[str, int, str], int] = field(default_factory=dict)
    held: dict[Place, Tensor] = field(default_factory=dict)
    busy: bool = False
    result: State | None = None

    def pass_by(self, places: Iterable[tuple[int, int, Place]], held: Any) -> Any:
        """Put tensors of the stored state in, and hold those of later cuts.

        ``places`` are those of this event, each with its cut and its number in the state.
        """
        self.busy = True
        try:
            for cut, number, place in places:
                if cut == self.start and self.state is not None:
                    held = put(held, place.path, place.restored(self.state.tensors[number]))
            for cut, _, place in places:
                if cut > self.start or self.state is None:
                    self.held[place] = take(held, place.path)
        finally:
            self.busy = False
        return held

    def at(self, cut: int) -> None:
        """A cut is reached: hand the state out, or stop."""
        if cut < self.start or (cut == self.start and self.state is not None):
            return
        if missed := [one[0] for one in self.places[cut] if one[0] not in self.held]:
            if cut != self.stop:
                return
            raise RuntimeError(f"the run did not pass {missed[0].when} of {missed[0].module!r} on its way")
        self.busy = True
        state = State(tuple(one[0].stored(self.held[one[0]]) for one in self.places[cut]), self.carried)
        if self.tap is not None and cut <= self.cuts:
            self.tap(cut, state)
        self.busy = False
        if cut == self.stop:
            self.result = state
            raise Stop


RUN: ContextVar[Run | None] = ContextVar("topgraft_run", default=None)
