"""Where trainings run, and how long something takes there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def has_gpu() -> bool:
    """Whether PyTorch sees a GPU of NVIDIA's. ``CUDA_VISIBLE_DEVICES=""`` hides it."""
    return torch.cuda.is_available()


def trains_on() -> torch.device:
    """The GPU, or the processor where there is none.

    Examples
    --------
    >>> trains_on().type in ("cuda", "cpu")
    True
    """
    return torch.device("cuda" if has_gpu() else "cpu")


@contextmanager
def reproducible() -> Iterator[None]:
    """The same bits from the same numbers, also on a GPU, whose fastest kernels add up in any order.

    An operation that has no other kernel says so by a warning of PyTorch's. Source: PyTorch's notes on
    reproducibility.
    """
    if not has_gpu():
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=warns or not before)
    try:
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def settled() -> float:
    """Seconds of a clock (monotonic), once all that was launched is done: launching alone takes no time."""
    if has_gpu():
        torch.cuda.synchronize()
    return time.monotonic()
