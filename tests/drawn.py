"""Features of classes whose centres lie apart, drawn at random."""

from __future__ import annotations

import torch


def draw(
    n: int, width: int, classes: int, *, apart: float = 1.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(n, width)`` features and ``(n,)`` classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, width, generator=generator) * apart / width**0.5
    return centres[y] * 3 + torch.randn(n, width, generator=generator), y
