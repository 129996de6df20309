"""Labels and probabilities for new examples; the one path that scores and services use too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.preprocess import TextPreprocess
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.chain import Inputs, State
from topgraft.chain.recurrent import compact
from topgraft.data.lazily import is_file
from topgraft.data.pairs import are_two, is_pair, pair_of
from topgraft.data.types import Data, Modality
from topgraft.data.unlabelled import Row
from topgraft.errors import TopgraftError
from topgraft.features.converted import store_if_any
from topgraft.features.engine import engine_of, usable
from topgraft.features.reading import at_least
from topgraft.features.store import Store
from topgraft.halving import Halving, part_of
from topgraft.label_scores import HALF
from topgraft.ordered import median_of
from topgraft.saved import Model
from topgraft.side_by_side import in_order, single_threaded
from topgraft.tta import must_view, view

BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """What the model says of one input.

    Parameters
    ----------
    input
        The path as given (folder + relative path), or the row number.
    label
        The most probable class, of ordered ones the median; where an example may have several labels those of
        a probability above a half, with the model's separator between them. ``None`` at an error, and where
        numbers are predicted.
    confidence
        Its probability, 0 to 1. Of several labels that of the least certain one to be right, there or not.
    probabilities
        Per class, in the order of the model's classes, of several labels each for itself; empty at an error.
    error
        Why there is no prediction, in few words.
    values
        Predicted numbers, in the order of the model's outputs and in the target's unit; empty at an error,
        and where classes are predicted.
    """

    input: str
    label: str | None
    confidence: float | None
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    values: tuple[float, ...] = ()

    def row(self, classes: Iterable[str], outputs: Iterable[str] = ()) -> dict[str, Any]:
        """The fixed columns ``input, label, confidence, p_<class>…, error``.

        Where numbers are predicted: ``input, prediction, error``, of several ``prediction_<output>…``.
        """
        if numbers := number_columns(outputs):
            found = self.values or (None,) * len(numbers)
            return {"input": self.input, **dict(zip(numbers, found, strict=True)), "error": self.error}
        names = list(classes)
        values = self.probabilities or (None,) * len(names)
        return {
            "input": self.input,
            "label": self.label,
            "confidence": self.confidence,
            **{f"p_{name}": value for name, value in zip(names, values, strict=True)},
            "error": self.error,
        }


def number_columns(outputs: Iterable[str]) -> list[str]:
    """Columns of predicted numbers in the rows of ``predict``.

    Examples
    --------
    >>> number_columns(["price"]), number_columns(["width", "height"]), number_columns([])
    (['prediction'], ['prediction_width', 'prediction_height'], [])
    """
    names = list(outputs)
    return ["prediction"] if len(names) == 1 else [f"prediction_{name}" for name in names]


class Predictor:
    """Runs a model: the frozen part in an inference engine, then the rest.

    Parameters
    ----------
    model
        An opened graft.
    store
        Where a converted network is kept; the default one where none is given.
    tta
        Views of each picture whose answers are averaged, see :mod:`topgraft.tta`; 1 for the picture alone.

    Raises
    ------
    TopgraftError
        If the model reads no pictures and there is more than one view.
    """

    def __init__(self, model: Model, *, store: Store | None = None, tta: int = 1) -> None:
        must_view(tta, model.modality)
        self.model, self.tta = model, tta
        self._halving = Halving()
        graft = model.graft
        self.engine = None
        name = usable(model.engine) if graft.frozen is not None or model.engine == "cuda" else "torch"
        if graft.frozen is not None:
            place = (store or store_if_any()) if name == "openvino" else None
            self.engine = engine_of(graft.frozen, name=name, precision=model.precision, store=place)
        self.device = "cuda" if name == "cuda" else "cpu"
        graft.to(self.device)
        compact(graft)

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits, or numbers, ``(batch, outputs)`` float32 on the CPU of a preprocessed batch.

        It is run in halves, which is said, where memory is too little.
        """
        return self._in_halves(inputs, self.model.graft.from_state)

    def features(self, decoded: list[Any]) -> Tensor:
        """What the head reads of decoded examples, ``(batch, width)`` float32 on the CPU.

        Of a text that is read in windows it is the mean over them.
        """
        features, batch = self.model.graft.features, self.model.preprocess.batch
        return self._over_windows(decoded, lambda some: self._in_halves(batch(some), features))

    def _in_halves(self, inputs: dict[str, Tensor], rest: Callable[[State | Inputs], Tensor]) -> Tensor:
        """The frozen part, then what comes after it."""
        count = len(next(iter(inputs.values())))
        if count == 0:
            return self._run(inputs, rest)
        return self._halving.run(range(count), lambda rows: self._run(part_of(inputs, rows), rest), torch.cat)

    def _run(self, inputs: dict[str, Tensor], rest: Callable[[State | Inputs], Tensor]) -> Tensor:
        self.model.graft.eval()
        with torch.inference_mode():
            if self.engine is None:
                return rest({n: t.to(self.device) for n, t in inputs.items()}).float().cpu()
            state = self.engine.run(inputs)
            return rest(state.to(dtype=torch.float32)).float().cpu()

    def predict(self, rows: Iterable[Row], *, batch_size: int = BATCH) -> Iterator[Prediction]:
        """Predictions in the order of the rows; a row that can't be read gives one with an error.

        Batches are decoded and computed side by side; memory does not grow with the number of rows.
        """
        with single_threaded() as cores:
            for predictions in in_order(self.batch, _chunks(rows, batch_size), workers=cores):
                yield from predictions

    def batch(self, chunk: list[Row]) -> list[Prediction]:
        """Predictions of a few rows, run as one batch by the calling thread; several threads may call it."""
        return list(self._said(chunk, *self.read(chunk)))

    def _answers(self, decoded: list[Any]) -> Tensor:
        """Probabilities or numbers ``(batch, outputs)`` float64, the mean over views or windows."""
        total = self._over_windows(decoded, self._chances)
        for number in range(1, self.tta):
            total = total + self._chances([view(one, number) for one in decoded])
        return total if self.tta == 1 else total / self.tta

    def _over_windows(self, decoded: list[Any], said: Callable[[list[Any]], Tensor]) -> Tensor:
        """What is said of each example, or the mean over the windows of each text that is read in some."""
        if self.model.windows == 1 or not isinstance(self.model.preprocess, TextPreprocess):
            return said(decoded)
        pieces = [self.model.preprocess.windows(text, self.model.windows) for text in decoded]
        flat = said([piece for some in pieces for piece in some])
        return torch.stack([some.mean(0) for some in flat.split([len(some) for some in pieces])])

    def _chances(self, decoded: list[Any]) -> Tensor:
        said = self.logits(self.model.preprocess.batch(decoded)).double()
        return said if self.model.outputs else _chances(said, several=bool(self.model.separator))

    def _said(self, chunk: list[Row], errors: list[str | None], decoded: list[Any]) -> Iterator[Prediction]:
        numbers, separator, is_ordered = bool(self.model.outputs), self.model.separator, self.model.is_ordered
        found = iter(self._answers(decoded).tolist() if decoded else [])
        for row, error in zip(chunk, errors, strict=True):
            if error is not None:
                yield Prediction(row.name, None, None, (), error)
                continue
            p = next(found)
            if numbers:
                yield Prediction(row.name, None, None, values=tuple(p))
                continue
            if separator:
                given = [name for name, share in zip(self.model.classes, p, strict=True) if share > HALF]
                sure = min(max(share, 1 - share) for share in p)
                yield Prediction(row.name, separator.join(given), sure, tuple(p))
                continue
            best = median_of(p) if is_ordered else max(range(len(p)), key=p.__getitem__)
            yield Prediction(row.name, self.model.classes[best], p[best], tuple(p))

    def read(self, chunk: Sequence[Row]) -> tuple[list[str | None], list[Any]]:
        """Why each row can't be read, if so, and what the others hold, ready for preprocessing."""
        errors: list[str | None] = []
        decoded = []
        for row in chunk:
            error, value = row.error, None
            if error is None:
                try:
                    value = self._decode(row.value, row.digest)
                except TopgraftError as problem:
                    error = getattr(problem, "reason", None) or str(problem)
            errors.append(error)
            if error is None:
                decoded.append(value)
        return errors, decoded

    def _decode(self, value: Any, digest: str | None) -> Any:
        if digest is not None and is_file(value) and self.model.modality != "text":
            from topgraft.data.pictures import unchanged

            value = unchanged(value, digest)
        if self.model.modality == "picture":
            from topgraft.data.pictures import as_rgb, content_of, open_picture

            content = content_of(value)
            if content is None:
                return as_rgb(value)
            return open_picture(content, at_least=at_least(self.model.preprocess))
        if self.model.modality == "sound":
            from topgraft.data.sounds import sound_of

            return sound_of(value)
        if isinstance(self.model.preprocess, RowPreprocess):
            self.model.preprocess.encoded(value)  # a row that can't be used is one by itself, not its batch
            return value
        return value if self.model.modality == "array" else self._text(value)

    def _text(self, value: Any) -> str:
        text = str(pair_of(*value) if are_two(value) else value)
        if is_pair(text) == self.model.takes_pairs:
            return text
        if self.model.takes_pairs:
            raise TopgraftError("one text; this model was fitted on pairs of texts")
        raise TopgraftError("a pair of texts; this model was fitted on single ones")


