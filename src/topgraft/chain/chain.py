"""A network as a chain of blocks, each cut of it proven to compute the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from topgraft.chain.replay import Point, Segment, Shape, pruned
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
        Sizes of the state after it, without the batch; -1 where the inputs' length decides.
    layout
        ``map`` (batch, channels, height, width), ``map_last`` (channels last), ``tokens`` (batch, steps,
        channels) or ``vector`` (batch, channels).
    parameters
        How many numbers in it can train.
    macs
        Multiply-adds for one example (of the example's length).
    verified
        Whether the rest of the network gives the network's own output from the state after this block.
    difference
        The largest difference found in doing so, relative to the output's scale.
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


@dataclass(frozen=True)
class Refused:
    """A cut that was tried and does not hold, with the reason."""

    block: str
    reason: str


@dataclass(frozen=True)
class Anatomy:
    """Which blocks call which modules and read which tensors.

    Blocks are numbered from 1; ``count + 1`` is what comes between the last block and the old output layer
    (pooling), ``count + 2`` the output layer and what follows it.

    Parameters
    ----------
    count
        Number of blocks.
    calls
        Per module that can be left out: the blocks that call it.
    shapes
        Per such module: the shapes of what it gives.
    reads
        Per parameter and buffer: the blocks that read it; it belongs to the first of them.
    inputs
        Per input of the network its shape, in the order of its forward.
    points
        Per block the point of its end.
    output
        The point just before the old output layer, if there is one.
    live
        Whether modules without parameters run in every part, since some give what follows from the inputs
        alone (rotary positions).
    """

    count: int
    calls: Mapping[str, frozenset[int]]
    shapes: Mapping[str, Any]
    reads: Mapping[str, frozenset[int]]
    inputs: Mapping[str, Shape]
    points: tuple[Point, ...]
    output: Point | None
    live: bool = False

    def segment(self, network: nn.Module, start: int, stop: int | None, *, whole: bool = False) -> Segment:
        """The part from cut ``start`` to cut ``stop``; with ``whole`` through the old output layer."""
        last = stop if stop is not None else self.count + (2 if whole or self.output is None else 1)
        inside = frozenset(range(start + 1, last + 1))
        skip = {name: self.shapes[name] for name, blocks in self.calls.items() if not blocks & inside}
        absent = [name for name, blocks in self.reads.items() if not blocks & inside]
        return Segment(
            pruned(network, skip=skip, absent=absent),
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
        live: bool = False,
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
        live
            As the anatomy of that earlier chain has it.

        Raises
        ------
        TopgraftError
            If the network does not run on the example, or no cut of it holds.
        """
        from topgraft.chain.making import make

        blocks, anatomy, refused = make(network, example, output_layer=output_layer, points=points, live=live)
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
