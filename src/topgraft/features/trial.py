"""Which engine runs the frozen part, in which precision: measured in a short trial, its start counted in."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.types import Backbone
from topgraft.data.types import Data
from topgraft.device import has_gpu
from topgraft.errors import TopgraftError, is_out_of_memory
from topgraft.features import cuda
from topgraft.features.engine import ENGINES, PRECISIONS, Engine, engine_of
from topgraft.features.openvino import LARGEST, apart, is_installed
from topgraft.features.passes import pooled_shelf
from topgraft.features.reading import batch_of
from topgraft.features.store import Store
from topgraft.side_by_side import single_threaded
from topgraft.workers import elsewhere

BATCH = 16
"""Examples on which engines are timed."""
FEW = 4
"""Examples of the data on which activations are compared."""
WORTH_IT = 2.0
"""Seconds of the pass, at :data:`FAST`, from which on another engine is tried."""
FAST = 2.5e10
"""Multiply-adds a second that a core may do: a pass takes at least as long as this says."""
STARTS = 4.0
"""Seconds of the pass by PyTorch in fp32 up to which OpenVINO can't win: it takes as long to convert."""
LESS = 0.9
"""A lower precision must end the pass in this share of the time of fp32, or it is not worth its rounding."""
HOPELESS = 0.5
"""A difference from which on it is not the precision that makes an engine compute something else."""
_NAMES = {"torch": "PyTorch", "openvino": "OpenVINO", "cuda": "PyTorch on the GPU"}
Layouts = Mapping[int, str]


@dataclass(frozen=True)
class Choice:
    """An engine, its precision, and why.

    Parameters
    ----------
    engine
        ``torch``, ``openvino`` or ``cuda``.
    precision
        ``fp32`` or ``bf16``.
    reason
        In words.
    difference
        Largest difference of pooled activations from PyTorch in fp32 on a few examples of the data, as a
        share of their norm; 0 for PyTorch in fp32, ``None`` where nothing was compared.
    """

    engine: str
    precision: str
    reason: str
    difference: float | None = None


@dataclass(frozen=True)
class _Tried:
    engine: Engine
    each: float
    start: float
    difference: float

    def seconds(self, count: int) -> float:
        return self.start + self.each * count