def column_notes(model: Model, names: Sequence[str], origin: str) -> list[str]:
    """How the columns of some rows fit those that a model of rows knows; nothing for other models.

    Raises
    ------
    TopgraftError
        If none of them is known.
    """
    known = model.preprocess
    if not isinstance(known, RowPreprocess):
        return []
    aside = {part for name in model.columns.values() for part in (name, *name.split(","))}
    return known.found_by_name([name for name in names if name not in aside], origin)


def _chances(logits: Tensor, *, several: bool) -> Tensor:
    """Probabilities of classes, or of several labels, each for itself."""
    return torch.sigmoid(logits) if several else torch.softmax(logits, 1)


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    waiting = iter(rows)
    while chunk := list(islice(waiting, size)):
        yield chunk


def rows_of(data: Data) -> Iterator[Row]:
    """The inputs of labelled data, as rows to predict; files must be what they were when they were read."""
    for name, value, digest in zip(data.names, data.inputs, data.digests, strict=True):
        yield Row(name, value, None, digest)


def predicted_classes(predictions: Iterable[Prediction], classes: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """``(n,)`` int64 class indices; -1 where there was an error."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([-1 if p.label is None else index[p.label] for p in predictions], dtype=np.int64)


def predict(
    model: Model | str | Path, inputs: Any, *, column: str | None = None, tta: int = 1
) -> list[Prediction]:
    """Predict from Python.

    Parameters
    ----------
    model
        An opened graft, or its folder.
    inputs
        Paths, folders, a table, or ``-`` (as on the command line); or a list of texts, pairs of texts,
        pictures, sounds or arrays.
        For a model of texts a path of a file that is there is a table, and any other ``str`` is a text. For
        one of rows also a data frame, or a list of mappings from the name of a column to its cell.
    column
        Of a table.
    tta
        Views of each picture whose answers are averaged, see :mod:`topgraft.tta`.

    Returns
    -------
    list of Prediction
        In the order given.
    """
    from topgraft.data.objects import frame_cells
    from topgraft.data.unlabelled import rows
    from topgraft.saved import open_model

    opened = open_model(model) if isinstance(model, (str, Path)) else model
    is_one = isinstance(inputs, (str, Path))
    if opened.modality == "row" and hasattr(inputs, "columns"):
        cells = frame_cells(inputs)
        inputs = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    items = [inputs] if is_one else list(inputs)
    if opened.modality == "text":
        from_files = is_one and (isinstance(inputs, Path) or inputs == "-" or os.path.exists(inputs))
    else:
        from_files = bool(items) and all(isinstance(item, (str, Path)) for item in items)
    if from_files:
        column = column or opened.columns.get("text" if opened.modality == "text" else "path")
        given = rows([str(i) for i in items], modality=cast("Modality", opened.modality), column=column)
    else:
        given = (Row(str(i), item, None) for i, item in enumerate(items))
    return list(Predictor(opened, tta=tta).predict(given))
