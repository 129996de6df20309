"""Run part of a network by its own forward code, with a stored state put in.

The network's forward runs as its authors wrote it. Modules that belong to earlier blocks are replaced by
placeholders that give back not-a-numbers of the right shape at no cost; at the cut the stored state takes the
place of what would have been computed; at the end of the part the run stops. Masks, positions and everything
else that comes from the inputs stay native. The not-a-numbers make a leak visible: if anything but the state
crossed the cut, the output would be poisoned, and the check at the making of the chain refuses the cut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from topgraft.chain.flow import name_of
from topgraft.chain.nesting import Path, by_names, mapped, nested, put, take, tensors_in
from topgraft.chain.point import Place, Point, Shape
from topgraft.chain.state import Inputs, State

Tap = Callable[[int, State], None]
"""Called with the number of the cut and the state there."""


class _Stop(Exception):
    """The end of the part has been reached."""


@dataclass
class _Run:
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
            raise _Stop


_RUN: ContextVar[_Run | None] = ContextVar("topgraft_run", default=None)


@dataclass
class _Events:
    """What happens when a module is entered and left in a segment."""

    name: str
    places: dict[tuple[str, int], list[tuple[int, int, Place]]] = field(default_factory=dict)
    cuts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    frames: bool = False

    def on_enter(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = _RUN.get()
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
        run = _RUN.get()
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
        self, run: _Run, places: Mapping[tuple[str, int, str, int], list[tuple[int, int, Place]]]
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


@dataclass(frozen=True)
class Skip:
    """One call that is left out.

    Parameters
    ----------
    shapes
        What it gives, with shapes in place of tensors.
    inside
        How often the call calls each module inside it.
    through
        Where it gives what it was given (paths in what it gives, and into its arguments).
    written
        Whether the network later changes what the call gives in place, so that it needs memory of its own.
    """

    shapes: Any
    inside: Mapping[str, int] = field(default_factory=dict)
    through: Mapping[Path, Path] = field(default_factory=dict)
    written: bool = False


def skipped(original: nn.Module, skip: Skip) -> nn.Module:
    """What stands where a block was that does not belong to a part: poison of the right shape, at no cost.

    It is still of the original's class, with the original's settings and methods, since the network around
    it may ask for them; it has no parameters, buffers or submodules. In their place are poison and further
    stubs, since the network may look at their precision or size.
    """
    stub = type(original).__new__(type(original))
    state = dict(vars(original))
    for name, value in state.items():
        if name in ("_parameters", "_buffers", "_modules") or name.endswith("_hooks"):
            state[name] = type(value)()
    state["_non_persistent_buffers_set"] = set()
    for name, tensor in (*original._parameters.items(), *original._buffers.items()):
        state[name] = None if tensor is None else _poison_like(tensor)
    for name, module in original._modules.items():
        state[name] = None if module is None else skipped(module, Skip(None))
    stub.__dict__.update(state)
    stub.__dict__["forward"] = partial(_give_poison, skip)
    if (some := next(original.parameters(), None)) is not None:
        stub.__dict__["parameters"] = partial(_stand_ins, _poison_like(some))
    stub.__dict__["extra_repr"] = partial(str, "not in this part")
    return stub


def _stand_ins(like: Tensor, *_recurse: Any) -> Iterator[Tensor]:
    """In place of ``parameters()`` of a module that has none in a part: networks ask for their precision."""
    run = _RUN.get()
    yield like.to(run.like) if run is not None and run.like.is_floating_point() else like


def _poison_like(tensor: Tensor) -> Tensor:
    fill = float("nan") if tensor.is_floating_point() else 0
    return torch.full((), fill, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def _give_poison(given: Skip, *args: Any, **kwargs: Any) -> Any:
    run = _RUN.get()
    if run is None:
        raise RuntimeError("A part of a chain runs through its segment, not by itself.")
    for name, calls in given.inside.items():
        run.counts[name] = run.counts.get(name, 0) + calls
    run.busy = True
    poison = mapped(given.shapes, lambda leaf: _poisoned(leaf, run))
    if given.written:
        poison = mapped(poison, lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf)
    run.busy = False
    for out, into in given.through.items():
        poison = put(poison, out, take((args, kwargs), into))
    return poison


def _poisoned(leaf: Any, run: _Run) -> Any:
    return leaf.poison(run.like, run.batch, run.length) if isinstance(leaf, Shape) else leaf


def is_skipped(module: nn.Module) -> bool:
    """Whether :func:`skipped` made the module."""
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _give_poison


def _sometimes(module: nn.Module, name: str, skips: Mapping[int, Skip], *args: Any, **kwargs: Any) -> Any:
    """A module that is called in several blocks: poison where it is called before the part."""
    run = _RUN.get()
    skip = None if run is None else skips.get(run.counts.get(name, 0))
    if skip is not None:
        return _give_poison(skip, *args, **kwargs)
    return type(module).forward(module, *args, **kwargs)


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
    ) -> None:
        super().__init__()
        self.network = network
        self.start, self.stop = start, stop
        self._cuts = len(points)
        self.input_shapes = dict(input_shapes)
        self._last = stop if stop is not None else (len(points) + 1 if output is not None else None)
        cuts = list(enumerate(points, start=1)) + ([(len(points) + 1, output)] if output is not None else [])
        wanted = [(c, p) for c, p in cuts if c >= start and (self._last is None or c <= self._last)]
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
            elif name not in events and not _sometimes_skipped(module):
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
        run = self._run(given, tap)
        token = _RUN.set(run)
        try:
            with _Functions(run, self._ops) if self._ops else nullcontext():
                output = self.network(**nested(run.inputs))
        except _Stop:
            output = None
        finally:
            _RUN.reset(token)
        if run.result is None:
            if self._last is not None:
                raise RuntimeError(f"the run ended before cut {self._last} was reached")
            return first_tensor(output)
        return run.result if self.stop is not None else run.result.tensors[0]

    def _run(self, given: State | Inputs | Tensor, tap: Tap | None) -> _Run:
        if isinstance(given, Tensor):
            if len(self.input_shapes) != 1:
                names = ", ".join(self.input_shapes)
                raise TypeError(f"this network takes several inputs ({names}): give them by name")
            given = {next(iter(self.input_shapes)): given}
        if not isinstance(given, State):
            given = by_names(given, self.input_shapes)
            carried = {n: t for n, t in given.items() if not t.is_floating_point()}
            batch, like = int(next(iter(given.values())).shape[0]), self._like(given)
            run = _Run(
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
        run = _Run(
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

    def _with_given(self, run: _Run) -> Inputs:
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


def _length(carried: Inputs) -> int:
    return next((int(t.shape[1]) for t in carried.values() if t.ndim > 1), 1)


def first_tensor(output: Any) -> Tensor:
    """The first tensor of a network's output, whatever holds it."""
    return next(tensor for _, tensor in tensors_in(output))


