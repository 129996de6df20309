"""Run part of a network by its own forward code, with a stored state put in.

The network's forward runs as its authors wrote it. Modules that belong to earlier blocks are replaced by
placeholders that give back not-a-numbers of the right shape at no cost; at the cut the stored state takes the
place of what would have been computed; at the end of the part the run stops. Masks, positions and everything
else that comes from the inputs stay native. The not-a-numbers make a leak visible: if anything but the state
crossed the cut, the output would be poisoned, and the check at the making of the chain refuses the cut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.chain.record import Path, put, take, tensors_in
from topgraft.chain.state import Inputs, State

Tap = Callable[[int, State], None]
"""Called with the number of the cut and the state there."""


@dataclass(frozen=True)
class Point:
    """A moment of the run at which a cut lies: the ``nth`` call of a module begins or ends.

    ``paths`` lead to the tensors of the state: inside ``(args, kwargs)`` for ``enter``, inside the output
    for ``exit``.
    """

    module: str
    when: str
    nth: int
    paths: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """The point as plain JSON."""
        return {
            "module": self.module,
            "when": self.when,
            "nth": self.nth,
            "paths": [list(p) for p in self.paths],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Point:
        """The point that :meth:`to_json` wrote."""
        if value["when"] not in ("enter", "exit"):
            raise ValueError(f"a cut lies where a module is entered or left, not {value['when']!r}")
        paths = tuple(tuple(p) for p in value["paths"])
        return cls(str(value["module"]), str(value["when"]), int(value["nth"]), paths)


@dataclass(frozen=True)
class Dim:
    """A size as a multiple of the batch size and of the inputs' length: ``factor * batch**b * length**l``."""

    factor: int
    batch: int = 0
    length: int = 0

    def size(self, batch: int, length: int) -> int:
        """The size for a batch of ``batch`` examples of ``length`` steps.

        Examples
        --------
        >>> Dim(12, batch=1).size(batch=3, length=7)
        36
        """
        return self.factor * (batch if self.batch else 1) * (length if self.length else 1)


@dataclass(frozen=True)
class Shape:
    """The sizes of a tensor as the batch and the length vary, and whether it holds whole numbers."""

    dims: tuple[Dim, ...]
    dtype: torch.dtype

    def poison(self, like: Tensor, batch: int, length: int) -> Tensor:
        """Not-a-numbers of this shape on the device and in the precision of ``like``; one number in all."""
        if self.dtype.is_floating_point or self.dtype.is_complex:
            one = torch.full((), float("nan"), dtype=like.dtype, device=like.device)
        else:
            one = torch.zeros((), dtype=self.dtype, device=like.device)
        return one.expand(tuple(d.size(batch, length) for d in self.dims))


class _Stop(Exception):
    """The end of the part has been reached."""


@dataclass
class _Run:
    """What one call of a segment knows while the network's forward runs."""

    start: int
    stop: int | None
    cuts: int
    state: State | None
    carried: Inputs
    inputs: Inputs
    like: Tensor
    batch: int
    length: int
    tap: Tap | None
    counts: dict[str, int] = field(default_factory=dict)
    result: State | None = None

    def at(self, cut: int, held: Any, paths: tuple[Path, ...]) -> Any:
        """Put the stored state in, hand the state out, or stop."""
        if cut < self.start:
            return held
        if cut == self.start and self.state is not None:
            for path, tensor in zip(paths, self.state.tensors, strict=True):
                held = put(held, path, tensor)
            return held
        state = State(tuple(take(held, path) for path in paths), self.carried)
        if self.tap is not None and cut <= self.cuts:
            self.tap(cut, state)
        if cut == self.stop:
            self.result = state
            raise _Stop
        return held


_RUN: ContextVar[_Run | None] = ContextVar("topgraft_run", default=None)


def _count(name: str, when: str) -> int:
    run = _RUN.get()
    if run is None:
        return 0
    key = f"{when} {name}"
    run.counts[key] = run.counts.get(key, 0) + 1
    return run.counts[key]


