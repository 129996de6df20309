"""Run part of a network by its own forward code, with a stored state put in.

The network's forward runs as its authors wrote it. Modules that belong to earlier blocks are replaced by
placeholders that give back not-a-numbers of the right shape at no cost; at the cut the stored state takes the
place of what would have been computed; at the end of the part the run stops. Masks, positions and everything
else that comes from the inputs stay native. The not-a-numbers make a leak visible: if anything but the state
crossed the cut, the output would be poisoned, and the check at the making of the chain refuses the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from topgraft.chain.flow import name_of
from topgraft.chain.nesting import by_names, nested, tensors_in
from topgraft.chain.point import Place, Point, Shape
from topgraft.chain.pruning import is_skipped, is_sometimes_skipped
from topgraft.chain.running import RUN, Run, Stop, Tap
from topgraft.chain.state import Inputs, Pool, State


@dataclass
class _Events:
    """What happens when a module is entered and left in a segment."""

    name: str
    places: dict[tuple[str, int], list[tuple[int, int, Place]]] = field(default_factory=dict)
    cuts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    frames: bool = False

    def on_enter(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = RUN.get()
        if run is None:
            return None
        nth = run.counts[self.name] = run.counts.get(self.name, 0) + 1
        key = ("enter", nth)
        held: Any = (args, kwargs)
        if key in self.places:
            held = run.pass_by(self.places[key], held)
        for cut in self.cuts.get(key, ()):
            run.at(cut)
        if self.frames:
            run.frames.append((self.name, nth))
        return held

    def on_exit(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        run = RUN.get()
        if run is None:
            return None
        if self.frames:
            run.frames.pop()
        key = ("exit", run.counts[self.name])
        if key in self.places:
            output = run.pass_by(self.places[key], output)
        for cut in self.cuts.get(key, ()):
            run.at(cut)
        return output


class _Functions(TorchFunctionMode):
    """Counts the torch functions that the network's own code calls, where a state lies between modules."""

    def __init__(
        self, run: Run, places: Mapping[tuple[str, int, str, int], list[tuple[int, int, Place]]]
    ) -> None:
        super().__init__()
        self.run, self.places = run, places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        run = self.run
        if run.busy or not run.frames:
            return result
        key = (*run.frames[-1], name_of(func))
        op = run.ops[key] = run.ops.get(key, -1) + 1
        here = self.places.get((*key, op))
        return result if here is None else run.pass_by(here, result)