_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size, type, FunctionType)


def _copied(network: nn.Module) -> nn.Module:
    """A copy of the module tree that shares parameters and buffers; many times faster than ``deepcopy``."""
    memo: dict[int, Any] = {id(t): t for t in (*network.parameters(), *network.buffers())}
    modules = list(network.modules())
    memo |= {id(module): type(module).__new__(type(module)) for module in modules}
    for module in modules:
        state = memo[id(module)].__dict__
        for name, value in vars(module).items():
            if name == "_modules":
                state[name] = {n: None if m is None else memo[id(m)] for n, m in value.items()}
            elif name in ("_parameters", "_buffers") or (name.endswith("_hooks") and not value):
                state[name] = copy.copy(value)
            else:
                state[name] = value if isinstance(value, _PLAIN) else copy.deepcopy(value, memo)
    return memo[id(network)]  # type: ignore[no-any-return]


def _sometimes_skipped(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _sometimes


def pruned(
    network: nn.Module,
    *,
    skip: Mapping[str, Skip],
    absent: Iterable[str],
    sometimes: Mapping[str, Mapping[int, Skip]] | None = None,
) -> nn.Module:
    """A copy of the module tree that shares parameters and buffers and lacks what is skipped.

    Parameters
    ----------
    network
        The original; it is not changed.
    skip
        Module names that become what :func:`skipped` makes.
    absent
        Parameters and buffers by name that this part never reads in earnest; poison stands in their place.
    sometimes
        Module names of which just some calls are left out, by their number.
    """
    result = _copied(network)
    by_id: dict[int, Any] = {}
    modules = dict(result.named_modules(remove_duplicate=False))
    for name, left_out in skip.items():
        by_id[id(modules[name])] = skipped(modules[name], left_out)
    for name, by_call in (sometimes or {}).items():
        module = modules[name]
        module.__dict__["forward"] = partial(_sometimes, module, name, dict(by_call))
    for module in list(modules.values()):
        for child_name, child in list(module._modules.items()):
            if child is not None and id(child) in by_id:
                module._modules[child_name] = by_id[id(child)]
    remaining = dict(result.named_modules(remove_duplicate=False))
    for full in absent:
        owner_name, _, own = full.rpartition(".")
        owner = remaining.get(owner_name)
        if owner is None or is_skipped(owner):
            continue
        tensor = owner._parameters.pop(own, None)
        if tensor is None:
            tensor = owner._buffers.pop(own, None)
        if tensor is not None:
            owner.register_buffer(own, _poison_like(tensor), persistent=False)
    for name, module in network.named_modules(remove_duplicate=False):
        left = remaining.get(name)
        some = next(module.parameters(), None)
        if left is not None and some is not None and next(left.parameters(), None) is None:
            left.__dict__["parameters"] = partial(_stand_ins, _poison_like(some))
    return result
