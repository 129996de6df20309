"""What a model said of the untouched part, and its most confident mistakes, as a report shows them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from topgraft.data.labels import said_of_labels
from topgraft.data.pairs import in_words
from topgraft.data.targets import said_of_numbers
from topgraft.data.types import Data
from topgraft.label_scores import HALF
from topgraft.ordered import middle_class

UNTOUCHED = "untouched.json"
SHOWN = 12
SIDE = 112
"""Pixels of the longer side of a picture that is shown."""
SHEET = "augmented.json"
"""Pictures as training saw them, in the folder of a run that changed any; see :mod:`topgraft.augmented`."""
LETTERS = 280
"""Of a text that is shown."""

Array = np.ndarray[Any, np.dtype[Any]]


def untouched_json(data: Data, said: Array) -> dict[str, Any]:
    """Targets, predictions, groups, and the most confident (or largest) mistakes with what they are about.

    Parameters
    ----------
    data
        The untouched part, labelled.
    said
        Of the saved model: probabilities ``(n, classes)``, of labels each for itself, or numbers
        ``(n, outputs)``.
    """
    if data.separator:
        return _of_labels(data, said)
    return _of_numbers(data, said) if data.outputs else _of_classes(data, said)


def _mistake(data: Data, i: int, label: str, predicted: str) -> dict[str, Any]:
    return {"input": data.names[i], "label": label, "predicted": predicted, **_shown(data, i)}


def _of_numbers(data: Data, numbers: Array) -> dict[str, Any]:
    targets = np.asarray(data.targets)
    spread = targets.std(0)
    away = np.abs(numbers - targets) / np.where(spread > 0, spread, 1.0)
    order = np.argsort(-away.max(1), kind="stable")[:SHOWN]
    return {
        "outputs": list(data.outputs),
        "names": list(data.names),
        "targets": targets.tolist(),
        "predictions": numbers.tolist(),
        "groups": np.asarray(data.groups).tolist(),
        "mistakes": [
            _mistake(data, int(i), said_of_numbers(targets[i]), said_of_numbers(numbers[i])) for i in order
        ],
    }


def _of_labels(data: Data, chances: Array) -> dict[str, Any]:
    """Mistakes are examples with a label wrongly given or withheld, those first where one was surest."""
    targets, given = np.asarray(data.targets), chances > HALF
    sureness = np.where(given != targets, np.abs(chances - HALF), -1.0).max(1)
    wrong = np.flatnonzero(sureness >= 0)
    order = wrong[np.argsort(-sureness[wrong], kind="stable")][:SHOWN]

    def said(row: Array) -> str:
        return said_of_labels(row, data.classes, data.separator) or "no label"

    return {
        "labels": list(data.classes),
        "names": list(data.names),
        "targets": targets.tolist(),
        "probabilities": chances.tolist(),
        "groups": np.asarray(data.groups).tolist(),
        "mistakes": [_mistake(data, int(i), said(targets[i]), said(given[i])) for i in order],
    }


def _of_classes(data: Data, probabilities: Array) -> dict[str, Any]:
    targets = np.asarray(data.targets)
    predictions = middle_class(probabilities) if data.is_ordered else probabilities.argmax(1)
    confidence = probabilities[np.arange(len(targets)), predictions]
    wrong = np.flatnonzero(predictions != targets)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]
    return {
        "classes": list(data.classes),
        "names": list(data.names),
        "targets": targets.tolist(),
        "predictions": predictions.tolist(),
        "confidence": confidence.tolist(),
        "groups": np.asarray(data.groups).tolist(),
        "mistakes": [
            {
                "input": data.names[i],
                "label": data.classes[targets[i]],
                "predicted": data.classes[predictions[i]],
                "confidence": float(confidence[i]),
                **_shown(data, int(i)),
            }
            for i in order
        ],
    }


def _shown(data: Data, index: int) -> dict[str, str]:
    """The example itself: a text, or a picture small enough to be written into a page; nothing of others."""
    if data.modality in ("array", "sound", "row"):
        return {}
    example = data.decode(index, at_least=SIDE)
    if data.modality == "text":
        text = in_words(str(example))
        return {"text": text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"}
    picture: Any = example  # of this modality it is one
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "WEBP", quality=70)
    return {"picture": f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"}
