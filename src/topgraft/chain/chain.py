"""A network as a chain of blocks, each cut of it proven to compute the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from topgraft.chain.point import Point, Shape
from topgraft.chain.replay import Segment, Skip, pruned
from topgraft.chain.state import Inputs


@dataclass(frozen=True)
class Block:
    """One link of a chain.

    Parameters
    ----------
    index
        1 is nearest the input; "keep N" keeps blocks 1 to N.
    name
        The name that it has in the original network.
    kind
        The class of its main module.
    shape
        Sizes of the state's main activation after it, without the batch; -1 where the inputs' length decides.
    layout
        ``map`` (batch, channels, height, width), ``map_last`` (channels last), ``tokens`` (batch, steps,
        channels) or ``vector`` (batch, channels). Where several activations cross the cut, one word each with
        ``+`` between them.
    parameters
        How many numbers in it can train.
    macs
        Multiply-adds for one example (of the example's length).
    verified
        Whether the rest of the network gives the network's own output from the state after this block.
    difference
        The largest difference found in doing so, relative to the output's scale.
    others
        Sizes of the state's further activations, where several cross.
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    layout: str
    parameters: int
    macs: int
    verified: bool
    difference: float
    others: tuple[tuple[int, ...], ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of every activation of the state, the main one first."""
        return (self.shape, *self.others)


@dataclass(frozen=True)
class Refused:
    """A cut that was tried and does not hold, with the reason."""

    block: str
    reason: str


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
    """

    count: int
    root: Called
    reads: Mapping[str, frozenset[int]]
    inputs: Mapping[str, Shape]
    points: tuple[Point, ...]
    output: Point | None

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
        )


class Chain:
    """A sequence of named blocks that composes to the network that it was made from.

    ``chain[:b]`` takes the network's inputs and gives the state at cut ``b``; ``chain[a:b]`` goes from state
    to state; ``chain[a:]`` gives what the network gives just before its old output layer. Slices share
    parameters with the network; a slice owns just those of its blocks.

    Examples
    --------
    >>> import torch
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> chain = Chain.of(network, torch.randn(2, 4))
    >>> [block.name for block in chain]
    ['0', '2']
    >>> x = torch.randn(5, 4)
    >>> torch.equal(network[4](chain[1:](chain[:1](x))), network(x))
    True
    """

    def __init__(
        self, network: nn.Module, blocks: Sequence[Block], anatomy: Anatomy, refused: Sequence[Refused] = ()
    ) -> None:
        self.network = network
        self.blocks = tuple(blocks)
        self.anatomy = anatomy
        self.refused = tuple(refused)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        example: Tensor | Inputs | Sequence[Tensor],
        *,
        output_layer: str | None = None,
        points: Sequence[Point] | None = None,
    ) -> Chain:
        """Turn a network into a chain and check every cut.

        Parameters
        ----------
        network
            Any module. It is run in eval mode and left as it was.
        example
            A batch of at least two examples: one tensor, several in the order of the network's ``forward``,
            or a mapping by its names; batch first.
        output_layer
            Name of the old output layer; ``""`` for none; by default the linear layer that gives the
            network's output.
        points
            The cuts of an earlier chain of the same network, which are then taken without checking again.

        Raises
        ------
        TopgraftError
            If the network does not run on the example, or no cut of it holds.
        """
        from topgraft.chain.making import make

        blocks, anatomy, refused = make(network, example, output_layer=output_layer, points=points)
        return cls(network, blocks, anatomy, refused)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def __iter__(self) -> Iterator[Block]:
        """The blocks, input side first."""
        return iter(self.blocks)

    def __getitem__(self, part: slice) -> Segment:
        """``chain[a:b]``, see the class."""
        if part.step not in (None, 1):
            raise TypeError("a chain is cut by slices, such as chain[:3] or chain[3:7]")
        start, end, _ = part.indices(len(self))
        if end < start:
            raise ValueError(f"chain[{start}:{end}] ends before it begins")
        return self.anatomy.segment(self.network, start, None if part.stop is None else end)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs, in the order of its forward."""
        return tuple(self.anatomy.inputs)

    @property
    def points(self) -> tuple[Point, ...]:
        """Where the cuts lie."""
        return self.anatomy.points

    def owner_of(self) -> dict[str, int]:
        """Per parameter and buffer of the network the block that it belongs to (the first that reads it)."""
        return {name: min(blocks) for name, blocks in self.anatomy.reads.items() if blocks}

    def names_of(self, upto: int) -> set[str]:
        """Names, in the network's own state dict, of what the first ``upto`` blocks own."""
        return {name for name, block in self.owner_of().items() if block <= upto}

    def share_of_work(self) -> list[float]:
        """Per block its share of the multiply-adds of all blocks, 0 to 1."""
        total = sum(block.macs for block in self.blocks) or 1
        return [block.macs / total for block in self.blocks]

    def share_of_parameters(self) -> list[float]:
        """Per block its share of the parameters of all blocks, 0 to 1."""
        total = sum(block.parameters for block in self.blocks) or 1
        return [block.parameters / total for block in self.blocks]
