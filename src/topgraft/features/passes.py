"""The one pass over the data: every example through the frozen part once, what comes out stored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from topgraft.backbones.described import Preprocess
from topgraft.backbones.types import Backbone
from topgraft.chain import Block, Chain, Segment
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.evidence import Features
from topgraft.features.batching import batches, lacking
from topgraft.features.engine import Engine, engine_of, examples_a_batch, version_of
from topgraft.features.reading import Batch, batch_of
from topgraft.features.shelf import NotStored, Shelf
from topgraft.features.store import Store
from topgraft.features.structure import structure_of
from topgraft.features.views import AUGMENTATION
from topgraft.halving import Halving
from topgraft.pooling import POOLING
from topgraft.side_by_side import in_order, single_threaded
from topgraft.stopping import finishing
from topgraft.workers import elsewhere

Arrays = dict[str, Tensor | list[Tensor]]
"""What is stored of some examples, by name: one row each."""
Advance = Callable[[int], None]
"""Called with the number of examples that have just been done."""

SHARD = 256
"""Examples in one shard of the store, about: what a killed pass loses at most."""
SECONDS = 10.0
"""After which examples that are done are stored, were they fewer: a killed pass loses no more time."""
MASK = "attention_mask"
Made = TypeVar("Made")


def description(
    backbone: Backbone, *, precision: str, what: str, engine: str = "torch", **more: Any
) -> dict[str, Any]:
    """What stored numbers depend on; they are used again only where all of it is the same."""
    return {
        "what": what,
        "weights": backbone.report.digest,
        "network": structure_of(backbone.network),
        "recipe": dict(backbone.recipe),
        "blocks": [point.to_json() for point in backbone.chain.points],
        "preprocessing": backbone.preprocess.fingerprint,
        "precision": precision,
        "engine": version_of(engine),
        **({"taps": backbone.chain.taps} if backbone.chain.taps else {}),
        **more,
    }


def _pass(
    backbone: Backbone,
    data: Data,
    store: Store,
    shelf: Shelf,
    *,
    upto: int,
    engine: str,
    precision: str,
    batch_size: int | None,
    keep: Callable[[Engine, dict[str, Tensor]], Arrays],
    advance: Advance | None,
    view: int = 0,
) -> int:
    """Run what the shelf lacks through the first ``upto`` blocks; give how many examples it had already."""
    known = shelf.known()
    missing = lacking(data, known)
    reused = sum(digest in known for digest in data.digests)
    if advance is not None:
        advance(len(data) - len(missing))
    if not missing:
        return reused
    passing = Passing(
        backbone.chain[:upto],
        backbone.preprocess,
        keep,
        engine=engine,
        precision=precision,
        view=view,
    )
    waiting: list[tuple[list[int], Arrays]] = []

    def flush() -> None:
        done = list(waiting)
        waiting.clear()
        if done:
            digests = [data.digests[i] for rows, _ in done for i in rows]
            shelf.append(digests, by_name([arrays for _, arrays in done]))

    with single_threaded() as cores, finishing() as is_stopping:
        example, count = backbone.chain.example, len(missing)
        size = batch_size or examples_a_batch(
            passing.segment, example, count, cores, name=engine, precision=precision
        )
        chunks = batches(data, missing, batch_size=size)
        stored = time.monotonic()
        try:
            until_asked = (chunk for chunk in chunks if not is_stopping())
            results = _made(passing, data, until_asked, store, cores=cores)
            for rows, arrays in zip(chunks, results, strict=False):  # fewer, where it was asked to stop
                waiting.append((rows, arrays))
                if advance is not None:
                    advance(len(rows))
                if sum(len(r) for r, _ in waiting) >= SHARD or time.monotonic() - stored > SECONDS:
                    flush()
                    stored = time.monotonic()
        except BaseException:
            with contextlib.suppress(TopgraftError):  # what ended the pass is told, not this
                flush()
            raise
        flush()
    return reused


@dataclass(frozen=True)
class Passing:
    """What a pass does with each batch; a task for other processes, too.

    Parameters
    ----------
    segment
        The part that examples run through.
    preprocess
        From decoded examples to its inputs.
    keep
        What is stored of a batch, by name: the engine and the inputs given.
    engine, precision, view
        As for :func:`one_pass` and :func:`states`.
    """

    segment: Segment
    preprocess: Preprocess
    keep: Callable[[Engine, dict[str, Tensor]], Arrays]
    engine: str = "torch"
    precision: str = "fp32"
    view: int = 0

    def on(self, data: Data, store: Store | None = None) -> Callable[[Sequence[int]], Arrays]:
        """What makes the arrays of some rows of these data, in halves where memory is too little."""
        made = self._made(store)
        return lambda rows: made(data, rows)

    def start(self) -> Callable[[Batch], Arrays]:
        """What makes the arrays of a batch that was sent."""
        made = self._made(None)
        return lambda batch: made(batch.data, range(len(batch.data)))

    def _made(self, store: Store | None) -> Callable[[Data, Sequence[int]], Arrays]:
        runner = engine_of(self.segment, name=self.engine, precision=self.precision, store=store)
        halving = Halving()

        def made(data: Data, rows: Sequence[int]) -> Arrays:
            def part(some: Sequence[int]) -> Arrays:
                return self.keep(runner, batch_of(self.preprocess, data, some, view=self.view))

            return halving.run(rows, part, by_name)

        return made


def _made(
    passing: Passing, data: Data, chunks: Iterable[list[int]], store: Store, *, cores: int
) -> Iterator[Arrays]:
    """The arrays of each batch, in order, made on the cores here or by workers elsewhere."""
    workers = elsewhere()
    if workers is None:
        return in_order(passing.on(data, store), chunks, workers=cores)
    return workers.in_order(passing, (Batch.of(data, rows) for rows in chunks))


def joined(parts: Sequence[Tensor | list[Tensor]]) -> Tensor | list[Tensor]:
    """One array of those of several batches."""
    if isinstance(parts[0], Tensor):
        return torch.cat([p for p in parts if isinstance(p, Tensor)])
    return [row for part in parts for row in part]


def by_name(parts: Sequence[Arrays]) -> Arrays:
    """The arrays of several batches, each name's joined."""
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def pooled_shelf(backbone: Backbone, store: Store, *, engine: str, precision: str) -> Shelf:
    """Where pooled activations at every cut lie."""
    return store.shelf(
        description(backbone, engine=engine, precision=precision, what="pooled", pooling=POOLING)
    )


