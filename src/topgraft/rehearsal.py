"""A short trial of the work before it starts, and the forecast made from it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topgraft.backbones.types import Backbone
from topgraft.chain import Inputs, State
from topgraft.choices import AUTO, freezes_to_try, resolve_freeze, resolve_keep
from topgraft.cost import VIEWS, Candidate, Costs
from topgraft.data.types import Data
from topgraft.device import settled, trains_on
from topgraft.features.batching import batches, lacking
from topgraft.features.engine import BATCH, engine_of, examples_a_batch
from topgraft.features.passes import (
    MASK,
    by_name,
    pooled_at_every_cut,
    pooled_shelf,
    states_shelf,
)
from topgraft.features.reading import batch_of
from topgraft.features.shelf import Shelf
from topgraft.features.sources import LiveSource
from topgraft.features.store import Store
from topgraft.graft import Graft
from topgraft.halving import Halving, part_of
from topgraft.head import Head
from topgraft.history import Recipe
from topgraft.objective import encoded, scale_of
from topgraft.pooling import width
from topgraft.probe_speed import probe_speed
from topgraft.search import LEAST_EPOCHS, most_epochs, reads_examples, reads_views, right_most_third
from topgraft.side_by_side import in_order, single_threaded
from topgraft.stages import Prepared
from topgraft.train import seconds_an_example
from topgraft.workload import Speed, Work

SECONDS = 1.5
"""That the trial of the pass may take, about."""
MOST_BATCHES = 8
"""On each core in the trial of the pass."""


def rehearse(
    backbone: Backbone,
    data: Data,
    *,
    engine: str = "torch",
    precision: str = "fp32",
    batch_size: int = 32,
    shelf: Shelf | None = None,
    store: Store | None = None,
    training: bool = True,
) -> Speed:
    """Measure what an example costs, on a few of them, in the way in which the pass and training run them.

    Parameters
    ----------
    backbone, data
        Which network reads which examples; at least one.
    engine, precision
        Of the frozen part.
    batch_size
        Examples in a step of training, and the most that are tried in one.
    shelf
        Of the pass: what the trial computes is stored there, so that the pass begins with it; what it has is
        not computed again. Nothing is stored where there is none.
    store
        Where the engine's converted network is kept.
    training
        Whether steps of training are tried, too.

    Returns
    -------
    Speed
        Random numbers go on as if nothing had been run.
    """
    with torch.random.fork_rng(devices=[]):
        fresh = lacking(data, shelf.known() if shelf is not None else set())
        tried = _try_pass(backbone, data, fresh, shelf, engine=engine, precision=precision, store=store)
        head = fit = 0.0
        if data.targets is not None:
            widths = [width(block) for block in backbone.chain]
            head, fit = probe_speed(encoded(data, scale_of(data)), data.logits, widths)
        once = 2 * tried.example * tried.cores  # two steps on one core: three passes through a third each
        rows = _spread(len(data), max(2, min(batch_size, int(SECONDS / once))))
        return replace(
            tried,
            head=head,
            fit=fit,
            training=_seconds_of_training(backbone, data, rows) if training else None,
            update=_seconds_an_update(),
        )


def _try_pass(
    backbone: Backbone,
    data: Data,
    fresh: list[int],
    shelf: Shelf | None,
    *,
    engine: str,
    precision: str,
    store: Store | None,
) -> Speed:
    """Batches as the pass runs them, until :data:`SECONDS` are gone; one at least on each core.

    Where none of the examples is fresh, a few of any are run.
    """
    chain = backbone.chain
    runner = engine_of(chain[: len(chain)], name=engine, precision=precision, store=store)
    inputs = dict(chain.example)
    held, _ = memory_held()
    halving = Halving()

    def work(rows: list[int]) -> tuple[list[int], float, float, dict[str, Tensor | list[Tensor]]]:
        """Seconds of decoding, steps of all sequences together, and what the pass would store."""
        began = time.perf_counter()
        batch = batch_of(backbone.preprocess, data, rows)
        decoding = time.perf_counter() - began
        arrays = halving.run(
            range(len(rows)), lambda some: pooled_at_every_cut(chain, runner, part_of(batch, some)), by_name
        )
        return rows, decoding, _steps(batch), arrays

    with single_threaded() as cores:
        pooled_at_every_cut(chain, runner, inputs)  # the first run also finds memory and kernels
        began = time.perf_counter()
        pooled_at_every_cut(chain, runner, inputs)
        one = (time.perf_counter() - began) / len(next(iter(inputs.values())))
        affordable = max(1, int(SECONDS * cores / one))
        # the pass's own batches, whole where they are stored: no bit of them depends on the trial
        rows = fresh or list(range(len(data)))
        size = examples_a_batch(runner.segment, inputs, len(rows), cores, name=engine, precision=precision)
        chunks = batches(data, rows, batch_size=size)
        most = MOST_BATCHES * cores if fresh else cores
        chunks = [chunks[i] for i in _spread(len(chunks), min(max(affordable // size, cores), most))]
        if shelf is None or not fresh:
            few = affordable // len(chunks) if fresh else 2
            chunks = [chunk[: max(1, few)] for chunk in chunks]
        began = time.perf_counter()
        results = list(in_order(work, chunks, workers=cores))
        count = sum(len(chunk) for chunk in chunks)
        example = (time.perf_counter() - began) / count
    _, most_held = memory_held()
    kept = 0
    if shelf is not None and fresh:
        digests = [data.digests[i] for rows, *_ in results for i in rows]
        shelf.append(digests, by_name([arrays for *_, arrays in results]))
        stored = set(digests)
        kept = sum(digest in stored for digest in data.digests)
    ragged = any(-1 in shape for block in chain for shape in block.shapes)
    return Speed(
        example=example,
        decoding=sum(decoding for _, decoding, *_ in results) / count,
        cores=cores,
        length=sum(steps for _, _, steps, _ in results) / count if ragged else 1.0,
        held=held,
        converting=runner.seconds.get("pooled", 0.0),
        batches=max(0.0, most_held - held) * BATCH / max(len(chunk) for chunk in chunks),
        kept=kept,
    )


def _spread(count: int, chosen: int) -> list[int]:
    """Some of ``count`` examples, evenly from first to last, since data come sorted by class."""
    return sorted(set(np.linspace(0, count - 1, min(chosen, count)).astype(int).tolist()))


def _steps(inputs: Mapping[str, Tensor]) -> float:
    if MASK in inputs:
        return float(inputs[MASK].sum())
    first = next(iter(inputs.values()))
    return float(len(first) * (first.shape[1] if first.ndim > 1 else 1))


class _Held:
    """The same batch again and again, so that reading it takes no time."""

    def __init__(self, held: State | Inputs) -> None:
        self.held = held

    def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs:  # noqa: ARG002 (the protocol's form)
        return self.held


def _seconds_of_training(backbone: Backbone, data: Data, rows: list[int]) -> float | None:
    """Forward and backward pass of one example through the whole chain, from steps of its right-most third.

    ``None`` where there is nothing to measure, or this network can't be trained: then it may still be frozen.
    """
    chain, keep = backbone.chain, len(backbone.chain)
    freeze = right_most_third(keep)
    trained = sum(block.macs for block in chain.blocks[freeze:])
    if not trained or data.targets is None:
        return None
    engine = engine_of(chain[:freeze]) if freeze else None
    batch = LiveSource(data, backbone.preprocess, engine=engine, augment=None).batch(rows, training=False)
    last = chain.blocks[-1]
    graft = Graft(chain, keep, freeze, Head(last.layout, width(last), data.width))
    targets = encoded(data, scale_of(data))[rows]
    places = range(len(rows))
    try:
        seconds = seconds_an_example(graft, _Held(batch), targets, places, Recipe(batch_size=len(rows)))
    except RuntimeError:
        return None
    return seconds * sum(block.macs for block in chain) / trained


def _seconds_an_update() -> float:
    """AdamW's time for one parameter, on a million of them; on one core, where nothing waits for others."""
    parameter = nn.Parameter(torch.zeros(1_000_000, device=trains_on()))
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter])
    times = []
    with single_threaded():
        for _ in range(5):
            began = settled()
            optimizer.step()
            times.append(settled() - began)
    return min(times) / parameter.numel()


