"""Make a chain: record a network, choose the cuts, prove each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from topgraft.chain.anatomy import Anatomy, anatomy
from topgraft.chain.block import Block, Refused
from topgraft.chain.crossing import CannotCross, Crossed
from topgraft.chain.find import (
    Group,
    Layout,
    block_name,
    ends_sequence,
    has_parameters,
    is_listed_block,
    layout,
)
from topgraft.chain.nesting import nested
from topgraft.chain.pair import Pair
from topgraft.chain.point import Point, Shape
from topgraft.chain.proof import TOLERANCE, Runs, check, difference, proof, states, without_the_unused
from topgraft.chain.record import Call, evaluating
from topgraft.chain.recurrent import layered
from topgraft.chain.replay import first_tensor
from topgraft.chain.state import Inputs
from topgraft.errors import TopgraftError


def _gives_output(pair: Pair, found: Layout) -> bool:
    """Whether the output follows from what enters the output layer that was found, and from nothing else."""
    try:
        point = anatomy(pair, found, []).output
    except CannotCross:
        return False
    if point is None or len(point.places) != 1:
        return False
    batch, output = states(pair, found, [point], pair.inputs)
    return proof(pair, found, point, Runs(batch, batch, batch, output))[0] <= TOLERANCE


def _options(pair: Pair, group: Group, following: Call | None) -> tuple[list[Crossed], str]:
    """Where the cut after a block can lie, best first; why not, where it can't.

    Best is where the fewest activations cross, in the form that the block's last part with parameters gives;
    then where they are smallest; then the latest, the beginning of the next block, so that what is computed
    in between (adding positions) belongs to this block.
    """
    main = next((c for c in reversed(group.calls) if has_parameters(c.module)), group.calls[-1])
    moments = [("exit", c) for c in group.calls if c.index in (group.calls[-1].index, main.index)][::-1]
    if following is not None:
        moments.insert(0, ("enter", following))
    found: list[Crossed] = []
    reason = "no part of the network begins or ends here"
    for when, call in moments:
        try:
            found.append(pair.graph.crossed(when, call))
        except CannotCross as problem:  # noqa: PERF203 (three moments at most)
            reason = str(problem)
    form = _dims(pair, found[-1]) if found else []
    return sorted(found, key=lambda c: (len(c.values), _dims(pair, c) != form, c.size)), reason


def _dims(pair: Pair, crossed: Crossed) -> list[int]:
    return [len(pair.graph.values[v].shape) for v in crossed.values]


def _ends_a_block(pair: Pair, group: Group, crosseds: Sequence[Crossed]) -> bool:
    """Inside a block of the network's own lists several activations cross: that is no place for a cut."""
    single = any(len(crossed.values) == 1 for crossed in crosseds)
    last = group.calls[-1]
    return (
        single
        or any(is_listed_block(call, pair.network) for call in group.calls)
        or ends_sequence(last, pair.network)
    )


def _choose(pair: Pair, found: Layout, *, gradients: bool) -> tuple[list[Point], list[float], list[Refused]]:
    following = [*(group.calls[0] for group in found.groups[1:]), next(iter(found.output_layers), None)]
    options = [_options(pair, g, after) for g, after in zip(found.groups, following, strict=True)]
    every = {crossed.point: crossed for crosseds, _ in options for crossed in crosseds}
    ordered = sorted(every, key=lambda p: pair.moment(p)[0])
    batch, output = states(pair, found, ordered, pair.inputs)
    again, _ = states(pair, found, ordered, pair.inputs)
    alone, _ = states(pair, found, ordered, {n: t[:1] for n, t in pair.inputs.items()})
    runs = Runs(batch, again, alone, output, ordered)
    points: list[Point] = []
    gaps: list[float] = []
    refused: list[Refused] = []
    for group, (crosseds, why) in zip(found.groups, options, strict=True):
        reasons = []
        if not any(pair.graph.matters(call) for call in group.calls):
            continue
        if crosseds and not _ends_a_block(pair, group, crosseds):
            continue
        for crossed in crosseds:
            gap, reason = check(pair, found, crossed.point, runs, gradients=gradients)
            if gap <= TOLERANCE:
                points.append(without_the_unused(pair, found, crossed.point, runs))
                gaps.append(gap)
                break
            reasons.append(reason)
        else:
            refused.append(Refused(block_name(group, pair.first), reasons[0] if reasons else why))
    return points, gaps, refused


def make(
    network: nn.Module,
    inputs: Inputs,
    *,
    output_layer: str | None,
    points: Sequence[Point] | None,
    gradients: bool,
) -> tuple[nn.Module, list[Block], Anatomy, list[Refused]]:
    """Network, blocks, anatomy and refused cuts, see :meth:`topgraft.chain.chain.Chain.of`.

    The network is the given one, or one that shares its parameters and has recurrent layers taken apart.
    """
    pair = Pair(_taken_apart(network, inputs), inputs)
    found = layout(pair.first, output_layer)
    if output_layer is None and found.output_layers and not _gives_output(pair, found):
        found = layout(pair.first, "")
    refused: list[Refused] = []
    if points is None:
        points, gaps, refused = _choose(pair, found, gradients=gradients)
        if not points:
            tried = "; ".join(f"{r.block}: {r.reason}" for r in refused[:5])
            raise TopgraftError(
                f"no cut of {type(network).__name__} holds. Tried: {tried or 'no block was found'}"
            )
    else:
        for point in points:
            pair.must_have(point)
        gaps = [0.0] * len(points)
    body = anatomy(pair, found, points)
    return pair.network, _blocks(pair, found, body, gaps), body, refused


def _taken_apart(network: nn.Module, inputs: Inputs) -> nn.Module:
    """The network with recurrent layers taken apart, if it gives the same so."""
    other = layered(network)
    if other is network:
        return network
    with torch.no_grad(), evaluating(network), evaluating(other):
        same = difference(first_tensor(other(**nested(inputs))), first_tensor(network(**nested(inputs))))
    return other if same <= TOLERANCE else network


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