def states_shelf(
    backbone: Backbone, store: Store, cut: int, *, engine: str, precision: str, view: int = 0
) -> Shelf:
    """Where whole states at one cut are kept, of the examples or of a view of each."""
    of_view = {"view": view, "augmentation": AUGMENTATION} if view else {}
    return store.shelf(
        description(backbone, engine=engine, precision=precision, what="state", cut=cut, **of_view)
    )


def pooled_at_every_cut(chain: Chain, runner: Engine, inputs: dict[str, Tensor]) -> Arrays:
    """One batch through the whole chain: by cut, as the shelf names it, its pooled activations."""
    return _pooled(layouts_of(chain), runner, inputs)


def layouts_of(chain: Chain) -> dict[int, str]:
    """Per cut the layout of its state."""
    return {block.index: block.layout for block in chain}


def _pooled(layouts: Mapping[int, str], runner: Engine, inputs: dict[str, Tensor]) -> Arrays:
    return {f"cut.{cut:03}": pooled for cut, pooled in runner.pooled(inputs, layouts).items()}


def one_pass(
    backbone: Backbone,
    data: Data,
    store: Store,
    *,
    engine: str = "torch",
    precision: str = "fp32",
    batch_size: int | None = None,
    networks: Store | None = None,
    advance: Advance | None = None,
) -> tuple[Features, int]:
    """Pooled activations at every cut, each example through the network at most once.

    Parameters
    ----------
    backbone, data
        Which network reads which examples.
    store
        Where finished shards are kept; what it has already is not computed again.
    engine
        ``torch``, ``openvino`` or ``cuda``.
    precision
        ``fp32`` or ``bf16``.
    batch_size
        Examples at once; by default what suits the engine. Fewer, which is said, where memory is too little.
    networks
        Where a converted network is kept, by default in ``store``.
    advance
        Told of progress.

    Returns
    -------
    Features, int
        By cut an ``(n, width)`` float32 tensor in the data's order; how many examples were stored before.
    """
    shelf = pooled_shelf(backbone, store, engine=engine, precision=precision)
    count = len(backbone.chain)

    def fill() -> tuple[Arrays, int]:
        reused = _pass(
            backbone,
            data,
            networks or store,
            shelf,
            upto=count,
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            keep=partial(_pooled, layouts_of(backbone.chain)),
            advance=advance,
        )
        return shelf.read(data.digests, mapped=True), reused

    arrays, reused = mended(fill)
    cuts = {cut: arrays[f"cut.{cut:03}"] for cut in range(1, count + 1)}
    return Features({cut: a for cut, a in cuts.items() if isinstance(a, Tensor)}, shelf.key), reused


