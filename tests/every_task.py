"""Real data for every modality and task: a few inputs, and what is to be learned of each.

Of each input two things are known: which of two or three kinds it is, and a number that was measured. One
label is the kind; numbers are the measured ones; ordered classes are their thirds; several labels are whether
it is of the first kind and whether the number is high.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_sounds import INSTRUMENTS, pitch_of, write_sounds
from packaged_data import glosses_of, pictures_of
from torch import nn

import topgraft as tg
from topgraft.backbones import RowPreprocess
from topgraft.backbones.types import Backbone
from topgraft.estimators.given import rows_in

MODALITIES = ("picture", "text", "sound", "row", "array")
TASKS = ("classification", "multilabel", "regression", "ordinal")
LEVELS = ("low", "middle", "high")
SEPARATOR = "|"


@dataclass(frozen=True)
class Examples:
    """Inputs with their kinds and numbers.

    ``inputs`` are paths, texts, a frame of rows or an array ``(n, 64)``; ``kinds`` names, ``values`` floats.
    """

    modality: str
    inputs: Any
    kinds: Sequence[str]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def part(self, rows: np.ndarray) -> Examples:
        """Some of them."""
        frame = isinstance(self.inputs, pd.DataFrame)
        inputs = self.inputs.iloc[rows].reset_index(drop=True) if frame else [self.inputs[i] for i in rows]
        inputs = np.stack(inputs) if self.modality == "array" else inputs
        return Examples(self.modality, inputs, [self.kinds[i] for i in rows], self.values[rows])

    def parted(self) -> tuple[Examples, Examples]:
        """Four of five to learn from, and the rest; kinds that take turns are in both."""
        at = np.arange(len(self))
        return self.part(at[at % 5 != 4]), self.part(at[at % 5 == 4])


def names_of(task: str, examples: Examples, limits: Sequence[float]) -> list[str]:
    """The cell of the label of each example, as a table has it.

    ``limits`` are the thirds and the median of the numbers, so that two parts have the same.
    """
    low, high, middle = limits
    if task == "classification":
        return list(examples.kinds)
    if task == "regression":
        return [repr(float(value)) for value in examples.values]
    if task == "ordinal":
        return [LEVELS[int(value > low) + int(value > high)] for value in examples.values]
    first = sorted(set(examples.kinds))[0]
    each = zip(examples.kinds, examples.values, strict=True)
    return [
        SEPARATOR.join(name for name, has in (("first", kind == first), ("large", value > middle)) if has)
        for kind, value in each
    ]


def targets_of(task: str, examples: Examples, limits: Sequence[float]) -> Any:
    """What Python is given: names, lists of names, or ``(n,)`` float64."""
    cells = names_of(task, examples, limits)
    if task == "multilabel":
        return [cell.split(SEPARATOR) if cell else [] for cell in cells]
    return np.array([float(cell) for cell in cells]) if task == "regression" else cells


def cases(modalities: Iterable[str], kinds: Iterable[str], sample: Collection[tuple[str, str]]) -> list[Any]:
    """Every modality with every kind of work; those that are not of the sample are exhaustive."""
    return [
        pytest.param(
            modality,
            kind,
            id=f"{modality}-{kind}",
            marks=[] if (modality, kind) in sample else pytest.mark.exhaustive,
        )
        for modality in modalities
        for kind in kinds
    ]


def limits_of(examples: Examples) -> tuple[float, float, float]:
    """The thirds of the numbers, and their median."""
    low, high, middle = np.quantile(examples.values, [1 / 3, 2 / 3, 1 / 2])
    return float(low), float(high), float(middle)


def pictures(_place: Path) -> Examples:
    """48 packaged pictures of animals and of food, and how bright each is on average."""
    from PIL import Image

    found = [
        (path, name) for i in range(24) for name in ("animals", "food") for path in pictures_of(name, i, 1)
    ]
    bright = []
    for path, _ in found:
        with Image.open(path) as opened:
            bright.append(float(np.asarray(opened.convert("L")).mean()))
    return Examples("picture", [path for path, _ in found], [name for _, name in found], np.array(bright))


def texts(_place: Path) -> Examples:
    """60 packaged glosses of three kinds, and how many tens of words each has."""
    found = sorted(glosses_of(("animal", "food", "person"), 20))
    words = np.array([len(text.split()) / 10 for text, _ in found])
    return Examples("text", [text for text, _ in found], [name for _, name in found], words)


def sounds(place: Path) -> Examples:
    """48 made notes of three instruments, and the pitch of each in octaves."""
    write_sounds(place / "notes", 16)
    found = sorted((place / "notes").glob("*/*"), key=lambda path: (path.stem, path.parent.name))
    pitch = [np.log2(pitch_of(path.parent.name, int(path.stem)) / 110) for path in found]
    assert len(found) == 16 * len(INSTRUMENTS)
    return Examples("sound", found, [path.parent.name for path in found], np.array(pitch))


def rows(_place: Path) -> Examples:
    """400 patients of scikit-learn's diabetes data, their sex, and a tenth of how far the illness went."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame[:400]
    kinds = ["female" if sex == 1 else "male" for sex in frame["sex"]]
    return Examples("row", frame.drop(columns=["sex", "target"]), kinds, frame["target"].to_numpy(float) / 10)


def arrays(_place: Path) -> Examples:
    """120 of scikit-learn's digits 0, 1 and 2 as 64 numbers, and the ink in the upper half of each."""
    from sklearn.datasets import load_digits

    pictures, digits = load_digits(n_class=3, return_X_y=True)
    few, ink = pictures[:120].astype(np.float32), pictures[:120].reshape(-1, 8, 8)
    return Examples("array", few, [f"digit {d}" for d in digits[:120]], ink[:, :4].mean((1, 2)))


MADE: dict[str, Callable[[Path], Examples]] = {
    "picture": pictures, "text": texts, "sound": sounds, "row": rows, "array": arrays,
}  # fmt: skip


def table(task: str, examples: Examples, limits: Sequence[float], path: Path) -> Path:
    """The examples as a table: labels in ``said``, inputs in ``path``, ``text`` or columns of rows."""
    labels = names_of(task, examples, limits)
    if examples.modality == "row":
        frame = examples.inputs.assign(said=labels)
    else:
        name = "text" if examples.modality == "text" else "path"
        frame = pd.DataFrame({name: [str(one) for one in examples.inputs], "said": labels})
    frame.to_csv(path, index=False)
    return path


def options_of(task: str) -> list[str]:
    """What the command line is told of a task."""
    return {
        "classification": ["--task", "classification"],
        "multilabel": ["--separator", SEPARATOR],
        "regression": ["--task", "regression"],
        "ordinal": ["--order", ",".join(LEVELS)],
    }[task]


def network_for(modality: str, examples: Examples) -> Backbone:
    """The packaged network; for arrays one of one's own, for rows the one for these columns, both random."""
    if modality == "array":
        torch.manual_seed(2)
        layers = [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)]
        return tg.load(
            nn.Sequential(*layers).eval(), modality="array", example=torch.as_tensor(examples.inputs[:4])
        )
    if modality == "row":
        return tg.load("rows", preprocess=RowPreprocess.of(rows_in(examples.inputs)))
    return tg.load(modality=modality)
