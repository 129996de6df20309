"""What a case of the coverage measurement is; the modules ``cases_*`` give them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    padded: Mapping[str, Tensor] | None = None
    note: str = ""
