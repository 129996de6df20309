"""Converted networks, kept for the next engine and the next command.

Converting takes some ten times as long as reading what it gave: on two cores 4 s against 0.3 s for
EfficientNet-Lite0 by OpenVINO. What is kept is found by everything that it was made from, and its bytes are
compared with their checksum before the engine sees them, as all that the store holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import topgraft
from topgraft.backbones.matching import digest_of
from topgraft.chain import Segment
from topgraft.features.kept import GoesOn, Kept
from topgraft.features.store import Store
from topgraft.features.structure import structure_of
from topgraft.pooling import POOLING

_ONLY = "graph"
"""The one entry of a shelf: a network is no example."""
_SAID = "The converted network"


@dataclass(frozen=True)
class Converted:
    """A network as an engine wrote it.

    Parameters
    ----------
    graph
        In the engine's own form.
    difference
        From PyTorch in fp32, as a share of the activations' norm, measured when it was converted.
    seconds
        That converting took.
    """

    graph: bytes
    difference: float
    seconds: float


def identity_of(segment: Segment) -> dict[str, Any]:
    """What a part of a network computes, as JSON: the same for the same part, however it came to be.

    A graft that was saved and opened has the frozen part of the chain that it was made from.
    """
    return {
        "class": type(segment.network).__name__,
        "network": structure_of(segment.network),
        "weights": digest_of(segment.state_dict()),
        "start": segment.start,
        "cut": segment.stop,
        "cuts": {str(cut): point.to_json() for cut, point in segment.cuts.items()},
        "taps": {str(cut): f"{pool} {POOLING}" for cut, pool in segment.taps.items()},
        "inputs": {name: str(shape) for name, shape in segment.input_shapes.items()},
        "topgraft": topgraft.__version__,
        "torch": torch.__version__,
    }


class Place:
    """Where one converted network is kept.

    Parameters
    ----------
    store
        In which store.
    description
        Everything that it was made from.
    """

    def __init__(self, store: Store, description: Mapping[str, Any]) -> None:
        described = {"what": "converted", **description}
        self._kept = Kept(store, described, only=_ONLY, said=_SAID)

    def read(self) -> Converted | None:
        """What is kept; ``None`` where nothing is, or where it was damaged and is deleted, which is said."""
        arrays = self._kept.read() or {}
        graph = arrays.get("graph")
        if not isinstance(graph, list):
            return None
        difference, seconds = (float(arrays[name][0]) for name in ("difference", "seconds"))
        return Converted(graph[0].numpy().tobytes(), difference, seconds)

    def keep(self, converted: Converted) -> None:
        """Keep it; where that can't be done (a full disk, no permission), this is said."""
        graph = torch.frombuffer(bytearray(converted.graph), dtype=torch.uint8)
        told = {"difference": converted.difference, "seconds": converted.seconds}
        arrays = {name: torch.tensor([value], dtype=torch.float64) for name, value in told.items()}
        self._kept.keep({"graph": [graph], **arrays})


def store_if_any() -> Store | None:
    """The default store; ``None`` where there can be none, which is said: a conversion is then not kept."""
    with GoesOn(f"{_SAID} can't be looked for, and is made"):
        return Store()
    return None