def mended(fill: Callable[[], Made], *, most: int = 3) -> Made:
    """What ``fill`` gives, which is done again where reading finds stored numbers damaged.

    A damaged shard is deleted when it is found, so that the next filling makes what it held. After ``most``
    times the damage counts as the disk's.
    """
    try:
        return fill()
    except NotStored:
        if most == 0:
            raise
        return mended(fill, most=most - 1)


def is_storable(block: Block) -> bool:
    """Whether states after a block have a fixed size, or are sequences whose padding can be cut off."""
    if any(-1 in shape for shape in block.others):
        return False
    steps = block.layout.split("+")[0] == "tokens"
    return -1 not in block.shape or (steps and -1 not in block.shape[1:])


def states(
    backbone: Backbone,
    data: Data,
    store: Store,
    cut: int,
    *,
    engine: str = "torch",
    precision: str = "fp32",
    batch_size: int | None = None,
    advance: Advance | None = None,
    view: int = 0,
) -> tuple[Shelf, int]:
    """Store the whole state of every example at one cut, for training what comes after it.

    ``view`` is the number of a changed view of each picture, see :func:`topgraft.features.views.view_of`.

    Returns
    -------
    Shelf, int
        Arrays ``t0``, ``t1``, … (activations, in the engine's precision, so that nothing is lost) and
        ``in.<name>`` (inputs that later blocks read); how many examples were stored before.
    """
    shelf = states_shelf(backbone, store, cut, engine=engine, precision=precision, view=view)
    block = backbone.chain.blocks[cut - 1]
    ragged = -1 in block.shape
    fixed = {f"t{i}" for i, layout in enumerate(block.layout.split("+")) if layout != "tokens"}

    reused = _pass(
        backbone,
        data,
        store,
        shelf,
        upto=cut,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        keep=partial(_whole, ragged=ragged, fixed=fixed),
        advance=advance,
        view=view,
    )
    return shelf, reused


def _whole(runner: Engine, inputs: dict[str, Tensor], *, ragged: bool, fixed: AbstractSet[str]) -> Arrays:
    """The state of a batch, its padding cut off where examples differ in length."""
    state = runner.run(inputs)
    arrays = {f"t{i}": t for i, t in enumerate(state.tensors)}
    arrays |= {f"in.{name}": t for name, t in state.inputs.items()}
    plain = {name: t.cpu().contiguous().clone() for name, t in arrays.items()}
    if not ragged:
        return dict(plain)
    mask = plain.get(f"in.{MASK}")
    if mask is None:
        return {n: list(t) for n, t in plain.items()}
    return {
        n: list(t) if n in fixed else [row[real] for row, real in zip(t, mask.bool(), strict=True)]
        for n, t in plain.items()
    }
