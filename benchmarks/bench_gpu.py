"""On a GPU: all cuts against the bare forward pass, and training from the store against a live frozen part.

    python benchmarks/bench_gpu.py FOLDER        pictures, one folder a category; prints what it found as JSON

Nothing is decoded while it is timed: inputs lie in memory, as the network reads them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH = 256
BATCHES = 48
"""That pass in one timing."""
REPEATS = 5
PICTURES = 256
"""That trainings learn from."""
EPOCHS = 20
BARE = "bare forward pass, inputs on the GPU"
OURS = "ours, all cuts pooled, inputs in memory"
SHARES = (0.5, 0.75, 0.9)
"""Of the work, that is frozen."""


def throughput(data: Any, backbone: Any) -> dict[str, float]:
    """Pictures a second, in bf16: bare, with inputs on the GPU and from memory; and ours from memory."""
    from topgraft.features.engine import engine_of
    from topgraft.side_by_side import in_order, single_threaded

    chain = backbone.chain
    layouts = {block.index: block.layout for block in chain}
    rows = np.linspace(0, len(data) - 1, BATCH).astype(int).tolist()
    (name, inputs), *_ = backbone.preprocess.batch([data.decode(i) for i in rows]).items()
    held = [inputs.roll(n, 0).contiguous() for n in range(4)]
    network = backbone.network.eval().to(
        device="cuda", dtype=torch.bfloat16, memory_format=torch.channels_last
    )
    engine = engine_of(chain[: len(chain)], name="cuda", precision="bf16")
    there = [t.to("cuda", torch.bfloat16).contiguous(memory_format=torch.channels_last) for t in held]
    pinned = [t.to(torch.bfloat16).pin_memory() for t in held]

    def bare() -> None:
        with torch.inference_mode():
            for n in range(BATCHES):
                network(there[n % len(there)])

    def copied() -> None:
        with torch.inference_mode():
            for n in range(BATCHES):
                x = pinned[n % len(pinned)].to("cuda", non_blocking=True)
                network(x.contiguous(memory_format=torch.channels_last)).cpu()

    def ours(work: Callable[[dict[str, Tensor]], Any]) -> None:
        batches = ({name: held[n % len(held)]} for n in range(BATCHES))
        with single_threaded() as cores:
            for _ in in_order(work, batches, workers=cores):
                pass

    every = partial(engine.pooled, layouts=layouts)
    works = {
        BARE: bare,
        "bare forward pass, inputs in pinned memory": copied,
        "ours, one forward pass, inputs in memory": partial(ours, engine.run),
        OURS: partial(ours, every),
    }
    rates: dict[str, list[float]] = {said: [] for said in works}
    for number in range(REPEATS + 1):  # the first loads kernels and records
        for said, work in works.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            if number:
                rates[said].append(BATCH * BATCHES / (time.perf_counter() - began))
    return {said: median(some) for said, some in rates.items()}


class _Live:
    """Inputs that lie in memory, through the frozen part each time: the fastest that live training can be."""

    def __init__(self, inputs: dict[str, Tensor], engine: Any) -> None:
        self.inputs, self.engine = inputs, engine

    def batch(self, rows: Sequence[int], *, training: bool) -> Any:  # noqa: ARG002 (the protocol's form)
        from topgraft.chain import State

        state = self.engine.run({n: t[list(rows)] for n, t in self.inputs.items()})
        return State(tuple(t.float().clone() for t in state.tensors), dict(state.inputs))


def training(data: Any, backbone: Any) -> list[dict[str, float]]:
    """Seconds of the same training from the store, storing included, and with the frozen part live."""
    import topgraft as tg
    from topgraft.features.engine import engine_of
    from topgraft.features.passes import states
    from topgraft.features.sources import StateSource
    from topgraft.graft import Graft
    from topgraft.head import Head
    from topgraft.history import Recipe
    from topgraft.pooling import width
    from topgraft.train import train

    chain, keep = backbone.chain, len(backbone.chain)
    some = data.subset(np.linspace(0, len(data) - 1, PICTURES).astype(int).tolist())
    inputs = backbone.preprocess.batch([some.decode(i) for i in range(len(some))])
    done = np.cumsum([0.0, *chain.share_of_work()])
    targets, rows = torch.as_tensor(some.targets), range(len(some))

    def seconds(source: Any, freeze: int, epochs: int = EPOCHS) -> float:
        torch.manual_seed(0)
        last = chain.blocks[keep - 1]
        graft = Graft(chain, keep, freeze, Head(last.layout, width(last), len(some.classes)))
        began = time.perf_counter()
        train(graft, source, targets, rows, recipe=Recipe(epochs=epochs, batch_size=32, rate=1e-3))
        return time.perf_counter() - began

    found = []
    for share in SHARES:
        freeze = int(np.argmin(np.abs(done - share)))
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            shelf, _ = states(backbone, some, tg.Store(Path(place)), freeze, engine="cuda")
            source = StateSource(shelf, some.digests)
            storing = time.perf_counter() - began
        live = _Live(inputs, engine_of(chain[:freeze], name="cuda"))
        stored, alive = [], []
        seconds(live, freeze, epochs=1)  # loads kernels
        for _ in range(2):
            stored.append(seconds(source, freeze))
            alive.append(seconds(live, freeze))
        found.append(
            {"freeze": freeze, "share": float(done[freeze]), "storing": storing}
            | {"stored": min(stored), "live": min(alive)}
        )
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def gpu(folder: Path) -> dict[str, Any]:
    """What there is to say of this machine's GPU, its name among it; nothing where there is none."""
    import topgraft as tg

    if not torch.cuda.is_available():
        return {}
    data = tg.read(folder)
    rates = throughput(data, tg.load(None, modality="picture"))
    print(json.dumps(rates), file=sys.stderr, flush=True)
    return {
        "gpu": torch.cuda.get_device_name(),
        "throughput": rates,
        "training": training(data, tg.load(None, modality="picture")),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(json.dumps(gpu(parser.parse_args().folder), indent=1))
