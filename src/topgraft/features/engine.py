"""Run the first blocks of a chain without gradients, as fast as the machine allows."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from topgraft.chain import Segment, State
from topgraft.chain.replay import Tap

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Engine:
    """The frozen part of a network, in eval mode, channels last, in one precision.

    Parameters
    ----------
    segment
        From the network's inputs to a cut. The engine works on a copy.
    precision
        ``fp32``, or ``bf16`` where a small difference is accepted.
    device
        Where it runs.
    """

    def __init__(self, segment: Segment, *, precision: str = "fp32", device: str = "cpu") -> None:
        self.precision, self.device = precision, device
        self.dtype = PRECISIONS[precision]
        self.segment = copy.deepcopy(segment).eval().requires_grad_(requires_grad=False)
        self.segment.to(device=device, dtype=self.dtype)
        self.segment.to(memory_format=torch.channels_last)

    def run(self, inputs: Mapping[str, Tensor], *, tap: Tap | None = None) -> State:
        """The state at the segment's end.

        Parameters
        ----------
        inputs
            A batch by the names of the network's forward.
        tap
            Called with every cut that is passed and the state there.
        """
        with torch.inference_mode():
            state: State = self.segment({n: self.prepare(t) for n, t in inputs.items()}, tap=tap)
        return state

    def prepare(self, tensor: Tensor) -> Tensor:
        """An input on the device, in the engine's precision and memory layout."""
        if not tensor.is_floating_point():
            return tensor.to(self.device)
        form = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(device=self.device, dtype=self.dtype, memory_format=form)
