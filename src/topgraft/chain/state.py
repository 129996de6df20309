"""What crosses a cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]
"""A batch of network inputs by the names of the network's own ``forward``; each is batch first."""


@dataclass(frozen=True)
class State:
    """The smallest tuple of activations that crosses a cut, and the inputs that later blocks ask for.

    Parameters
    ----------
    tensors
        Activations, each batch first.
    inputs
        Inputs of the network that later blocks read again (token ids, an attention mask), batch
        first; whole-number tensors only, so that a state never carries a picture along.
    """

    tensors: tuple[Tensor, ...]
    inputs: Inputs = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of examples."""
        return int(self.tensors[0].shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> State:
        """The state with ``change`` applied to every activation (not to the inputs)."""
        return State(tuple(change(t) for t in self.tensors), self.inputs)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> State:
        """The state with activations in ``dtype``, and everything on ``device``."""
        return State(
            tuple(t.to(dtype=dtype if t.is_floating_point() else None, device=device) for t in self.tensors),
            {name: t.to(device=device) for name, t in self.inputs.items()},
        )


Pool = Callable[[State], Tensor]
"""Makes one row of numbers an example of a state."""
