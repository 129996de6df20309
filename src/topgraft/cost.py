"""What the work costs, told before it starts: seconds, memory and disk from a short trial and arithmetic.

The model is simple on purpose. What an example costs in the whole chain is measured (:class:`Speed`); a part
of the chain costs its share of the multiply-adds; a backward pass costs two forward ones, since each product
of the forward pass has two in it, for the gradients of activations and of parameters. Bytes are counted from
shapes and types. Nothing here runs a network or reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from topgraft.chunked import CHUNK
from topgraft.ridge import SCORED
from topgraft.workload import BACKWARD, Speed, Work, head_macs, head_parameters

if TYPE_CHECKING:
    from topgraft.chain import Block

FLOAT = 4
"""Bytes of a number in fp32, in which parameters, pooled features and what training keeps are held."""
BYTES = {"fp32": 4, "bf16": 2}
"""Bytes of a number of a stored state, by the precision of the frozen part."""
PER_PARAMETER = 4
"""Numbers a trained parameter takes in training: itself, its gradient, and AdamW's two moments."""
SPARE = 0.85
"""Share of the time left that a training may plan with, as in a fit."""
VIEWS = 4
"""Changed views of each picture that are stored at most."""
SPENT_ON_VIEWS = 0.2
"""Share of the time left in which they are stored, and ..."""
DISK_FOR_VIEWS = 4e9
"""... bytes that they may take with the pictures themselves."""


@dataclass(frozen=True)
class Stage:
    """What one stage costs.

    Parameters
    ----------
    seconds
        Of wall time.
    memory
        Bytes that the process holds at most; ``None`` where that can't be told.
    disk
        Bytes that the store grows by.
    """

    seconds: float
    memory: float | None
    disk: float


@dataclass(frozen=True)
class Candidate:
    """What one choice of keep and freeze costs.

    Parameters
    ----------
    keep, freeze
        The choice.
    asked
        Whether it is what the user decided.
    storing, stored
        Seconds in which the states at cut ``freeze`` are stored, and the bytes that they take on disk, those
        of views included.
    views
        Changed views of each picture that are stored.
    epoch, training
        Seconds of one epoch on the training part, and of the whole training with its refit.
    epochs
        For which ``training`` is; 0 where nothing trains.
    affordable
        Epochs for which the budget leaves time, at most ``epochs``; 0 where a training would be left out.
    trained_parameters
        Numbers that train, the head's included.
    optimizer
        Bytes of the trained parameters, their gradients and AdamW's two moments.
    model
        Bytes of the saved weights.
    """

    keep: int
    freeze: int
    asked: bool
    storing: float
    stored: float
    epoch: float
    training: float
    epochs: int
    affordable: int
    trained_parameters: int
    optimizer: float
    model: float
    views: int = 0


