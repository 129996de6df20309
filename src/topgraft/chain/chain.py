"""A network as a chain of blocks, each cut of it proven to compute the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from topgraft.chain.anatomy import Anatomy
from topgraft.chain.block import Block, Refused
from topgraft.chain.point import Point
from topgraft.chain.pruning import refilled
from topgraft.chain.replay import Segment
from topgraft.chain.state import Inputs


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
        self,
        network: nn.Module,
        blocks: Sequence[Block],
        anatomy: Anatomy,
        refused: Sequence[Refused] = (),
        *,
        example: Inputs,
    ) -> None:
        self.network, self.example = network, example
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
        gradients: bool = True,
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
        gradients
            Whether gradients are compared too: in train mode, with the beginning frozen, those of the rest
            must be those of the whole network. It takes several times as long as all else.

        Raises
        ------
        TopgraftError
            If the network does not run on the example, or no cut of it holds.
        """
        from topgraft.chain.making import make
        from topgraft.chain.pair import by_name

        inputs = by_name(network, example)
        made = make(network, inputs, output_layer=output_layer, points=points, gradients=gradients)
        return cls(*made, example=inputs)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def __iter__(self) -> Iterator[Block]:
        """The blocks, input side first."""
        return iter(self.blocks)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import chain

        return chain(self)

    def __getitem__(self, part: slice) -> Segment:
        """``chain[a:b]``, see the class."""
        if part.step not in (None, 1):
            raise TypeError("a chain is cut by slices, such as chain[:3] or chain[3:7]")
        start, end, _ = part.indices(len(self))
        if end < start:
            raise ValueError(f"chain[{start}:{end}] ends before it begins")
        return self.anatomy.segment(self.network, start, None if part.stop is None else end)

    def holding(self, tensors: Mapping[str, Tensor]) -> Chain:
        """The same chain over a copy of its network's modules that holds these parameters and buffers.

        Parameters
        ----------
        tensors
            By name; the copy holds them themselves, and of a shared one a single name will do. All others are
            stand-ins that take no memory: only parts that own none of them compute anything.
        """
        network = refilled(self.network, tensors)
        return Chain(network, self.blocks, self.anatomy, self.refused, example=self.example)

    def gradients_apart(self, cut: int) -> tuple[float, str]:
        """How far training from stored states at a cut is from training with the blocks before it frozen.

        Parameters
        ----------
        cut
            1 to the number of blocks less one.

        Returns
        -------
        tuple of float and str
            The largest difference between gradients on the example, relative to the largest gradient, and the
            parameter that has it; 1e-4 is the most that rounding explains in fp32.
        """
        from topgraft.chain.gradients import gradients_apart
        from topgraft.chain.record import evaluating

        front = self[:cut]
        with torch.no_grad(), evaluating(front):
            state = front(self.example)
        rest = self.anatomy.segment(self.network, cut, None, whole=True)
        frozen = {name for name, block in self.owner_of().items() if block <= cut}
        return gradients_apart(self.network, rest, frozen, self.example, state)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs, in the order of its forward."""
        return tuple(self.anatomy.inputs)

    @property
    def taps(self) -> tuple[int, ...]:
        """Cuts whose pooled activations later states carry, see :func:`topgraft.taps.tapped`."""
        return tuple(sorted(self.anatomy.taps))

    @property
    def points(self) -> tuple[Point, ...]:
        """Where the cuts lie."""
        return self.anatomy.points

    def owner_of(self) -> dict[str, int]:
        """Per parameter and buffer of the network the block that it belongs to (the first that reads it)."""
        return {name: min(blocks) for name, blocks in self.anatomy.reads.items() if blocks}

    def names_of(self, upto: int) -> set[str]:
        """Names, in the network's own state dict, of what the first ``upto`` blocks own."""
        second = self._second_names
        return {n for n, block in self.owner_of().items() if block <= upto and n not in second}

    @cached_property
    def _second_names(self) -> frozenset[str]:
        """Further names of parameters that the network's own state dict does not have."""
        known = self.network.state_dict().keys()
        every = [n for n, _ in self.network.named_parameters(remove_duplicate=False)]
        return frozenset(n for n in every if n not in known)

    def share_of_work(self) -> list[float]:
        """Per block its share of the multiply-adds of all blocks, 0 to 1."""
        total = sum(block.macs for block in self.blocks) or 1
        return [block.macs / total for block in self.blocks]

    def share_of_parameters(self) -> list[float]:
        """Per block its share of the parameters of all blocks, 0 to 1."""
        total = sum(block.parameters for block in self.blocks) or 1
        return [block.parameters / total for block in self.blocks]
