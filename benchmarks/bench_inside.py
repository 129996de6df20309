"""What is measured inside one process: all cuts against one forward pass, stored against live training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

PICTURES = 256
BATCH = 16
EPOCHS = 20
LIVE_EPOCHS = 4
"""Epochs that are run with the frozen part live: each does the same, and all of them would take an hour."""
SHARES = (0.5, 0.75, 0.9)
"""Of the work, that is frozen."""


def forward(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds a picture: one forward pass, and all cuts pooled, by each engine and precision."""
    import topgraft as tg
    from topgraft.features.engine import PRECISIONS, engine_of
    from topgraft.features.openvino import is_installed
    from topgraft.side_by_side import in_order, single_threaded

    backbone, data = tg.load(None, modality="picture"), tg.read(folder / "train")
    chain = backbone.chain
    layouts = {block.index: block.layout for block in chain}
    rows = np.linspace(0, len(data) - 1, PICTURES).astype(int).tolist()
    batches = [
        backbone.preprocess.batch([data.decode(i) for i in rows[n : n + BATCH]])
        for n in range(0, PICTURES, BATCH)
    ]

    def seconds(work: Callable[[Any], Any]) -> float:
        with single_threaded() as cores:
            began = time.perf_counter()
            for _ in in_order(work, batches, workers=cores):
                pass
            return (time.perf_counter() - began) / PICTURES

    found: dict[str, Any] = {}
    for name in ("torch", *(["openvino"] if is_installed() else [])):
        for precision in PRECISIONS:
            engine = engine_of(chain[: len(chain)], name=name, precision=precision)
            engine.run(batches[0])
            engine.pooled(batches[0], layouts)
            once, every = [], []
            for _ in range(max(3, repeats)):
                once.append(seconds(engine.run))
                every.append(seconds(partial(engine.pooled, layouts=layouts)))
            found[f"{name} {precision}"] = {"once": median(once), "every": median(every)}
    return found


def training(folder: Path) -> list[dict[str, Any]]:
    """The same training from the store and with the frozen part live, both by PyTorch in fp32."""
    import topgraft as tg
    from topgraft.features.engine import engine_of
    from topgraft.features.passes import states
    from topgraft.features.sources import LiveSource, StateSource
    from topgraft.features.store import Store
    from topgraft.graft import Graft
    from topgraft.head import Head
    from topgraft.history import Recipe
    from topgraft.pooling import width
    from topgraft.train import train

    backbone, whole = tg.load(None, modality="picture"), tg.read(folder / "train")
    data = whole.subset(np.linspace(0, len(whole) - 1, PICTURES).astype(int).tolist())
    chain, keep = backbone.chain, len(backbone.chain)
    done = np.cumsum([0.0, *chain.share_of_work()])
    assert data.targets is not None
    targets, rows = torch.as_tensor(data.targets), range(len(data))

    def seconds(source: Any, freeze: int, epochs: int) -> float:
        torch.manual_seed(0)
        last = chain.blocks[keep - 1]
        graft = Graft(chain, keep, freeze, Head(last.layout, width(last), len(data.classes)))
        recipe = Recipe(epochs=epochs, batch_size=32, rate=1e-3)
        began = time.perf_counter()
        train(graft, source, targets, rows, recipe=recipe)
        return time.perf_counter() - began

    found = []
    for share in SHARES:
        freeze = int(np.argmin(np.abs(done - share)))
        live = LiveSource(data, backbone.preprocess, engine=engine_of(chain[:freeze]), augment=None)
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            shelf, _ = states(backbone, data, Store(Path(place)), freeze)
            source = StateSource(shelf, data.digests)
            storing = time.perf_counter() - began
            stored = storing + seconds(source, freeze, EPOCHS)
        alive = seconds(live, freeze, LIVE_EPOCHS) * EPOCHS / LIVE_EPOCHS
        p, e = float(done[freeze]), EPOCHS
        allowed = e * (3 - 2 * p) / (p + 3 * e * (1 - p))
        found.append(
            {"freeze": freeze, "share": p, "storing": storing, "stored": stored, "live": alive}
            | {"allowed": allowed, "reached": alive / stored}
        )
    return found
