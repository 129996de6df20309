"""Which engine runs the frozen part: measured in a short trial, its start counted in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from topgraft.backbones.types import Backbone
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.features.engine import Engine, engine_of
from topgraft.features.openvino import OpenVinoEngine, is_installed
from topgraft.features.passes import pooled_shelf
from topgraft.features.store import Store
from topgraft.side_by_side import single_threaded

BATCH = 16
"""Examples on which engines are timed."""
WORTH_IT = 2.0
"""Seconds of the pass, at :data:`FAST`, from which on another engine is tried."""
FAST = 2.5e10
"""Multiply-adds a second that a core may do: a pass takes at least as long as this says."""


@dataclass(frozen=True)
class Choice:
    """An engine and why.

    Parameters
    ----------
    engine
        ``torch`` or ``openvino``.
    reason
        In words.
    difference
        Largest difference of pooled activations from PyTorch in fp32, as a share of their norm; 0 for
        PyTorch in fp32, ``None`` where nothing was compared.
    """

    engine: str
    reason: str
    difference: float | None = None


def choose_engine(backbone: Backbone, data: Data, store: Store, *, precision: str = "fp32") -> Choice:
    """The engine that ends the one pass over these examples first.

    One whose numbers the store has already is taken without a trial. OpenVINO is tried where it is installed
    and there is enough to do for a trial to pay; what makes it start (tracing, compiling) counts. Engines are
    timed on the chain's own example, so that no example of the data passes the network twice.

    Parameters
    ----------
    backbone, data
        Which network reads which examples.
    store
        Where pooled activations are kept.
    precision
        ``fp32`` or ``bf16``, of either engine.
    """
    if not is_installed():
        return Choice("torch", "PyTorch; OpenVINO is not installed (pip install 'topgraft[openvino]')")
    for name in ("openvino", "torch"):
        if set(data.digests) <= pooled_shelf(backbone, store, engine=name, precision=precision).known():
            return Choice(name, "its numbers are stored by an earlier run")
    chain = backbone.chain
    least = len(data) * sum(block.macs for block in chain) / (FAST * torch.get_num_threads())
    if least < WORTH_IT:
        return Choice("torch", f"PyTorch; there is little to do for {len(data):,} examples")
    inputs = {name: torch.cat([t] * BATCH)[:BATCH] for name, t in chain.example.items()}
    layouts = {block.index: block.layout for block in chain}
    segment = chain[: len(chain)]
    usual = engine_of(segment, precision=precision)
    other = OpenVinoEngine(
        segment, precision=precision, store=store
    )  # it counts the threads that there are now
    with single_threaded() as cores:
        each = _seconds(usual, inputs, layouts) / BATCH / cores
        began = time.monotonic()
        try:
            other.pooled(inputs, layouts)
        except TopgraftError as error:
            return Choice("torch", f"PyTorch: {error}")
        start = time.monotonic() - began
        faster = _seconds(other, inputs, layouts) / BATCH / cores
    usually, otherwise = each * len(data), start + faster * len(data)
    measured = (
        f"{each * 1000:.1f} ms an example by PyTorch, {faster * 1000:.1f} by OpenVINO "
        f"after {start:.1f} s to start"
    )
    if otherwise < usually:
        apart = other.differences["pooled"]
        return Choice("openvino", f"{measured}; activations differ by {apart:.0e} from PyTorch's", apart)
    return Choice("torch", measured, 0.0 if precision == "fp32" else None)


def _seconds(engine: Engine, inputs: Mapping[str, Tensor], layouts: Mapping[int, str]) -> float:
    """Of the faster one of two runs."""
    times = []
    for _ in range(2):
        began = time.monotonic()
        engine.pooled(inputs, layouts)
        times.append(time.monotonic() - began)
    return min(times)