def has_fast_bf16(engine: str = "torch") -> bool:
    """Whether what an engine runs on multiplies bf16 numbers by instructions or units of its own."""
    if engine == "cuda":
        return cuda.has_bf16()
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # earlier versions of torch do not tell
    told = capabilities() if capabilities is not None else {}
    return any(told.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def choose_engine(
    backbone: Backbone, data: Data, store: Store, *, engine: str = "auto", precision: str = "auto"
) -> Choice:
    """The engine and precision that end the one pass over these examples first.

    One whose numbers the store has already is taken without a trial. OpenVINO is tried where it is installed,
    bf16 where the processor has instructions for it, and either only where there is enough to do for a trial
    to pay (for OpenVINO more, :data:`STARTS`); what makes an engine start (tracing, compiling) counts. A GPU
    is always tried, since trainings run there, and by its engine they get frozen parts there, too; but where
    workers elsewhere do pieces of the pass, which compute by cores, only if it is asked for. Engines are
    timed on the chain's own example. How far their activations are from PyTorch's in fp32 is measured on a
    few of the data: too far (:data:`topgraft.features.openvino.LARGEST`) is refused.

    Parameters
    ----------
    backbone, data
        Which network reads which examples.
    store
        Where pooled activations and converted networks are kept.
    engine, precision
        As asked for; ``auto`` for what is to be decided.
    """
    pairs = [
        (name, kind)
        for name in ([n for n in ENGINES if _is_there(n)] if engine == "auto" else [engine])
        for kind in (PRECISIONS if precision == "auto" else [precision])
        if precision != "auto" or kind == "fp32" or has_fast_bf16(name)
    ]
    missing = ""
    if engine == "auto" and not is_installed():
        missing = "; OpenVINO is not installed (pip install 'topgraft[openvino]')"
    usual = pairs[0]
    if len(pairs) == 1:
        decided = "auto" in (engine, precision)
        return Choice(*usual, f"{_said(*usual)}{missing}" if decided else "as asked")
    for name, kind in pairs[::-1]:
        if set(data.digests) <= pooled_shelf(backbone, store, engine=name, precision=kind).known():
            return Choice(name, kind, "its numbers are stored by an earlier run")
    chain = backbone.chain
    least = len(data) * sum(block.macs for block in chain) / (FAST * torch.get_num_threads())
    if least < WORTH_IT and "cuda" not in dict(pairs):
        return Choice(*usual, f"{_said(*usual)}; there is little to do for {len(data):,} examples{missing}")
    try:
        return _by_trial(backbone, data, store, pairs, missing)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Choice(*usual, f"{_said(*usual)}; there is not enough memory for a trial{missing}")


def _is_there(engine: str) -> bool:
    """Whether this machine has it, for all that is to be computed."""
    if engine == "cuda":
        return has_gpu() and elsewhere() is None
    return engine != "openvino" or is_installed()


def _by_trial(
    backbone: Backbone, data: Data, store: Store, pairs: list[tuple[str, str]], missing: str
) -> Choice:
    chain, count = backbone.chain, len(data)
    inputs = {name: torch.cat([t] * BATCH)[:BATCH] for name, t in chain.example.items()}
    layouts = {block.index: block.layout for block in chain}
    segment = chain[: len(chain)]
    rows = np.linspace(0, count - 1, min(FEW, count)).astype(int).tolist()
    real = batch_of(backbone.preprocess, data, rows)
    exact = engine_of(segment)
    with single_threaded() as cores:
        expected = exact.pooled(real, layouts)
        base = _Tried(exact, _seconds(exact, inputs, layouts) / BATCH / cores, 0.0, 0.0)
    found = [base] if ("torch", "fp32") in pairs else []
    refused: list[str] = []
    enough: set[str] = set()
    untried = ""
    if found and "openvino" in dict(pairs) and base.seconds(count) < STARTS:
        enough.add("openvino")
        untried = f"; OpenVINO was not tried, since PyTorch takes {base.seconds(count):.1f} s for all"
    for name, kind in pairs[::-1]:  # the fastest first; the next only where one is refused
        if name in enough or (name, kind) == ("torch", "fp32"):
            continue
        runner = engine_of(segment, name=name, precision=kind, store=store)
        try:
            with single_threaded() as cores:
                found.append(_tried(runner, inputs, real, layouts, expected, cores))
        except (TopgraftError, RuntimeError) as error:  # the latter by PyTorch, of what it can't do in bf16
            refused.append(str(error))
            if not runner.differences.get("pooled", math.inf) < HOPELESS:
                enough.add(name)
        else:
            enough |= {name} if found[-1].seconds(count) > base.seconds(count) else set(ENGINES)
    if not found:
        raise TopgraftError("\n".join(refused))
    best = min(found, key=lambda t: t.seconds(count) / (LESS if t.engine.precision == "bf16" else 1.0))
    told = [base, *(t for t in found if t is not base)]
    times = ", ".join(_measured(t) for t in told)
    said = f"{times}{missing}{untried}"
    if best is not base:
        said += f"; activations differ by {best.difference:.0e} from those of PyTorch in fp32"
    elif len(told) == 1 and refused:
        said += f"; {refused[0]}"
    return Choice(best.engine.name, best.engine.precision, said, best.difference)


def _tried(
    runner: Engine,
    inputs: Mapping[str, Tensor],
    real: Mapping[str, Tensor],
    layouts: Layouts,
    expected: Mapping[int, Tensor],
    cores: int,
) -> _Tried:
    """Its time and its difference.

    Raises
    ------
    TopgraftError
        If it can't run this network, or computes something else.
    """
    began = time.monotonic()
    got = runner.pooled(real, layouts)
    start = time.monotonic() - began
    difference = max(apart(got[cut], expected[cut]) for cut in expected)
    if not difference <= LARGEST[runner.precision]:
        raise TopgraftError(
            f"{_said(runner.name, runner.precision)} computes something else than PyTorch in fp32: "
            f"activations differ by {difference:.0e}, expected at most {LARGEST[runner.precision]:g}"
        )
    if runner.name == "cuda":  # it has all cores' batches, larger ones, one after the other
        size = runner.examples_at_once(inputs)
        whole = {n: torch.cat([t] * -(-size // BATCH))[:size] for n, t in inputs.items()}
        return _Tried(runner, _seconds(runner, whole, layouts, runs=3) / size, start, difference)
    return _Tried(runner, _seconds(runner, inputs, layouts) / BATCH / cores, start, difference)


def _said(engine: str, precision: str) -> str:
    return f"{_NAMES[engine]} in {precision}"


def _measured(tried: _Tried) -> str:
    start = f" after {tried.start:.1f} s to start" if tried.engine.name != "torch" else ""
    by = _said(tried.engine.name, tried.engine.precision)
    return f"{tried.each * 1000:.1f} ms an example by {by}{start}"


def _seconds(engine: Engine, inputs: Mapping[str, Tensor], layouts: Layouts, runs: int = 2) -> float:
    """Of the fastest of a few runs."""
    times = []
    for _ in range(runs):
        began = time.monotonic()
        engine.pooled(inputs, layouts)
        times.append(time.monotonic() - began)
    return min(times)
