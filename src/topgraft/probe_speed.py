"""How fast this machine fits the probes' heads, measured on made-up features of the real sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from topgraft.probe import fit_head
from topgraft.side_by_side import in_order, single_threaded
from topgraft.workload import head_macs

MOST_ROWS, MOST_WIDTH = 3072, 1536
"""Of a measured problem: beyond, seconds are those of as many multiply-adds."""
SIGNAL, NOISE = 0.3, 0.3
"""How far targets, and what each column has of its own, move a feature that else has the variance 1."""


def probe_speed(
    targets: Tensor, classes: int, widths: Sequence[int], *, share: float = 0.8
) -> tuple[float, float]:
    """Seconds a multiply-add of a fit takes on one core, and what each fit takes beyond that.

    As many heads as there are cores are fitted side by side, as the probes are, at the median width and at
    the largest, on the real targets; with many cuts and folds that is a small share of what the probes take.

    Parameters
    ----------
    targets
        As for :func:`topgraft.probe.probe`.
    classes
        How many there are, labels where an example has several, 0 for numbers.
    widths
        Per cut: pooled features.
    share
        Of the examples that a fold trains on.

    Returns
    -------
    tuple
        Both for :class:`topgraft.workload.Speed`; no random number is drawn from PyTorch's own state.

    Examples
    --------
    >>> rate, beyond = probe_speed(torch.arange(200) % 4, 4, [32, 64, 128])
    >>> 0 <= rate < 1e-3, 0 <= beyond < 10
    (True, True)
    """
    own = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(targets), generator=own)[: min(MOST_ROWS, max(2, int(share * len(targets))))]
    some = targets[rows]
    known = one_hot(some, classes) if some.dtype == torch.int64 else some.reshape(len(some), -1)
    large = min(MOST_WIDTH, max(widths, default=1))
    small = min(int(statistics.median(widths or [1])), large)
    if 2 * small > large:
        small = max(1, large // 2)
    macs, seconds = [], []
    with single_threaded() as cores:
        for width in (8, small, large):  # the first also finds memory and kernels
            x = _features(known.float(), width, own)
            began = time.perf_counter()
            list(in_order(lambda x: fit_head(x, some, classes), [x] * cores, workers=cores))
            seconds.append(time.perf_counter() - began)
            macs.append(head_macs(len(some), width, known.shape[1]))
    rate, beyond = by_size(macs[1:], seconds[1:])
    return rate, beyond * max(1.0, share * len(targets) / len(some))  # steps read every example


def by_size(macs: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds a multiply-add and seconds beyond, from a small problem and a large one.

    Where the small one took no less than the large, because something else had the cores meanwhile, the
    large one's seconds are all taken for those of its multiply-adds.

    Examples
    --------
    >>> by_size([100, 300], [2, 4]), by_size([100, 400], [5, 4])
    ((0.01, 1.0), (0.01, 0.0))
    """
    (small, large), (less, more) = macs, seconds
    if large <= small or more <= less:
        return more / max(1.0, large), 0.0
    rate = (more - less) / (large - small)
    return rate, max(0.0, less - rate * small)


def _features(known: Tensor, width: int, own: torch.Generator) -> Tensor:
    """``(n, width)`` float32: a quarter as many directions as columns, moved by the targets."""
    few = max(4, width // 4)
    common = torch.randn(len(known), few, generator=own) @ torch.randn(few, width, generator=own)
    moved = known @ torch.randn(known.shape[1], width, generator=own)
    own_part = torch.randn(len(known), width, generator=own)
    x: Tensor = (common / few**0.5).add_(own_part, alpha=NOISE).add_(moved, alpha=SIGNAL)
    return x