@dataclass(frozen=True)
class Forecast:
    """What the work costs, told before it starts.

    Parameters
    ----------
    speed, work
        What it was made from.
    one_pass
        Of the pass over the examples that are not stored yet.
    probes
        Of the heads at every cut.
    candidates
        Choices of keep and freeze; empty where none is to be made.
    resizing
        Of measuring how pictures are brought to size, before the pass; ``None`` where nothing is measured.
    search
        Of the short trainings that settle what is frozen; ``None`` where there are none.
    """

    speed: Speed
    work: Work
    one_pass: Stage
    probes: Stage
    candidates: tuple[Candidate, ...] = ()
    resizing: Stage | None = None
    search: Stage | None = None

    @property
    def most_memory(self) -> float | None:
        """Bytes that the process holds at most by the end of the probes."""
        known = [stage.memory for stage in (self.one_pass, self.probes) if stage.memory is not None]
        return max(known, default=None)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON: seconds and bytes."""
        return {
            "resizing": None if self.resizing is None else asdict(self.resizing),
            "pass": asdict(self.one_pass),
            "probes": asdict(self.probes),
            "search": None if self.search is None else asdict(self.search),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "examples": self.work.examples,
            "distinct": self.work.distinct,
            "stored": self.work.stored,
            "budget": self.work.budget,
            "spent": self.work.spent,
            "speed": asdict(self.speed),
        }


@dataclass(frozen=True)
class Costs:
    """The chain in numbers, what was measured, and what is to be done: from these every cost follows.

    Parameters
    ----------
    blocks
        Of the chain.
    widths
        Per block: pooled features after it.
    speed, work
        Measured, and told.
    """

    blocks: Sequence[Block]
    widths: Sequence[int]
    speed: Speed
    work: Work

    def share(self, first: int, last: int) -> float:
        """Share of the chain's multiply-adds in the blocks after ``first``, up to ``last``.

        By count of blocks where no multiply-add was counted.
        """
        total = sum(block.macs for block in self.blocks)
        if not total:
            return (last - first) / len(self.blocks)
        return sum(block.macs for block in self.blocks[first:last]) / total

    def one_pass(self) -> Stage:
        """The pass: seconds and disk for what is not stored yet, memory for the features of all examples."""
        fresh = self.work.distinct - self.work.stored
        each = self.bytes_pooled
        batches = self.speed.batches if fresh else 0.0
        return Stage(
            seconds=fresh * self.speed.example,
            memory=self._memory(batches + each * self.work.examples),
            disk=float(fresh * each),
        )

    @property
    def bytes_pooled(self) -> float:
        """Bytes of one example's pooled features at every cut."""
        return float(FLOAT * sum(self.widths))

    def probes(self) -> Stage:
        """A head at every cut in every fold, folds side by side."""
        n, k, cores = self.work.examples, self.work.classes, self.speed.cores
        rows = n * (self.work.folds - 1) / self.work.folds
        speed, folds = self.speed, self.work.folds

        def of(width: int) -> float:
            macs = folds * head_macs(rows, width, k)
            if rows > width:  # products are added up once, over the folds' own parts
                macs -= (folds * rows - n) * width * width
            return folds * speed.fit + speed.head * macs

        each = [of(width) for width in self.widths]
        largest = max(
            (min(n * w, max(SCORED, CHUNK * w)) + 3 * min(n, w) ** 2 for w in self.widths), default=0
        )
        features = self.bytes_pooled * n
        return Stage(
            seconds=max(sum(each) / cores, max(each, default=0.0) / folds),
            memory=self._memory(features + 2 * FLOAT * largest * min(cores, folds * len(self.widths))),
            disk=0.0,
        )

    def candidate(
        self,
        keep: int,
        freeze: int,
        *,
        live: bool = False,
        asked: bool = False,
        stored: Sequence[int] = (0,),
        with_views: bool = False,
    ) -> Candidate:
        """The cost of keeping ``keep`` blocks and freezing ``freeze`` of them.

        Parameters
        ----------
        live
            Whether each epoch decodes the examples and runs the frozen part again, because nothing is frozen
            or pictures are changed at random.
        asked
            Whether it is what the user decided.
        stored
            Distinct examples whose state at cut ``freeze`` is in the store already; then those of the first
            view of each, and so on.
        with_views
            Whether changed views of each picture are stored, too, as many as there is time for.
        """
        trained = self.trained_parameters(keep, freeze)
        kept = sum(block.parameters for block in self.blocks[:keep])
        head = head_parameters(self.widths[keep - 1], self.work.classes, self.work.hidden)
        is_stored = 0 < freeze < keep and not live
        trains = freeze < keep or self.work.head_trains
        storing = self.storing(freeze, stored[0]) if is_stored else Stage(0.0, None, 0.0)
        views = self.views(keep, freeze, self.left) if with_views and is_stored else 0
        if views:
            more = self.storing_views(freeze, views, sum(stored[1 : 1 + views]))
            storing = Stage(storing.seconds + more.seconds, storing.memory, storing.disk + more.disk)
        epoch = self.epoch(keep, freeze, live=live) if trains else 0.0
        laid_out = self.work.epochs_with_views if views else self.work.epochs
        epochs = laid_out if trains else 0
        return Candidate(
            keep=keep,
            freeze=freeze,
            asked=asked,
            storing=storing.seconds,
            stored=storing.disk,
            epoch=epoch,
            training=self.training(keep, freeze, epochs, live=live),
            epochs=epochs,
            affordable=self._affordable(keep, freeze, epochs, storing.seconds, live=live, asked=asked),
            trained_parameters=trained,
            optimizer=float(FLOAT * PER_PARAMETER * trained),
            model=float(FLOAT * (kept + head)),
            views=views,
        )

    def views(self, keep: int, freeze: int, left: float) -> int:
        """How many changed views of each picture are stored at a cut, with ``left`` seconds of time.

        At most :data:`VIEWS`; none where they would take more than a share of that time, or of the disk, or
        the time for a whole training without them: a short one gains nothing from views.
        """
        one = self.storing_views(freeze, 1)
        training = self.training(keep, freeze, self.work.epochs) / SPARE
        spare = left - self.storing(freeze).seconds - training
        in_time = min(SPENT_ON_VIEWS * left, spare) / max(one.seconds, 1e-9)
        on_disk = DISK_FOR_VIEWS / max(one.disk, 1.0) - 1
        return max(0, min(VIEWS, math.floor(in_time), math.floor(on_disk)))

    def storing_views(self, freeze: int, views: int, stored: int = 0) -> Stage:
        """Further passes to cut ``freeze``, for views not ``stored``; the first pass converted the engine."""
        seconds = self.speed.decoding / self.speed.cores + self.speed.chain * self.share(0, freeze)
        count = views * self.work.distinct - stored
        return Stage(count * seconds, None, count * self.bytes_of_state(freeze))

    def trained_parameters(self, keep: int, freeze: int) -> int:
        """Numbers that train: those of the blocks between freeze and keep, and of the head."""
        head = head_parameters(self.widths[keep - 1], self.work.classes, self.work.hidden)
        return sum(block.parameters for block in self.blocks[freeze:keep]) + head

    def storing(self, freeze: int, stored: int = 0) -> Stage:
        """A pass to cut ``freeze`` whose states are stored whole, for what is not ``stored`` there yet.

        The engine converts this part of the chain, too: by the number of its blocks.
        """
        fresh, each = self.work.distinct - stored, self.bytes_of_state(freeze)
        seconds = self.speed.decoding / self.speed.cores + self.speed.chain * self.share(0, freeze)
        held = self.speed.batches + self.work.examples * each
        start = self.speed.converting * freeze / len(self.blocks) if fresh else 0.0
        return Stage(start + fresh * seconds, self._memory(held), fresh * each)

    def bytes_of_state(self, cut: int) -> float:
        """Bytes of one example's state at a cut."""
        numbers = sum(
            math.prod(self.speed.length if size == -1 else size for size in shape)
            for shape in self.blocks[cut - 1].shapes
        )
        return float(numbers * BYTES[self.work.precision])

    def step(self, keep: int, freeze: int, *, live: bool) -> float:
        """Seconds an example takes in a step: reading, forward, backward, and its part of the update."""
        trained = self.trained_parameters(keep, freeze)
        through = self.speed.step * self.share(freeze, keep)
        return self._read(freeze, live=live) + through + self.speed.update * trained / self.work.batch_size

    def epoch(self, keep: int, freeze: int, *, live: bool = False) -> float:
        """Seconds of one epoch: a step for each training example, a forward pass for each validation one."""
        rows = self.work.examples - self.work.validation
        return rows * self.step(keep, freeze, live=live) + self._validation(keep, freeze, live=live)

    def training(self, keep: int, freeze: int, epochs: int, *, live: bool = False) -> float:
        """Seconds of a whole training: the epochs, the score at the start, and as many steps a refit."""
        if epochs == 0:
            return 0.0
        rows = self.work.examples - self.work.validation
        again = self.work.refits * epochs * rows * self.step(keep, freeze, live=live)
        start = self._validation(keep, freeze, live=live)
        return start + epochs * self.epoch(keep, freeze, live=live) + again

    def _read(self, freeze: int, *, live: bool) -> float:
        if not live:
            return 0.0
        return self.speed.decoding + self.speed.chain * self.share(0, freeze)

    def _validation(self, keep: int, freeze: int, *, live: bool) -> float:
        forward = self.speed.step / (1 + BACKWARD)
        each = self._read(freeze, live=live) + forward * self.share(freeze, keep)
        return self.work.validation * each

    def _affordable(
        self, keep: int, freeze: int, epochs: int, storing: float, *, live: bool, asked: bool
    ) -> int:
        left = self.left
        if asked:
            least = 1
        elif storing > 0.5 * left:
            return 0
        else:
            least = self.work.least_epochs
        one = self.training(keep, freeze, 1, live=live)
        each = self.training(keep, freeze, 2, live=live) - one
        first = one - each
        possible = epochs
        if each > 0:
            possible = math.floor(min(epochs, max(0.0, (left - storing) * SPARE - first) / each))
        return possible if possible >= min(least, epochs) else 0

    @property
    def left(self) -> float:
        """Seconds of the budget that are left after the probes."""
        return self.work.budget - self.work.spent - self.one_pass().seconds - self.probes().seconds

    def _memory(self, more: float) -> float | None:
        return self.speed.held + more if self.speed.held else None


def forecast(
    costs: Costs,
    candidates: Sequence[Candidate] = (),
    resizing: Stage | None = None,
    search: Stage | None = None,
) -> Forecast:
    """The pass, the probes and the candidates together, what goes before them and what chooses from them."""
    stages = costs.one_pass(), costs.probes()
    return Forecast(costs.speed, costs.work, *stages, tuple(candidates), resizing, search)