class Segment(nn.Module):
    """``chain[start:stop]``: a module from state to state, owning just the parameters of its blocks.

    Parameters
    ----------
    network
        The pruned network (see :func:`pruned`).
    points
        Every cut of the chain, input side first; cut 1 is ``points[0]``.
    start, stop
        The part runs from cut ``start`` (0: the network's inputs) to cut ``stop`` (None: to the network's
        own output, or to ``output`` where that is given).
    input_shapes
        The shapes of the network's inputs by name, in the order of its forward.
    output
        The point just before the old output layer, where the part without an end stops.
    taps
        By cut what is made of the state there and handed on: states at later cuts carry it behind their own
        activations, one tensor a tap.
    """

    def __init__(
        self,
        network: nn.Module,
        points: Sequence[Point],
        start: int,
        stop: int | None,
        *,
        input_shapes: Mapping[str, Shape],
        output: Point | None = None,
        taps: Mapping[int, Pool] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.taps = dict(taps or {})
        self.start, self.stop = start, stop
        self._cuts = len(points)
        self.input_shapes = dict(input_shapes)
        self._last = stop if stop is not None else (len(points) + 1 if output is not None else None)
        cuts = list(enumerate(points, start=1)) + ([(len(points) + 1, output)] if output is not None else [])
        wanted = [(c, p) for c, p in cuts if c >= start and (self._last is None or c <= self._last)]
        self.cuts = dict(wanted)
        """Where the cuts lie that a run of this part passes, both ends included."""
        self._places = {cut: point.places for cut, point in wanted}
        self._ops: dict[tuple[str, int, str, int], list[tuple[int, int, Place]]] = {}
        self._given: list[tuple[int, int, Place]] = []
        events: dict[str, _Events] = {}
        for cut, point in wanted:
            at = events.setdefault(point.module, _Events(point.module))
            at.cuts.setdefault((point.when, point.nth), []).append(cut)
            for number, place in ((n, p) for n, one in enumerate(point.places) for p in one):
                here = (cut, number, place)
                if place.when == "op":
                    key = (place.module, place.nth, place.function, place.op)
                    self._ops.setdefault(key, []).append(here)
                elif place.when == "input":
                    self._given.append(here)
                else:
                    at = events.setdefault(place.module, _Events(place.module))
                    at.places.setdefault((place.when, place.nth), []).append(here)
        self._listen(events)

    def _listen(self, events: dict[str, _Events]) -> None:
        """Hooks on the modules where something happens; on all where functions between modules matter."""
        for name, module in self.network.named_modules():
            if self._ops and not is_skipped(module):
                events.setdefault(name, _Events(name)).frames = True
            elif name not in events and not is_sometimes_skipped(module):
                continue
            at = events.setdefault(name, _Events(name))
            module.register_forward_pre_hook(at.on_enter, with_kwargs=True)
            module.register_forward_hook(at.on_exit)

    def extra_repr(self) -> str:
        """The part's place in its chain."""
        return f"start={self.start}, stop={self.stop}"

    def weights(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of this part under the names of the original network."""
        return dict(self.network.state_dict())

    def forward(self, given: State | Inputs | Tensor, *, tap: Tap | None = None) -> Any:
        """Run the part.

        Parameters
        ----------
        given
            A :class:`State` at cut ``start``, or the network's inputs (a mapping, or the one tensor) at 0.
        tap
            Called with the number and the state of every cut that is passed, the end included.

        Returns
        -------
        State or Tensor
            The state at ``stop``; without an end, what the network gives just before its output layer.
        """
        pooled = self._carried(given)
        if isinstance(given, State):
            given = State(given.tensors[: len(given.tensors) - len(pooled)], given.inputs)
            if self.start in self.taps:
                pooled[self.start] = self.taps[self.start](given)

        def passed(cut: int, state: State) -> None:
            if tap is not None:
                tap(cut, self._carrying(state, cut, pooled))
            if cut in self.taps:
                pooled[cut] = self.taps[cut](state)

        run = self._run(given, passed if self.taps else tap)
        token = RUN.set(run)
        try:
            with _Functions(run, self._ops) if self._ops else nullcontext():
                output = self.network(**nested(run.inputs))
        except Stop:
            output = None
        finally:
            RUN.reset(token)
        if run.result is None:
            if self._last is not None:
                raise RuntimeError(f"the run ended before cut {self._last} was reached")
            return first_tensor(output)
        if self.stop is None:
            return run.result.tensors[0]
        return self._carrying(run.result, self.stop, pooled) if self.taps else run.result

    def _carried(self, given: State | Inputs | Tensor) -> dict[int, Tensor]:
        """What a state that is given carries of the taps before it, by their cuts."""
        cuts = sorted(cut for cut in self.taps if cut < self.start)
        if not cuts or not isinstance(given, State):
            return {}
        if len(given.tensors) <= len(cuts):
            raise ValueError(f"the state carries nothing of the taps at cuts {cuts}")
        return dict(zip(cuts, given.tensors[-len(cuts) :], strict=True))

    def _carrying(self, state: State, cut: int, pooled: Mapping[int, Tensor]) -> State:
        """A state with what was made at the taps before it."""
        cuts = sorted(one for one in self.taps if one < cut)
        if missed := [one for one in cuts if one not in pooled]:
            raise RuntimeError(f"the run did not pass the taps at cuts {missed} on its way")
        return State((*state.tensors, *(pooled[one] for one in cuts)), state.inputs)

    def _run(self, given: State | Inputs | Tensor, tap: Tap | None) -> Run:
        if isinstance(given, Tensor):
            if len(self.input_shapes) != 1:
                names = ", ".join(self.input_shapes)
                raise TypeError(f"this network takes several inputs ({names}): give them by name")
            given = {next(iter(self.input_shapes)): given}
        if not isinstance(given, State):
            given = by_names(given, self.input_shapes)
            carried = {n: t for n, t in given.items() if not t.is_floating_point()}
            batch, like = open_size(next(iter(given.values())).shape[0]), self._like(given)
            run = Run(
                self.start,
                self._last,
                self._cuts,
                self._places,
                None,
                carried,
                given,
                like,
                batch,
                _length(carried),
                tap,
            )
            run.inputs = self._with_given(run)
            return run
        carried, like = dict(given.inputs), given.tensors[0]
        length = _length(carried)
        inputs = {
            name: carried[name] if name in carried else shape.poison(like, len(given), length)
            for name, shape in self.input_shapes.items()
            if name in carried or shape.dtype.is_floating_point
        }
        run = Run(
            self.start,
            self._last,
            self._cuts,
            self._places,
            given,
            carried,
            inputs,
            like,
            len(given),
            length,
            tap,
        )
        run.inputs = self._with_given(run)
        return run

    def _with_given(self, run: Run) -> Inputs:
        """The inputs, those that belong to a state put in or held."""
        inputs = dict(run.inputs)
        for cut, number, place in self._given:
            if cut == run.start and run.state is not None:
                inputs[place.module] = place.restored(run.state.tensors[number])
        for _, _, place in self._given:
            run.held[place] = inputs[place.module]
        return inputs

    def _like(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """A tensor whose device and floating-point precision the poison takes."""
        for tensor in (*inputs.values(), *self.parameters()):
            if tensor.is_floating_point():
                return tensor
        return next(iter(inputs.values())).new_empty((), dtype=torch.get_default_dtype())


def open_size(size: int | torch.SymInt) -> int:
    """A size as a plain number; one that ``torch.export`` leaves open stays open.

    Examples
    --------
    >>> open_size(torch.zeros(3, 2).shape[0])
    3
    """
    return cast("int", size) if isinstance(size, torch.SymInt) else int(size)


def _length(carried: Inputs) -> int:
    return next((open_size(t.shape[1]) for t in carried.values() if t.ndim > 1), 1)


def first_tensor(output: Any) -> Tensor:
    """The first tensor of a network's output, whatever holds it."""
    return next(tensor for _, tensor in tensors_in(output))
