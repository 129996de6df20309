"""Simple baselines of the field: what can be had without any pretrained network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from topgraft.data.columns import Rows
from topgraft.data.types import Data

LEVELS = 4
"""Of each colour in the joint histogram."""
SIDE = 64
"""Pixels to which a picture is made smaller before its colours are counted."""
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Of the logistic regression (``C``), chosen by cross-validation."""
FOLDS = 3

Array = np.ndarray[Any, np.dtype[Any]]

NAMES = {
    "text": "TF-IDF and logistic regression",
    "picture": "colour histogram and logistic regression",
    "sound": "mel bands and logistic regression",
    "array": "raw numbers and logistic regression",
    "row": "columns (categories one-hot) and logistic regression",
}


def raw_features(data: Data) -> Any:
    """What a baseline learns from, of every example: texts and rows as they are, else ``(n, width)`` float64.

    Pictures give the joint histogram of their colours, four levels each, as square roots of the shares;
    sounds mean and spread of their mel bands; arrays their numbers.
    """
    if data.modality == "text":
        return np.array([str(data.inputs[i]) for i in range(len(data))], dtype=object)
    if data.modality == "row":
        return np.array([_known_cells(data, i) for i in range(len(data))], dtype=object)
    if data.modality == "array":
        return np.stack([np.asarray(data.inputs[i], dtype=np.float64).ravel() for i in range(len(data))])
    if data.modality == "sound":
        return np.stack([mel_statistics(data.decode(i)) for i in range(len(data))])
    return np.stack([colour_histogram(data.decode(i, at_least=SIDE)) for i in range(len(data))])


def _known_cells(data: Data, index: int) -> dict[str, Any]:
    """A row with not-a-number for a missing number, and without categories that are missing."""
    assert isinstance(data.inputs, Rows)
    kinds = {name: column.kind for name, column in data.inputs.columns.items()}
    row = {n: math.nan if v is None and kinds[n] == "number" else v for n, v in data.inputs[index].items()}
    return {name: cell for name, cell in row.items() if cell is not None}


def colour_histogram(picture: Any) -> Array:
    """Square roots of the shares of 64 colours in an RGB picture (Swain & Ballard 1991, Color indexing).

    Examples
    --------
    >>> from PIL import Image
    >>> float(colour_histogram(Image.new("RGB", (5, 5), "white"))[-1])
    1.0
    """
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    levels = np.asarray(small, dtype=np.int64).reshape(-1, 3) * LEVELS // 256
    place = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    share: Array = np.sqrt(np.bincount(place, minlength=LEVELS**3) / len(place))
    return share


def mel_statistics(sound: Any) -> Array:
    """Mean and standard deviation over time of 40 mel bands in decibels, 80 numbers.

    Examples
    --------
    >>> from topgraft.data import Sound
    >>> mel_statistics(Sound(np.zeros(16_000, dtype=np.float32), 16_000)).round(1)[[0, -1]].tolist()
    [-100.0, 0.0]
    """
    from topgraft.backbones.sound_preprocess import SoundPreprocess

    decibels = 10 * np.log10(np.maximum(SoundPreprocess(loudness=None).mel(sound).numpy(), 1e-10))
    found: Array = np.concatenate([decibels.mean(axis=0), decibels.std(axis=0)]).astype(np.float64)
    return found


def fit_baseline(modality: str, features: Any, targets: Array, *, seed: int = 0) -> Any:
    """A fitted scikit-learn pipeline: features of the field, then logistic regression.

    Parameters
    ----------
    modality
        Of the data.
    features
        Rows of :func:`raw_features`.
    targets
        ``(n,)`` class indices.
    seed
        Of the folds that choose the penalty; where a class has too few examples for folds, it is 1.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    before: list[Any] = [StandardScaler()]
    if modality == "text":
        before = [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)]
    if modality == "row":
        before = [DictVectorizer(sparse=False), SimpleImputer(add_indicator=True), StandardScaler()]
    pipeline = make_pipeline(*before, LogisticRegression(max_iter=2000))
    folds = min(FOLDS, int(np.unique(targets, return_counts=True)[1].min()))
    if folds < 2:
        return pipeline.fit(features, targets)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    search = GridSearchCV(pipeline, {"logisticregression__C": PENALTIES}, cv=splits)
    return search.fit(features, targets)


def answers(model: Any, features: Any) -> Array:
    """``(n,)`` class indices; a class that was not in the training part is never answered."""
    found: Array = np.asarray(model.predict(features), dtype=np.int64)
    return found