def memory_held() -> tuple[float, float]:
    """Bytes of memory that this process holds now, and held at most; zeros where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0, 0.0
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    if "VmRSS" not in told or "VmHWM" not in told:
        return 0.0, 0.0
    now, most = (1024.0 * float(told[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return now, most


def costs_for(
    ready: Prepared,
    store: Store,
    *,
    spent: float = 0.0,
    decisions: Mapping[str, Any] | None = None,
    storing: bool = False,
    speed: Speed | None = None,
) -> Costs:
    """Everything that forecasts follow from: a trial is run, and the store is asked what it has.

    The trial is shorter where nothing is left for the pass to do, or nothing is to be trained. What is
    forecast of the pass is all of it, that which the trial has done included.

    Parameters
    ----------
    ready
        Data and backbone.
    store
        Where activations are kept.
    spent
        Seconds of the budget that are gone.
    decisions
        Of a plan, whose epochs are taken.
    storing
        Whether the trial stores what it computes of the pass.
    speed
        What a trial has measured already; then none is run.
    """
    settings, backbone, data = ready.settings, ready.backbone, ready.development
    planned = (decisions or {}).get("epochs", {}).get("value")
    distinct = set(data.digests)
    shelf = pooled_shelf(
        backbone, store, engine=settings.engine_or_torch, precision=settings.precision_or_fp32
    )
    known = shelf.known()
    head_trains = bool(settings.hidden or settings.dropout)
    speed = speed or rehearse(
        backbone,
        data,
        engine=settings.engine_or_torch,
        precision=settings.precision_or_fp32,
        batch_size=settings.batch_size,
        shelf=shelf if storing or distinct <= known else None,
        store=store,
        training=head_trains or settings.freeze != "all",
    )
    work = Work(
        examples=len(data),
        distinct=len(distinct),
        stored=len(distinct & known),
        validation=int((ready.fold_of == 0).sum()),
        classes=data.width,
        folds=len(np.unique(ready.fold_of)),
        budget=settings.budget,
        epochs=settings.epochs or planned or most_epochs(0, untrained=ready.backbone.is_untrained),
        epochs_with_views=settings.epochs or planned or most_epochs(1),
        spent=spent,
        least_epochs=LEAST_EPOCHS,
        batch_size=settings.batch_size,
        precision=settings.precision_or_fp32,
        hidden=settings.hidden,
        head_trains=head_trains,
        refits=settings.refits,
        more_refits=settings.refit and settings.soup is None and not (settings.epochs or planned),
    )
    return Costs(backbone.chain.blocks, [width(block) for block in backbone.chain], speed, work)


def candidates(
    costs: Costs, ready: Prepared, store: Store, decisions: Mapping[str, Any] | None = None
) -> list[Candidate]:
    """At the full depth and at the one asked for: all frozen, the last third or half trained, everything.

    Where several were named it is these; what was decided, by ``keep`` and ``freeze`` or by a plan, is among
    them.
    """
    chain, settings, source = ready.backbone.chain, ready.settings, ready.backbone.source
    told = {name: str((decisions or {}).get(name, {}).get("value", "auto")) for name in ("keep", "freeze")}
    keep = resolve_keep(settings.keep if told["keep"] == "auto" else told["keep"], chain, source)
    wanted = settings.freeze if told["freeze"] == "auto" else told["freeze"]
    freeze = resolve_freeze(wanted, chain, source, keep or len(chain))
    found: list[Candidate] = []
    for depth in dict.fromkeys([keep or len(chain), len(chain)]):
        usual = (right_most_third(depth), depth // 2, 0)
        tried = freezes_to_try(wanted if freeze is None else AUTO, chain, source, depth, usual)
        asked = freeze if depth == (keep or len(chain)) else None
        counts = sorted({depth, *tried} | ({asked} if asked is not None else set()), reverse=True)
        found += [candidate(costs, ready, store, depth, n, asked=n == asked) for n in counts]
    return found


def candidate(
    costs: Costs, ready: Prepared, store: Store, keep: int, freeze: int, *, asked: bool = False
) -> Candidate:
    """One choice of keep and freeze, by what this network, these settings and the store make of it."""
    backbone, settings, digests = ready.backbone, ready.settings, set(ready.development.digests)
    live, with_views = is_live(ready, keep, freeze), reads_views(backbone, settings, keep, freeze)
    engine, precision = settings.engine_or_torch, settings.precision_or_fp32
    stored = [0]
    if 0 < freeze < keep and not live:
        shelves = [
            states_shelf(backbone, store, freeze, engine=engine, precision=precision, view=view)
            for view in range(1 + (VIEWS if with_views else 0))
        ]
        stored = [len(digests & shelf.known()) for shelf in shelves]
    return costs.candidate(keep, freeze, live=live, asked=asked, stored=stored, with_views=with_views)


def is_live(ready: Prepared, keep: int, freeze: int) -> bool:
    """Whether training this choice decodes each example in each epoch."""
    if freeze == keep and not ready.settings.changes_anew:
        return False
    return reads_examples(ready.backbone, ready.settings, freeze)
