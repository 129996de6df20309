"""Make a chain: record a network, choose the cuts, prove each of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.chain.chain import Anatomy, Block, Called, Refused
from topgraft.chain.crossing import CannotCross, Crossed, Graph
from topgraft.chain.find import Group, Layout, block_name, has_parameters, is_listed_block, layout
from topgraft.chain.flow import Value
from topgraft.chain.nesting import flattened, rebuilt, take, tensors_in
from topgraft.chain.point import Dim, Place, Point, Shape
from topgraft.chain.record import Call, evaluating, record
from topgraft.chain.replay import Skip
from topgraft.chain.state import Inputs, State
from topgraft.errors import TopgraftError

TOLERANCE = 1e-5
"""Largest difference, relative to the output's scale, at which two runs count as equal in fp32."""
TOLERANCE_FP64 = 1e-12
"""The same in fp64, asked where fp32 is too noisy to tell."""


class Pair:
    """Two recordings of a network, of different batch sizes and lengths, and what follows from both."""

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        grown = _grown(inputs)
        self.network = network
        self.inputs = inputs
        try:
            self.first, self.second = record(network, inputs), record(network, grown)
        except TopgraftError:
            raise
        except Exception as error:
            given = ", ".join(f"{n} {tuple(t.shape)}" for n, t in inputs.items())
            raise TopgraftError(f"{type(network).__name__} does not run on {given}: {error}") from error
        if [c.name for c in self.first.calls()] != [c.name for c in self.second.calls()]:
            raise TopgraftError(
                f"{type(network).__name__} calls other modules when the batch size or the length changes, so "
                "its blocks can't be told. A network whose path does not depend on them is needed."
            )
        if len(self.first.flow.values) != len(self.second.flow.values):
            raise TopgraftError(
                f"{type(network).__name__} computes otherwise when the batch size or the length changes, so that "
                "its blocks can't be told. A network whose path does not depend on them is needed."
            )
        self.sizes = (_batch_and_length(inputs), _batch_and_length(grown))
        self.input_shapes = {name: self.shape(t, grown[name]) for name, t in inputs.items()}
        self.twin = {id(a): b for a, b in zip(self.first.calls(), self.second.calls(), strict=True)}
        output = next(iter(self.first.root.left.values()), None)
        if output is None:
            raise TopgraftError(f"{type(network).__name__} gives no tensor that depends on its inputs")
        self.graph = Graph(self.first, output, self.of_value)

    def shape(self, first: Tensor | Value, second: Tensor | Value) -> Shape:
        """The shape of a tensor that was seen in both recordings."""
        dims = tuple(self._dim(a, b) for a, b in zip(first.shape, second.shape, strict=True))
        return Shape(dims, first.dtype)

    def of_value(self, number: int) -> Shape:
        """The shape of a value."""
        return self.shape(self.first.flow.values[number], self.second.flow.values[number])

    def _dim(self, a: int, b: int) -> Dim:
        (batch_a, length_a), (batch_b, length_b) = self.sizes
        if a == b:
            return Dim(a)
        for batch, length in ((1, 0), (0, 1), (1, 1)):
            unit_a = (batch_a if batch else 1) * (length_a if length else 1)
            unit_b = (batch_b if batch else 1) * (length_b if length else 1)
            if a % unit_a == 0 and a // unit_a * unit_b == b:
                return Dim(a // unit_a, batch, length)
        return Dim(a)

    def shapes(self, call: Call) -> Any:
        """The shapes of what a call gives, in the same nesting."""
        return _pairwise(call.output, self.twin[id(call)].output, self.shape)

    def moment(self, point: Point) -> tuple[int, int, Call]:
        """When a point lies in the first recording, the multiply-adds until then, and its call."""
        for call in self.first.calls():
            if call.name == point.module and call.nth == point.nth:
                if point.when == "enter":
                    return call.start, call.macs_before, call
                return call.end, call.macs_after, call
        raise TopgraftError(f"this network has no module {point.module!r} that is called {point.nth} times")

    def state_shapes(self, point: Point) -> list[Shape]:
        """The shapes of the activations at a point, as the network has them."""
        return [self._shape_at(places[0]) for places in point.places]

    def _shape_at(self, place: Place) -> Shape:
        if place.when == "input":
            return self.input_shapes[place.module]
        call = next(c for c in self.first.calls() if (c.name, c.nth) == (place.module, place.nth))
        if place.when == "op":
            number = next(
                v.index
                for v in self.first.flow.values
                if (v.call, v.op, v.path) == (call.index, place.op, place.path)
            )
            return self.of_value(number)
        held = [(c.args, c.kwargs) if place.when == "enter" else c.output for c in (call, self.twin[id(call)])]
        return self.shape(take(held[0], place.path), take(held[1], place.path))


def by_name(network: nn.Module, example: Tensor | Inputs | Sequence[Tensor]) -> dict[str, Tensor]:
    """The example by the names of the network's own forward.

    Examples
    --------
    >>> sorted(by_name(nn.Linear(2, 1), torch.zeros(3, 2)))
    ['input']
    """
    if isinstance(example, Mapping):
        inputs = flattened(example)
    else:
        given = [example] if isinstance(example, Tensor) else list(example)
        names = [
            p.name
            for p in inspect.signature(network.forward).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if len(given) > len(names):
            raise TopgraftError(
                f"{len(given)} inputs given; {type(network).__name__} takes {', '.join(names)}"
            )
        inputs = dict(zip(names, given, strict=False))
    sizes = {t.shape[0] for t in inputs.values() if t.ndim}
    if len(sizes) != 1 or min(sizes) < 2:
        shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in inputs.items())
        raise TopgraftError(f"example: {shapes}; expected a batch of at least two examples, batch first")
    return inputs


def _batch_and_length(inputs: Inputs) -> tuple[int, int]:
    batch = int(next(iter(inputs.values())).shape[0])
    lengths = [int(t.shape[1]) for t in inputs.values() if not t.is_floating_point() and t.ndim > 1]
    return batch, lengths[0] if lengths else 1


def _grown(inputs: Inputs) -> dict[str, Tensor]:
    """One example more, and three steps more where the inputs are sequences of whole numbers."""
    longer = {
        n: torch.cat([t, t[:, -1:].expand(-1, 3, *t.shape[2:])], 1)
        if not t.is_floating_point() and t.ndim > 1
        else t
        for n, t in inputs.items()
    }
    return {n: torch.cat([t, t[:1]]) for n, t in longer.items()}


def _pairwise(a: Any, b: Any, shape: Any) -> Any:
    if isinstance(a, Tensor):
        return shape(a, b)
    if isinstance(a, Mapping):
        changed = copy.copy(a)
        for key, item in a.items():
            changed[key] = _pairwise(item, b[key], shape)  # type: ignore[index] (a copy that can be changed)
        return changed
    if isinstance(a, (tuple, list)):
        return rebuilt(a, [_pairwise(x, y, shape) for x, y in zip(a, b, strict=True)])
    return a


def anatomy(pair: Pair, found: Layout, points: Sequence[Point]) -> Anatomy:
    """Sort calls and reads by the cuts between which they fall."""
    graph = pair.graph
    moments = [pair.moment(p)[0] for p in points]
    before_output = None
    if found.output_layers:
        layer = found.output_layers[0]
        before_output = graph.crossed("enter", layer).point
        moments.append(layer.start)
    last = len(points) + 2

    def block_at(moment: float) -> int:
        return last if moment == inf else 1 + sum(m <= moment for m in moments)

    def placed(call: Call) -> Called:
        inner: dict[str, int] = {}
        children = tuple(placed(child) for child in call.children)
        for child in children:
            for one in child.all():
                inner[one.module] = inner.get(one.module, 0) + 1
        until = graph.runs_until[call.index]
        return Called(
            call.name,
            call.nth,
            begins=block_at(call.start),
            ends=1 + sum(m < call.end for m in moments),
            until=block_at(until) if until else 0,
            skip=Skip(pair.shapes(call), inner, written=graph.is_written(call)),
            children=children,
        )

    reads: dict[str, set[int]] = {
        name: set() for name, _ in (*pair.network.named_parameters(), *pair.network.named_buffers())
    }
    for name, times in pair.first.uses.items():
        reads[name] |= {block_at(m) for m in times}
    for value in graph.values:
        if value.reads and not graph.is_data[value.index] and (until := graph.until[value.index]):
            for name in value.reads:
                reads[name] |= set(range(block_at(value.time), block_at(until) + 1))
    blocks = {name: frozenset(some) for name, some in reads.items()}
    blocks |= {other: blocks[name] for other, name in _shared(pair.network).items()}
    return Anatomy(
        count=len(points),
        root=placed(pair.first.root),
        reads=blocks,
        inputs=pair.input_shapes,
        points=tuple(points),
        output=before_output,
    )


def _shared(network: nn.Module) -> dict[str, str]:
    """Per further name of a parameter or buffer that has several: the name under which its reads stand."""
    first = {id(t): name for name, t in (*network.named_parameters(), *network.named_buffers())}
    every = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    return {name: first[id(t)] for name, t in every if first[id(t)] != name}


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference between two tensors, relative to the larger scale; infinite for not-a-numbers.

    Examples
    --------
    >>> difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    0.2
    """
    if a.shape != b.shape:
        return inf
    if a.numel() == 0:
        return 0.0
    scale = max(float(a.abs().max()), float(b.abs().max()))
    gap = float((a.double() - b.double()).abs().max())
    if gap == 0.0:
        return 0.0
    return gap / scale if gap < inf and scale > 0 else inf


@dataclass
class _Runs:
    """The states at every candidate cut, from runs of the whole network."""

    batch: dict[Point, State]
    again: dict[Point, State]
    alone: dict[Point, State]
    output: Tensor


def _states(
    pair: Pair, found: Layout, points: Sequence[Point], inputs: Inputs
) -> tuple[dict[Point, State], Tensor]:
    """The state at every point, each copied before the network can change it in place, and the output."""
    states: dict[Point, State] = {}
    whole = anatomy(pair, found, points).segment(pair.network, 0, None, whole=True)
    with torch.no_grad(), evaluating(whole):
        output = whole(inputs, tap=lambda k, s: states.__setitem__(points[k - 1], s.map(torch.clone)))
    return states, output


def _proof(pair: Pair, found: Layout, point: Point, runs: _Runs) -> tuple[float, str]:
    """How far the rest of the network, run from the state, is from the network's output; why it failed."""
    try:
        rest = anatomy(pair, found, [point]).segment(pair.network, 1, None, whole=True)
        with torch.no_grad(), evaluating(rest):
            got = rest(runs.batch[point])
    except Exception as error:  # noqa: BLE001 (the network's own code may fail in any way: that is the finding)
        return inf, f"the rest of the network does not run from here ({type(error).__name__}: {error})"
    gap = difference(got, runs.output)
    return gap, "more than one activation crosses here" if gap == inf else f"the output differs by {gap:.1e}"


def _gives_output(pair: Pair, found: Layout) -> bool:
    """Whether the output follows from what enters the output layer that was found, and from nothing else."""
    try:
        point = anatomy(pair, found, []).output
    except CannotCross:
        return False
    if point is None or len(point.places) != 1:
        return False
    batch, output = _states(pair, found, [point], pair.inputs)
    return _proof(pair, found, point, _Runs(batch, batch, batch, output))[0] <= TOLERANCE


def _options(pair: Pair, group: Group, following: Group | None) -> tuple[list[Crossed], str]:
    """Where the cut after a block can lie, best first; why not, where it can't.

    Best is where the fewest activations cross, in the form that the block's last part with parameters gives;
    then where they are smallest; then the latest, the beginning of the next block, so that what is computed in
    between (adding positions) belongs to this block.
    """
    main = next((c for c in reversed(group.calls) if has_parameters(c.module)), group.calls[-1])
    moments = [("exit", c) for c in group.calls if c.index in (group.calls[-1].index, main.index)][::-1]
    if following is not None:
        moments.insert(0, ("enter", following.calls[0]))
    found: list[Crossed] = []
    reason = "no part of the network begins or ends here"
    for when, call in moments:
        try:
            found.append(pair.graph.crossed(when, call))
        except CannotCross as problem:
            reason = str(problem)
    form = _dims(pair, found[-1]) if found else []
    return sorted(found, key=lambda c: (len(c.values), _dims(pair, c) != form, c.size)), reason


def _dims(pair: Pair, crossed: Crossed) -> list[int]:
    return [len(pair.graph.values[v].shape) for v in crossed.values]


def _ends_a_block(pair: Pair, group: Group, crosseds: Sequence[Crossed]) -> bool:
    """Inside a block of the network's own lists several activations cross: that is no place for a cut."""
    single = any(len(crossed.values) == 1 for crossed in crosseds)
    return single or any(is_listed_block(call, pair.network) for call in group.calls)


def _choose(pair: Pair, found: Layout) -> tuple[list[Point], list[float], list[Refused]]:
    groups: list[Group | None] = [*found.groups, None]
    options = [_options(pair, g, after) for g, after in zip(found.groups, groups[1:], strict=True)]
    every = {crossed.point: crossed for crosseds, _ in options for crossed in crosseds}
    ordered = sorted(every, key=lambda p: pair.moment(p)[0])
    batch, output = _states(pair, found, ordered, pair.inputs)
    again, _ = _states(pair, found, ordered, pair.inputs)
    alone, _ = _states(pair, found, ordered, {n: t[:1] for n, t in pair.inputs.items()})
    runs = _Runs(batch, again, alone, output)
    points: list[Point] = []
    gaps: list[float] = []
    refused: list[Refused] = []
    for group, (crosseds, why) in zip(found.groups, options, strict=True):
        reasons = []
        if crosseds and not _ends_a_block(pair, group, crosseds):
            continue
        for crossed in crosseds:
            gap, reason = _check(pair, found, crossed.point, runs)
            if gap <= TOLERANCE:
                points.append(crossed.point)
                gaps.append(gap)
                break
            reasons.append(reason)
        else:
            refused.append(Refused(block_name(group, pair.first), reasons[0] if reasons else why))
    return points, gaps, refused


def _check(pair: Pair, found: Layout, point: Point, runs: _Runs) -> tuple[float, str]:
    gap, why = _proof(pair, found, point, runs)
    if gap > TOLERANCE:
        return gap, why
    states = runs.batch[point].tensors
    if (twice := _apart(runs.again[point].tensors, states)) > 0:
        return inf, f"two runs differ (by {twice:.1e})"
    apart = _apart(runs.alone[point].tensors, [t[:1] for t in states])
    if apart > TOLERANCE and not _equal_in_fp64(pair, found, point):
        return inf, f"an example alone differs from the same in a batch (by {apart:.1e})"
    return gap, ""


def _apart(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(difference(x, y) for x, y in zip(a, b, strict=True))


def _equal_in_fp64(pair: Pair, found: Layout, point: Point) -> bool:
    double = copy.deepcopy(pair.network).double()
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in pair.inputs.items()}
    whole = anatomy(pair, found, [point]).segment(double, 0, 1)
    with torch.no_grad(), evaluating(whole):
        batch, alone = whole(inputs), whole({n: t[:1] for n, t in inputs.items()})
    return _apart(alone.tensors, [t[:1] for t in batch.tensors]) <= TOLERANCE_FP64


def make(
    network: nn.Module,
    example: Tensor | Inputs | Sequence[Tensor],
    *,
    output_layer: str | None,
    points: Sequence[Point] | None,
) -> tuple[list[Block], Anatomy, list[Refused]]:
    """Blocks, anatomy and refused cuts of a network, see :meth:`topgraft.chain.chain.Chain.of`."""
    pair = Pair(network, by_name(network, example))
    found = layout(pair.first, output_layer)
    if output_layer is None and found.output_layers and not _gives_output(pair, found):
        found = layout(pair.first, "")
    refused: list[Refused] = []
    if points is None:
        points, gaps, refused = _choose(pair, found)
        if not points:
            tried = "; ".join(f"{r.block}: {r.reason}" for r in refused[:5])
            raise TopgraftError(
                f"no cut of {type(network).__name__} holds. Tried: {tried or 'no block was found'}"
            )
    else:
        gaps = [0.0] * len(points)
    body = anatomy(pair, found, points)
    return _blocks(pair, found, body, gaps), body, refused


def _blocks(pair: Pair, found: Layout, body: Anatomy, gaps: Sequence[float]) -> list[Block]:
    moments = [0, *(pair.moment(p)[0] for p in body.points)]
    macs = [0, *(pair.moment(p)[1] for p in body.points)]
    batch = pair.sizes[0][0]
    units = [c for group in found.groups for c in group.calls]
    owner = {name: min(blocks) for name, blocks in body.reads.items() if blocks}
    sizes: dict[int, int] = {}
    for name, parameter in pair.network.named_parameters():
        if name in owner:
            sizes[owner[name]] = sizes.get(owner[name], 0) + parameter.numel()
    blocks = []
    for index, point in enumerate(body.points, start=1):
        mine = Group([c for c in units if moments[index - 1] <= c.start < moments[index]] or [units[-1]])
        main = next((c for c in mine.calls if has_parameters(c.module)), mine.calls[0])
        shapes = [s.of_state() for s in pair.state_shapes(point)]
        blocks.append(
            Block(
                index=index,
                name=block_name(mine, pair.first),
                kind=type(main.module).__name__,
                shape=_sizes(shapes[0]),
                layout="+".join(_layout(shape) for shape in shapes),
                parameters=sizes.get(index, 0),
                macs=(macs[index] - macs[index - 1]) // batch,
                verified=True,
                difference=gaps[index - 1],
                others=tuple(_sizes(shape) for shape in shapes[1:]),
            )
        )
    return blocks


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if d.length else d.factor for d in shape.dims[1:])


def _layout(shape: Shape) -> str:
    sizes = [d.factor for d in shape.dims[1:]]
    if len(sizes) == 3:
        return "map_last" if sizes[0] == sizes[1] != sizes[2] else "map"
    return {1: "vector", 2: "tokens"}.get(len(sizes), "map" if len(sizes) > 3 else "vector")
