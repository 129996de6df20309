"""What a model said of the untouched part, and its most confident mistakes, as a report shows them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from topgraft.data.types import Data

UNTOUCHED = "untouched.json"
SHOWN = 12
SIDE = 112
"""Pixels of the longer side of a picture that is shown."""
LETTERS = 280
"""Of a text that is shown."""

Array = np.ndarray[Any, np.dtype[Any]]


def untouched_json(data: Data, probabilities: Array) -> dict[str, Any]:
    """Targets, predictions, groups, and the most confident mistakes with what they are about.

    Parameters
    ----------
    data
        The untouched part, labelled.
    probabilities
        ``(n, classes)`` of the saved model.
    """
    targets, predictions = np.asarray(data.targets), probabilities.argmax(1)
    confidence = probabilities.max(1)
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
    if data.modality in ("array", "sound"):
        return {}
    example = data.decode(index, at_least=SIDE)
    if data.modality == "text":
        text = str(example)
        return {"text": text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"}
    picture: Any = example  # of this modality it is one
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "WEBP", quality=70)
    return {"picture": f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"}
