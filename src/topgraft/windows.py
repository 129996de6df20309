"""Long texts in windows: what a network would cut off is read in further pieces of the same length.

Each piece is an example of its own with the label of its text, and all pieces of a text are in one group, so
that they stay on one side of every split. What is predicted of a text is the mean of what is said of its
pieces, and only that is scored on untouched texts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from topgraft.backbones.preprocess import TextPreprocess
from topgraft.backbones.types import Backbone
from topgraft.data.assemble import digest_of
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.settings import Settings


def must_window(settings: Settings, backbone: Backbone) -> None:
    """Refuse windows of what has none.

    Raises
    ------
    TopgraftError
        If the network reads no texts, or each example is scored by nested cross-validation.
    """
    if settings.windows == 1:
        return
    if not isinstance(backbone.preprocess, TextPreprocess):
        raise TopgraftError(
            f"--windows {settings.windows} is for texts; {backbone.source} reads {backbone.modality}s."
        )
    if settings.nested:
        raise TopgraftError(
            f"--windows {settings.windows} and --nested {settings.nested}: a text is scored as a whole, and "
            "learned from in pieces, so that it can't be both. Leave one out."
        )


def windowed(data: Data, backbone: Backbone, most: int) -> tuple[Data, str]:
    """Data whose long texts are given in at most ``most`` pieces each, and that in words.

    Nothing changes, and nothing is said, where ``most`` is 1. A pair of texts is never taken apart.
    """
    preprocess = backbone.preprocess
    if most == 1 or not isinstance(preprocess, TextPreprocess):
        return data, ""
    pieces = [preprocess.windows(str(text), most) for text in data.inputs]
    counts = np.array([len(some) for some in pieces])
    rows = np.repeat(np.arange(len(data)), counts)
    long = int((counts > 1).sum())
    said = (
        f"{long:,} of {len(data):,} texts are longer than {preprocess.max_length} tokens; in up to {most} "
        f"windows each they are {int(counts.sum()):,} examples (--windows)"
    )
    if not long:
        return data, said
    flat = [piece for some in pieces for piece in some]
    numbers = np.concatenate([np.arange(count) for count in counts])
    return _repeated(data, rows, numbers, flat), said


def _repeated(data: Data, rows: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any], flat: list[str]) -> Data:
    names = [
        data.names[row] if number == 0 else f"{data.names[row]}, window {number + 1}"
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)
    ]
    return replace(
        data,
        names=tuple(names),
        inputs=flat,
        targets=None if data.targets is None else data.targets[rows],
        groups=data.groups[rows],
        digests=tuple(digest_of(text) for text in flat),
        duplicates=(),
        conflicts=(),
    )