def _on_enter(
    points: Sequence[tuple[int, Point]],
    _module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    nth = _count(points[0][1].module, "enter")
    run = _RUN.get()
    if run is None:
        return None
    held: Any = (args, kwargs)
    for cut, point in points:
        if point.nth == nth:
            held = run.at(cut, held, point.paths)
    return held


def _on_exit(points: Sequence[tuple[int, Point]], _module: nn.Module, _args: Any, output: Any) -> Any:
    nth = _count(points[0][1].module, "exit")
    run = _RUN.get()
    if run is None:
        return None
    for cut, point in points:
        if point.nth == nth:
            output = run.at(cut, output, point.paths)
    return output


def skipped(original: nn.Module, shapes: Any) -> nn.Module:
    """What stands where a block was that does not belong to a part: poison of the right shape, at no cost.

    It is still of the original's class, with the original's settings and methods, since the network around
    it may ask for them; it has no parameters, buffers or submodules.
    """
    stub = type(original).__new__(type(original))
    state = dict(vars(original))
    for name, value in state.items():
        if name in ("_parameters", "_buffers", "_modules") or name.endswith("_hooks"):
            state[name] = type(value)()
    state["_non_persistent_buffers_set"] = set()
    stub.__dict__.update(state)
    stub.__dict__["forward"] = partial(_give_poison, shapes)
    stub.__dict__["extra_repr"] = partial(str, "not in this part")
    return stub


def _give_poison(shapes: Any, *_args: Any, **_kwargs: Any) -> Any:
    run = _RUN.get()
    if run is None:
        raise RuntimeError("A part of a chain runs through its segment, not by itself.")
    return _poisoned(shapes, run)


def _is_skipped(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), partial)


def _poisoned(shapes: Any, run: _Run) -> Any:
    if isinstance(shapes, Shape):
        return shapes.poison(run.like, run.batch, run.length)
    if isinstance(shapes, dict):
        return {key: _poisoned(item, run) for key, item in shapes.items()}
    if isinstance(shapes, (tuple, list)):
        items = [_poisoned(item, run) for item in shapes]
        return items if isinstance(shapes, list) else tuple(items)
    return shapes


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
        present = dict(network.named_modules())
        wanted: dict[tuple[str, str], list[tuple[int, Point]]] = {}
        for cut, point in cuts:
            if cut >= start and (self._last is None or cut <= self._last):
                wanted.setdefault((point.module, point.when), []).append((cut, point))
        for (name, when), here in wanted.items():
            module = present[name]
            if when == "enter":
                module.register_forward_pre_hook(partial(_on_enter, here), with_kwargs=True)
            else:
                module.register_forward_hook(partial(_on_exit, here))

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
            output = self.network(**run.inputs)
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
            carried = {n: t for n, t in given.items() if not t.is_floating_point()}
            batch, like = int(next(iter(given.values())).shape[0]), self._like(given)
            return _Run(
                self.start, self._last, self._cuts, None, carried, given, like, batch, _length(carried), tap
            )
        carried, like = dict(given.inputs), given.tensors[0]
        length = _length(carried)
        inputs = {
            name: carried[name] if name in carried else shape.poison(like, len(given), length)
            for name, shape in self.input_shapes.items()
            if name in carried or shape.dtype.is_floating_point
        }
        return _Run(self.start, self._last, self._cuts, given, carried, inputs, like, len(given), length, tap)

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


def pruned(
    network: nn.Module,
    *,
    skip: Mapping[str, Any],
    absent: Iterable[str],
) -> nn.Module:
    """A copy of the module tree that shares parameters and buffers and lacks what is skipped.

    Parameters
    ----------
    network
        The original; it is not changed.
    skip
        Module names that become what :func:`skipped` makes, each with the shapes of its output.
    absent
        Parameters and buffers by name that this part never reads in earnest; poison stands in their place.
    """
    memo: dict[int, Any] = {id(t): t for t in (*network.parameters(), *network.buffers())}
    result = copy.deepcopy(network, memo)
    by_id: dict[int, Any] = {}
    modules = dict(result.named_modules(remove_duplicate=False))
    for name, shapes in skip.items():
        by_id[id(modules[name])] = skipped(modules[name], shapes)
    for module in list(modules.values()):
        for child_name, child in list(module._modules.items()):
            if child is not None and id(child) in by_id:
                module._modules[child_name] = by_id[id(child)]
    remaining = dict(result.named_modules(remove_duplicate=False))
    for full in absent:
        owner_name, _, own = full.rpartition(".")
        owner = remaining.get(owner_name)
        if owner is None or _is_skipped(owner):
            continue
        tensor = owner._parameters.pop(own, None)
        if tensor is None:
            tensor = owner._buffers.pop(own, None)
        if tensor is not None:
            fill = float("nan") if tensor.is_floating_point() else 0
            poison = torch.full((), fill, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)
            owner.register_buffer(own, poison, persistent=False)
    return result
