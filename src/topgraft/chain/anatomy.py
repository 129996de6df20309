"""Which blocks call which modules and read which tensors; from it follow the parts of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from torch import nn

from topgraft.chain.find import Layout
from topgraft.chain.nesting import Path
from topgraft.chain.pair import Pair
from topgraft.chain.point import Point, Shape
from topgraft.chain.pruning import Skip, pruned
from topgraft.chain.record import Call
from topgraft.chain.replay import Segment
from topgraft.chain.state import Pool


@dataclass(frozen=True)
class Called:
    """A call of a module, placed among the blocks.

    Parameters
    ----------
    module, nth
        Its name, and the so-manieth call.
    begins, ends
        The blocks in which it begins and ends.
    until
        The last block that uses something which the call itself must make anew, since it is not part of a
        state (a bias that follows from positions alone); 0 if there is nothing.
    skip
        What stands for it where it is left out.
    children
        The calls inside it.
    """

    module: str
    nth: int
    begins: int
    ends: int
    until: int
    skip: Skip
    children: tuple[Called, ...]

    def left_out(self, start: int, last: int) -> Iterator[Called]:
        """The outermost calls that the part from cut ``start`` to block ``last`` does not run."""
        if self.begins > last or (self.ends <= start and self.until <= start):
            yield self
        else:
            for child in self.children:
                yield from child.left_out(start, last)

    def all(self) -> Iterator[Called]:
        """The call and those inside it."""
        yield self
        for child in self.children:
            yield from child.all()


@dataclass(frozen=True)
class Anatomy:
    """Which blocks call which modules and read which tensors.

    Blocks are numbered from 1; ``count + 1`` is what comes between the last block and the old output layer
    (pooling), ``count + 2`` the output layer and what follows it.

    Parameters
    ----------
    count
        Number of blocks.
    root
        The call of the network itself, with those inside it.
    reads
        Per parameter and buffer: the blocks that need it; it belongs to the first of them.
    inputs
        Per input of the network its shape, in the order of its forward.
    points
        Per block the point of its end.
    output
        The point just before the old output layer, if there is one.
    taps
        By cut what states at later cuts carry of it, see :class:`topgraft.chain.Segment`.
    """

    count: int
    root: Called
    reads: Mapping[str, frozenset[int]]
    inputs: Mapping[str, Shape]
    points: tuple[Point, ...]
    output: Point | None
    taps: Mapping[int, Pool] = field(default_factory=dict)

    def segment(self, network: nn.Module, start: int, stop: int | None, *, whole: bool = False) -> Segment:
        """The part from cut ``start`` to cut ``stop``; with ``whole`` through the old output layer."""
        last = stop if stop is not None else self.count + (2 if whole or self.output is None else 1)
        inside = frozenset(range(start + 1, last + 1))
        out: dict[str, dict[int, Skip]] = {}
        for child in self.root.children:
            for call in child.left_out(start, last):
                out.setdefault(call.module, {})[call.nth] = call.skip
        gone = {id(c) for child in self.root.children for o in child.left_out(start, last) for c in o.all()}
        running = {c.module for c in self.root.all() if id(c) not in gone}
        absent = [name for name, blocks in self.reads.items() if not blocks & inside]
        sometimes = {
            name: skips
            for name, skips in out.items()
            if name in running or len({repr(s) for s in skips.values()}) > 1
        }
        never = {name: skips[min(skips)] for name, skips in out.items() if name not in sometimes}
        return Segment(
            pruned(network, skip=never, absent=absent, sometimes=sometimes),
            self.points,
            start,
            stop,
            input_shapes=self.inputs,
            output=None if whole else self.output,
            taps={cut: pool for cut, pool in self.taps.items() if cut < last},
        )


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
        children = tuple(placed(child) for child in call.children)
        until = graph.runs_until[call.index]
        return Called(
            call.name,
            call.nth,
            begins=block_at(call.start),
            ends=1 + sum(m < call.end for m in moments),
            until=block_at(until) if until else 0,
            skip=_skip(pair, call, children),
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
    blocks |= {other: blocks[name] for other, name in pair.shared.items()}
    return Anatomy(
        count=len(points),
        root=placed(pair.first.root),
        reads=blocks,
        inputs=pair.input_shapes,
        points=tuple(points),
        output=before_output,
    )


def _skip(pair: Pair, call: Call, children: Sequence[Called]) -> Skip:
    """What stands for a call; kept, since it is the same wherever the cuts lie."""
    if call.index not in pair.skips:
        inner: dict[str, int] = {}
        for one in (one for child in children for one in child.all()):
            inner[one.module] = inner.get(one.module, 0) + 1
        written = pair.graph.is_written(call)
        pair.skips[call.index] = Skip(pair.shapes(call), inner, _through(call), written=written)
    return pair.skips[call.index]


def _through(call: Call) -> dict[Path, Path]:
    """Where a call gives what it was given."""
    given = {value: path for path, value in reversed(call.entered.items())}
    return {path: given[value] for path, value in call.left.items() if value in given}
