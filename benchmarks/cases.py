"""What a case of the coverage measurement is; the modules ``cases_*`` give them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Unsupported(Exception):
    """A network that the measurement leaves out; the text says why."""


@dataclass(frozen=True)
class Case:
    """One network with random weights and inputs to try it on.

    Parameters
    ----------
    network
        In eval mode.
    inputs
        By the names of its ``forward``, batch first, at least three examples. Where the one input is a
        mapping, it is given as such (``{"batch": {"image": ..., "meta": {...}}}``).
    padded
        The inputs again with more padding at the right, for networks that take a mask; else None.
    note
        What was made smaller or different from what is published, in a few words; mostly empty.
    fewest
        How many cuts there must be at least.
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    padded: Mapping[str, Tensor] | None = None
    note: str = ""
    fewest: int = 1


def enlivened(network: nn.Module, inputs: Mapping[str, Tensor], seed: int = 0) -> nn.Module:
    """The network, in place, with nothing left at values that hide a mistake.

    Networks begin with zeros and ones where training will put numbers: residual branches that give nothing,
    norms that change nothing, positions all alike. Constant parameters get noise; the running statistics of
    batch norms become those of the inputs, with noise.
    """
    dice = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=dice).to(like.dtype)

    with torch.no_grad():
        for name, p in network.named_parameters():
            if not p.is_floating_point() or p.numel() < 2 or float(p.min()) != float(p.max()):
                continue
            value = float(p.flatten()[0])
            if abs(value) > 0.1:
                p.mul_(1 + 0.1 * noise(p))
            elif p.ndim > 1 or "bias" in name:
                p.copy_(0.02 * noise(p))
            else:  # what scales a branch
                p.copy_(0.3 + 0.05 * noise(p))
        norms = [m for m in network.modules() if getattr(m, "running_var", None) is not None]
        _see_statistics(network, norms, inputs)
        for norm in norms:
            norm.running_mean.add_(0.1 * norm.running_var.sqrt() * noise(norm.running_mean))
            norm.running_var.mul_((1 + 0.2 * noise(norm.running_var)).clamp(0.5, 2))
    return network.eval()


def _see_statistics(network: nn.Module, norms: list[nn.Module], inputs: Mapping[str, Tensor]) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 0.9
    try:
        if norms:
            network(**inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum
