"""Examples that an export is made and checked with: those that come with the package."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from topgraft import demo
from topgraft.backbones.grafted import input_shapes
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.chain.point import Shape
from topgraft.errors import TopgraftError
from topgraft.features.reading import at_least
from topgraft.saved import Model

TRACED = 3
CHECKED = (1, 5)
"""Numbers of examples: in the batch that is traced, and in those that are compared."""
_WORDS = 6
_LENGTHS = (7, 5, 11)


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
    """Packaged pictures or texts, preprocessed as the model does it; random numbers for arrays and rows.

    Raises
    ------
    TopgraftError
        For a model of sounds, of which none are packaged.
    """
    if model.modality == "sound":
        raise TopgraftError(
            "This model takes sounds, and there are none in the package to check an export on: models of "
            "sounds are not exported yet. The saved folder itself opens wherever Topgraft is installed."
        )
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
