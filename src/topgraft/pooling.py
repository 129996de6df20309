"""From an activation of any form to one row of numbers an example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topgraft.chain import Block, State

POOLING = 2
"""Version of the pooling; stored features are used only if it is the same."""


def pool(state: State, layout: str) -> Tensor:
    """Pool a state to features, each place or step counting once.

    Parameters
    ----------
    state
        At a cut. Each of its activations is pooled, in its own precision, and the results stand side by side.
    layout
        Of the activations, see :class:`topgraft.chain.Block`.

    Returns
    -------
    Tensor
        ``(batch, width)`` float32: maps give average and maximum over their places, one after the other
        (once where there is one place); token sequences give mean, maximum and first step, padding on
        either side left out (the state's ``attention_mask``); vectors stay.

    Examples
    --------
    >>> pool(State((torch.tensor([[[[1.0, 3.0]]]]),)), "map")
    tensor([[2., 3.]])
    """
    parts = [
        _pool(tensor, one, state.inputs.get("attention_mask"))
        for tensor, one in zip(state.tensors, layout.split("+"), strict=True)
        if tensor.is_floating_point()
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _pool(x: Tensor, layout: str, mask: Tensor | None) -> Tensor:
    if layout == "vector":
        return x.float()
    if layout == "tokens":
        x = x.float()
        if mask is None or mask.shape[1] != x.shape[1]:
            return torch.cat([x.mean(1), x.amax(1), x[:, 0]], 1)
        real = mask.bool().unsqueeze(-1)
        mean = x.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)
        first = x[torch.arange(x.shape[0], device=x.device), mask.bool().long().argmax(1)]
        largest = x.masked_fill(~real, float("-inf")).amax(1).masked_fill(~real.any(1), 0)
        return torch.cat([mean, largest, first], 1)
    # Over both dimensions at once: a transposition would be carried out by engines, at a third of the pass.
    places = tuple(range(1, x.ndim - 1)) if layout == "map_last" else tuple(range(2, x.ndim))
    if all(x.shape[d] == 1 for d in places):
        return x.float().flatten(1)
    if x.is_cuda:  # the same, without a copy of the map in float32
        return torch.cat([x.mean(places, dtype=torch.float32), x.amax(places).float()], 1)
    x = x.float()
    return torch.cat([x.mean(places), x.amax(places)], 1)


@dataclass(frozen=True)
class Pooling:
    """:func:`pool` of states of one layout."""

    layout: str

    def __call__(self, state: State) -> Tensor:
        """``(batch, width)`` float32."""
        return pool(state, self.layout)


def width(block: Block) -> int:
    """Number of features that :func:`pool` gives after a block."""
    return sum(_width(s, one) for s, one in zip(block.shapes, block.layout.split("+"), strict=True))


def _width(shape: tuple[int, ...], layout: str) -> int:
    if layout == "vector":
        return shape[0]
    if layout == "tokens":
        return 3 * shape[-1]
    channels, places = (shape[-1], shape[:-1]) if layout == "map_last" else (shape[0], shape[1:])
    return channels if all(p == 1 for p in places) else 2 * channels
