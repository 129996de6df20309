"""Examples that an export is made and checked with: those that come with the package."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topgraft import demo
from topgraft.backbones.grafted import input_shapes
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.chain.point import Shape
from topgraft.data.sounds import Sound
from topgraft.features.reading import at_least
from topgraft.saved import Model

TRACED = 3
CHECKED = (1, 5)
"""Numbers of examples: in the batch that is traced, and in those that are compared."""
_WORDS = 6
_LENGTHS = (7, 5, 11)
_SECONDS = (0.7, 2.4, 1.6, 3.4, 0.4, 2.9, 5.1, 1.2, 4.0)
_RATE = 16_000


@dataclass(frozen=True)
class Examples:
    """Preprocessed batches.

    Parameters
    ----------
    kind
        What they are, in words.
    traced
        The batch that an export is made with.
    checked
        Batches of other sizes (and other lengths, where inputs have a length) that it is compared on.
    """

    kind: str
    traced: Mapping[str, Tensor]
    checked: tuple[Mapping[str, Tensor], ...]

    @property
    def count(self) -> int:
        """How many examples are compared."""
        return sum(len(next(iter(batch.values()))) for batch in self.checked)


def examples_of(model: Model) -> Examples:
    """Packaged pictures or texts, or sounds that are made, preprocessed as the model does it.

    Of arrays and rows it is random numbers.
    """
    if model.modality == "array":
        shapes, numbers = input_shapes(model.description), torch.Generator().manual_seed(0)
        sizes = zip((TRACED, *CHECKED), _LENGTHS, strict=True)
        traced, *checked = [_random(shapes, count, length, numbers) for count, length in sizes]
        return Examples("random arrays", traced, tuple(checked))
    if isinstance(model.preprocess, RowPreprocess):
        traced, *checked = [model.preprocess.example(count, seed=count) for count in (TRACED, *CHECKED)]
        return Examples("made-up rows", traced, tuple(checked))
    if model.modality == "picture":
        kind, raw = "packaged pictures", _pictures(model)
    elif model.modality == "sound":
        kind, raw = "made-up sounds", _sounds()
    else:
        kind, raw = "packaged texts", _texts()
    batches = [model.preprocess.batch(list(islice(raw, count))) for count in (TRACED, *CHECKED)]
    return Examples(kind, batches[0], tuple(batches[1:]))


def _pictures(model: Model) -> Iterator[Any]:
    """Pictures of one class after the other."""
    from topgraft.data.pictures import open_picture

    folders = [sorted(folder.iterdir()) for folder in sorted(demo.pictures().iterdir())]
    for same_place in zip(*folders, strict=False):
        for path in same_place:
            yield open_picture(path, at_least=at_least(model.preprocess))


def _texts() -> Iterator[str]:
    """Texts from the whole table; the first, which are traced, cut short: the others have other lengths."""
    with demo.glosses().open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][::150]
    yield from (" ".join(text.split()[:_WORDS]) for text in texts[:TRACED])
    yield from texts[TRACED:]


def _sounds() -> Iterator[Sound]:
    """Chords that die away, in noise: no two of them alike, and of other lengths than those traced."""
    numbers = np.random.default_rng(0)
    for place, seconds in enumerate(_SECONDS):
        t = np.arange(int(seconds * _RATE)) / _RATE
        pitch = 110 * 2 ** (place / 4)
        chord = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6 + place % 3))
        samples = 0.2 * chord * np.exp(-t * (place % 4)) + numbers.normal(0, 0.01, len(t))
        yield Sound(samples.astype(np.float32), _RATE)


def _random(
    shapes: Mapping[str, Shape], count: int, length: int, numbers: torch.Generator
) -> dict[str, Tensor]:
    batch = {}
    for name, shape in shapes.items():
        sizes = [dim.size(count, length) for dim in shape.dims]
        if shape.dtype.is_floating_point:
            batch[name] = torch.randn(sizes, generator=numbers, dtype=shape.dtype)
        else:
            batch[name] = torch.full(sizes, int("mask" in name), dtype=shape.dtype)
    return batch
