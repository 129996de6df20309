"""torchvision's classification networks with random weights."""

from __future__ import annotations

import torch
from cases import Case, Unsupported

from topgraft.errors import is_out_of_memory

SIZES = (56, 64, 96, 128, 224)
"""Sides of the pictures that are tried, smallest first."""
SMALLEST = 64
"""Of these, for networks that do not tell what the side must be a multiple of."""
EXAMPLES = 3


def names() -> list[str]:
    """All names that torchvision can make for classification."""
    from torchvision import models

    return list(models.list_models(module=models))


def build(name: str) -> Case:
    """The network for the smallest pictures that it takes."""
    from torchvision import models

    problems: list[str] = []
    for size in SIZES:
        torch.manual_seed(0)
        options = (
            {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        )  # theirs takes long
        if name.startswith("vit_"):
            if size % int(name.rpartition("_")[2]):
                continue
            options = {"image_size": size}
        elif size < SMALLEST:
            continue
        try:
            network = models.get_model(name, weights=None, **options).eval()
            pictures = torch.randn(EXAMPLES, 3, size, size)
            with torch.no_grad():
                output = network(pictures)
        except Exception as error:  # a network says in any way that it does not take a size
            if is_out_of_memory(error):
                raise
            problems.append(f"{type(error).__name__}: {error}")
            continue
        if bool(torch.isfinite(output).all()):
            return Case(network, {"x": pictures}, note=f"pictures of {size} × {size}" if size != 224 else "")
        problems.append(f"not finite at {size}")
    raise Unsupported(f"it runs on no size tried; the last: {problems[-1]}")
