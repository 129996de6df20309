"""What training reads, batch by batch: stored features, stored states, or the examples themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from topgraft.backbones.described import Preprocess
from topgraft.chain import Inputs, State
from topgraft.data.types import Data
from topgraft.device import has_gpu
from topgraft.features.engine import Engine
from topgraft.features.reading import decoded
from topgraft.features.shelf import Shelf

IN_MEMORY = 4 * 2**30
"""Bytes up to which stored states are held in memory; beyond, each batch is read from the store."""
ON_GPU = 0.25
"""Of a GPU's free memory that stored states may take, so that no step waits for a copy of them."""


class Source(Protocol):
    """Gives batches of what the trainable part reads, on the CPU or where trainings run."""

    def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs | Tensor:
        """The examples at ``rows``; with ``training`` augmented, where the source augments."""


class FeatureSource:
    """Pooled features ``(n, width)``: everything but the head is frozen."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def batch(self, rows: Sequence[int], *, training: bool) -> Tensor:  # noqa: ARG002 (the protocol's form)
        """``(len(rows), width)`` float32."""
        return self.features[list(rows)]


class StateSource:
    """Stored states at a cut, in memory where they fit: the GPU's, where trainings run there.

    Parameters
    ----------
    shelf
        Where they are stored.
    digests
        Of the examples, in the order of their rows.
    among
        How many such sources share the memory.
    """

    def __init__(self, shelf: Shelf, digests: Sequence[str], *, among: int = 1) -> None:
        self.shelf: Shelf | None = shelf
        self.digests = list(digests)
        self._held: dict[str, Tensor | list[Tensor]] | None = None
        first = shelf.read(self.digests[:8])
        bytes_each = sum(_bytes(a) for a in first.values()) / max(1, min(8, len(self.digests)))
        if bytes_each * len(self.digests) <= IN_MEMORY // among:
            self._held = shelf.read(self.digests)
            if has_gpu() and bytes_each * len(self.digests) < ON_GPU * torch.cuda.mem_get_info()[0] / among:
                self._held = {n: a.cuda() if isinstance(a, Tensor) else a for n, a in self._held.items()}

    @property
    def is_held(self) -> bool:
        """Whether all states are in memory."""
        return self._held is not None

    def by_itself(self) -> StateSource:
        """The same states from memory, for a process that has not this store."""
        alone = copy.copy(self)
        alone.shelf = None
        return alone

    def __getstate__(self) -> dict[str, Any]:
        """Sequences as one array a name: as views, each would be pickled with all that it is a view of."""
        held = None if self._held is None else {n: _packed(a) for n, a in self._held.items()}
        return {**vars(self), "_held": held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The same sequences again."""
        held = state["_held"]
        vars(self).update(state)
        self._held = None if held is None else {n: _unpacked(*pair) for n, pair in held.items()}

    def batch(self, rows: Sequence[int], *, training: bool) -> State:  # noqa: ARG002 (the protocol's form)
        """A state of ``len(rows)`` examples in float32, sequences padded to the longest."""
        if self._held is not None:
            arrays = {n: _rows(a, rows) for n, a in self._held.items()}
        else:
            assert self.shelf is not None
            arrays = self.shelf.read([self.digests[i] for i in rows])
        whole = {
            n: a if isinstance(a, Tensor) else pad_sequence(a, batch_first=True) for n, a in arrays.items()
        }
        count = sum(1 for n in whole if n.startswith("t"))
        return State(
            tuple(whole[f"t{i}"].float() for i in range(count)),
            {n.removeprefix("in."): a for n, a in whole.items() if n.startswith("in.")},
        )


class ViewSource:
    """Stored states of several views of each example.

    Training reads one of them, drawn anew for each example and batch from torch's own stream of numbers; all
    else reads the examples as they are.

    Parameters
    ----------
    views
        States of the same examples, at a cut where they have one size; the first are those of the examples
        as they are.
    """

    def __init__(self, views: Sequence[StateSource]) -> None:
        self.views = views

    def batch(self, rows: Sequence[int], *, training: bool) -> State:
        """A state of ``len(rows)`` examples in float32."""
        if not training:
            return self.views[0].batch(rows, training=False)
        drawn = torch.randint(len(self.views), (len(rows),))
        parts = [
            (places, self.views[view].batch([rows[i] for i in places.tolist()], training=True))
            for view in range(len(self.views))
            if len(places := torch.nonzero(drawn == view).flatten())
        ]
        back = torch.cat([places for places, _ in parts]).argsort()
        first = parts[0][1]
        return State(
            tuple(
                torch.cat([state.tensors[i] for _, state in parts])[back] for i in range(len(first.tensors))
            ),
            {name: torch.cat([state.inputs[name] for _, state in parts])[back] for name in first.inputs},
        )


def _rows(array: Tensor | list[Tensor], rows: Sequence[int]) -> Tensor | list[Tensor]:
    return array[list(rows)] if isinstance(array, Tensor) else [array[i] for i in rows]


def _packed(array: Tensor | list[Tensor]) -> tuple[Tensor, list[int] | None]:
    if isinstance(array, Tensor):
        return array.clone().cpu(), None
    return torch.cat(array), [len(part) for part in array]


def _unpacked(array: Tensor, lengths: list[int] | None) -> Tensor | list[Tensor]:
    return array if lengths is None else list(array.split(lengths))


def _bytes(array: Tensor | list[Tensor]) -> int:
    return array.nbytes if isinstance(array, Tensor) else sum(t.nbytes for t in array)


Augment = Callable[[Any], Any]
"""From a decoded example to a changed one, such as a picture's random crop."""


class LiveSource:
    """The examples, decoded each time; through the frozen part where there is one.

    For training from the inputs, and for augmentation, where every view of an example is new.
    """

    def __init__(
        self, data: Data, preprocess: Preprocess, *, engine: Engine | None, augment: Augment | None
    ) -> None:
        self.data, self.preprocess, self.engine, self.augment = data, preprocess, engine, augment

    def batch(self, rows: Sequence[int], *, training: bool) -> State | Inputs:
        """Inputs of the network, or the state at the engine's cut in float32."""
        examples = decoded(self.preprocess, self.data, rows)
        if training and self.augment is not None:
            examples = [self.augment(example) for example in examples]
        inputs = self.preprocess.batch(examples)
        if self.engine is None:
            return inputs
        state = self.engine.run(inputs)
        return State(tuple(t.float().clone() for t in state.tensors), dict(state.inputs))
