"""Parameters in groups for an optimiser, and the rate along a training."""

from __future__ import annotations

import math
from typing import Any

from topgraft.graft import Graft
from topgraft.history import Recipe


def parameter_groups(graft: Graft, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for an optimiser with a rate a block; the names of their parameters stand beside them.

    Examples
    --------
    The head and block ``keep`` have ``rate``, block ``keep - 1`` has ``rate * decay``, and so on.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter, block in graft.trainable():
        plain = parameter.ndim > 1
        depth = max(0, graft.keep - block)
        group = groups.setdefault(
            (depth, plain),
            {
                "params": [],
                "names": [],
                "lr": recipe.rate * recipe.decay**depth,
                "weight_decay": recipe.weight_decay if plain else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at a step: a linear rise, then a half cosine down to zero.

    Examples
    --------
    >>> [round(schedule(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))
