"""What crosses a moment of a run: the smallest set of activations from which the rest can be computed.

The run is a graph of values. At a moment everything that was made before and is needed after crosses it; what
the network's own code makes anew at no cost when the rest is replayed (constants, masks that follow from the
inputs, views and sums between blocks) need not be stored. What is left is a smallest vertex cut, weighed by
size (Ford & Fulkerson 1956).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf

import networkx as nx

from topgraft.chain.flow import CHANGED, FUNCTION, INPUT, Value
from topgraft.chain.point import Place, Point, Shape
from topgraft.chain.record import Call, Recording

FORMS = frozenset(
    {"view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze", "unsqueeze"}
    | {"contiguous", "view_as", "t", "__get__", "to"}
)
"""Functions that give the same numbers in another form."""


@dataclass(frozen=True)
class Crossed:
    """What crosses a moment.

    Parameters
    ----------
    values
        Numbers of the values that make up the state, the largest first, the latest of equal ones.
    point
        The moment and where each of the values is put in.
    size
        Numbers an example.
    """

    values: tuple[int, ...]
    point: Point
    size: int


class CannotCross(Exception):
    """No set of activations that can be stored carries a run over a moment; the text says why."""


class Graph:
    """A recorded run, sorted by what depends on the examples and what is needed for the output.

    Parameters
    ----------
    recording
        Of the run.
    output
        Number of the value that the network gives (its first tensor).
    shape
        Of a value as the batch size and the length vary.
    """

    def __init__(self, recording: Recording, output: int, shape: Callable[[int], Shape]) -> None:
        self.values = recording.flow.values
        self.calls = sorted(recording.calls(), key=lambda c: c.index)
        self.parent = {child.index: call for call in self.calls for child in call.children}
        self.output, self.shape = output, shape
        self._left_out: dict[float, list[Call]] = {}
        self.asked = recording.flow.asked
        self.consumers: list[list[int]] = [[] for _ in self.values]
        for value in self.values:
            for source in value.made_from:
                self.consumers[source].append(value.index)
        self.is_data = self._classify()
        self.needed = recording.flow.ancestors([output])

    def _classify(self) -> list[bool]:
        """Per value whether it depends on the examples in a way that costs something to compute again.

        Inputs of whole numbers travel with the state, and what follows from them without parameters is made
        anew from them; so is what follows from shapes, parameters or nothing.
        """
        given: list[bool] = []
        data: list[bool] = []
        for value in self.values:
            if value.kind == INPUT:
                given.append(True)
                data.append(value.dtype.is_floating_point)
                continue
            from_given = any(given[s] for s in value.made_from)
            from_data = any(data[s] for s in value.made_from)
            reads = bool(value.reads) or (value.kind not in (FUNCTION, CHANGED) and from_given)
            given.append(from_given)
            data.append(from_data or (from_given and reads))
        return data

    def uses(self, value: int) -> Iterable[int]:
        """The values that are made from this one on the way to the output."""
        return (c for c in self.consumers[value] if c in self.needed)

    @cached_property
    def last_use(self) -> list[float]:
        """Per value the time of its last use on the way to the output."""
        last = [float(max((self.values[c].time for c in self.uses(v.index)), default=0)) for v in self.values]
        last[self.output] = inf
        return last

    @cached_property
    def until(self) -> list[float]:
        """Per value that is made anew: the last time at which anything that is not needs it."""
        until = [0.0] * len(self.values)
        for value in reversed(self.values):
            if self.is_data[value.index] or value.index not in self.needed:
                continue
            times = [until[c] if not self.is_data[c] else self.values[c].time for c in self.uses(value.index)]
            until[value.index] = max(times, default=0.0) if value.index != self.output else inf
        return until

    @cached_property
    def inside(self) -> list[int]:
        """Per call the number of the last call inside it (itself where there is none)."""
        last = [c.index for c in self.calls]
        for call in reversed(self.calls):
            for child in call.children:
                last[call.index] = max(last[call.index], last[child.index])
        return last

    @cached_property
    def runs_until(self) -> list[float]:
        """Per call the time until which its own code must run although it is over.

        It does where something that is made anew, or that it does not hand out, is used later.
        """
        times = [0.0] * len(self.calls)
        for value in self.values:
            if value.index not in self.needed or value.call < 0:
                continue
            free = not self.is_data[value.index]
            end = self.until[value.index] if free else self.last_use[value.index]
            call: Call | None = self.calls[value.call]
            while call is not None and end > call.end:
                if free or value.index not in call.left.values():
                    times[call.index] = max(times[call.index], end)
                call = self.parent.get(call.index)
        return times

    def runs(self, call: Call | None, time: float) -> bool:
        """Whether a call's own code runs when the run is replayed from ``time`` on."""
        if call is None:
            return True
        if call.end > time:
            return True
        return self.runs_until[call.index] > time and self.runs(self.parent.get(call.index), time)

    @cached_property
    def _written(self) -> set[int]:
        """Numbers of values whose memory a function changes later."""
        return {s for v in self.values if v.kind == CHANGED and v.name for s in v.made_from}

    def matters(self, call: Call) -> bool:
        """Whether anything that is made in a call has a say in the output."""
        last = self.inside[call.index]
        made = (v for v in self.values if call.index <= v.call <= last)
        return any(v.index in self.needed for v in made) or not call.left

    def is_written(self, call: Call) -> bool:
        """Whether what a call gives is changed in place after it."""
        last = self.inside[call.index]
        return any(
            any(
                not call.index <= self.values[c].call <= last
                for c in self.consumers[v]
                if self.values[c].kind == CHANGED
            )
            for v in self._written.intersection(call.left.values())
        )

    def crossed(self, when: str, call: Call) -> Crossed:
        """The smallest state at the beginning (``enter``) or end (``exit``) of a call.

        Raises
        ------
        CannotCross
            If what crosses can't be stored or put in again.
        """
        time = call.start if when == "enter" else call.end
        for asked in self.asked:
            decides = asked.time < time and self.is_data[asked.value]
            if decides and self.runs(self.calls[asked.call] if asked.call >= 0 else None, time):
                raise CannotCross(f"code before it goes by the numbers of an activation ({asked.line})")
        live = [
            v.index
            for v in self.values
            if v.time <= time
            and self.is_data[v.index]
            and v.index in self.needed
            and self.last_use[v.index] > time
        ]
        entered = call if when == "enter" else None
        chosen = self._smallest(live, time, entered)
        chosen = list({self._in_its_form(v, time, entered) for v in chosen})
        chosen.sort(key=lambda v: (self.values[v].numel, v), reverse=True)
        places = tuple(self._places(v, time, entered) for v in chosen)
        size = sum(self.values[v].numel for v in chosen)
        return Crossed(tuple(chosen), Point(call.name, when, call.nth, places), size)

    def _is_free(self, value: Value, time: float) -> bool:
        """Whether the network's own code makes the value anew from others when the rest is replayed."""
        if value.kind not in (FUNCTION, CHANGED) or value.reads:
            return False
        return value.call < 0 or self.runs(self.calls[value.call], time)

    def _smallest(self, live: list[int], time: float, entered: Call | None) -> list[int]:
        region, todo = set(live), list(live)
        while todo:
            value = self.values[todo.pop()]
            if self._is_free(value, time):
                for source in value.made_from:
                    if self.is_data[source] and source not in region:
                        region.add(source)
                        todo.append(source)
        if not live:
            raise CannotCross("nothing that depends on the examples crosses here")
        problems = {v: why for v in region if (why := self._problem(v, time, entered))}
        if len(region) == 1 and not problems:
            return live
        graph = nx.DiGraph()
        for v in region:
            capacity = {} if v in problems else {"capacity": self.values[v].numel}
            graph.add_edge((v, "in"), (v, "out"), **capacity)
            sources = [s for s in self.values[v].made_from if s in region]
            if not (self._is_free(self.values[v], time) and sources):
                graph.add_edge("begin", (v, "in"))
            else:
                for source in sources:
                    graph.add_edge((source, "out"), (v, "in"))
        for v in live:
            graph.add_edge((v, "out"), "end")
        try:
            _, (far, near) = nx.minimum_cut(graph, "begin", "end")  # the cut that is nearest to the end
        except nx.NetworkXUnbounded:
            raise CannotCross("; ".join(dict.fromkeys(problems[v] for v in problems))) from None
        return [v for v in region if (v, "in") in far and (v, "out") in near]

    def _in_its_form(self, value: int, time: float, entered: Call | None) -> int:
        """Back over functions that only change the form, to what a block gave."""
        best, now = value, self.values[value]
        while now.name in FORMS and self._is_free(now, time):
            sources = [s for s in now.made_from if self.is_data[s]]
            if len(sources) != 1 or self.values[sources[0]].numel != now.numel:
                break
            now = self.values[sources[0]]
            if len(now.shape) != len(self.values[value].shape) and not self._problem(
                now.index, time, entered
            ):
                best = now.index
        return best

    def _problem(self, value: int, time: float, entered: Call | None) -> str:
        """Why a value can't be stored and put in again; empty if it can."""
        where = self.calls[self.values[value].call].name if self.values[value].call >= 0 else ""
        what = f"what {self.values[value].name or 'hidden code'} gives in {where or 'the network'}"
        if self.shape(value).batch_axis is None:
            return f"{what} is not one row an example: {tuple(self.values[value].shape)}"
        try:
            self._places(value, time, entered)
        except CannotCross as problem:
            return f"{what} {problem}"
        return ""

    def _places(self, number: int, time: float, entered: Call | None) -> tuple[Place, ...]:
        value = self.values[number]
        axis, fold = self.shape(number).batch_axis or (0, 1)
        if entered is not None:
            path = next((p for p, v in entered.entered.items() if v == number), None)
            later = [self.values[c].time for c in self.uses(number) if self.values[c].time > time]
            if path is not None and all(t < entered.end for t in later):
                return (Place("enter", entered.name, entered.nth, path, axis=axis, fold=fold),)
        if value.kind == INPUT:
            return (Place("input", value.name, 1, (), axis=axis, fold=fold),)
        handed_out = tuple(
            Place("exit", call.name, call.nth, path, axis=axis, fold=fold)
            for call in self.left_out(time)
            for path, v in call.left.items()
            if v == number
        )
        frame = self.calls[value.call]
        if not self.runs(frame, time):
            if not handed_out or not any(self._within(frame, p) for p in handed_out):
                raise CannotCross("is used later but not handed out")
            return handed_out
        if value.kind != FUNCTION:
            raise CannotCross("is changed in place" if value.kind == CHANGED else "can't be watched")
        made = Place("op", frame.name, frame.nth, value.path, value.op, axis, fold, value.name)
        return (made, *handed_out)

    def _within(self, frame: Call, place: Place) -> bool:
        call: Call | None = frame
        while call is not None:
            if (call.name, call.nth) == (place.module, place.nth):
                return True
            call = self.parent.get(call.index)
        return False

    def left_out(self, time: float) -> list[Call]:
        """The outermost calls that do not run when the run is replayed from ``time`` on, in their order."""
        if time not in self._left_out:
            found, todo = [], list(reversed(self.calls[0].children))
            while todo:
                call = todo.pop()
                if call.start > time:
                    continue
                if self.runs(call, time):
                    todo.extend(reversed(call.children))
                else:
                    found.append(call)
            self._left_out = {time: found}
        return self._left_out[time]
