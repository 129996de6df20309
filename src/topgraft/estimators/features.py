"""A transformer with the conventions of scikit-learn's: pooled activations at a cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import type_of_target

from topgraft.backbones.types import Backbone
from topgraft.choices import resolve_keep
from topgraft.estimators.base import Array, FitError, Transfer, must_be_one
from topgraft.estimators.given import names_of
from topgraft.estimators.on_all import choose_depth, features_at
from topgraft.pooling import width
from topgraft.stages import engine_for

if TYPE_CHECKING:
    from torch import nn


class TransferFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Transfer):
    """The pooled activations of a pretrained network at a cut, as a transformer of scikit-learn.

    Parameters
    ----------
    backbone
        As for :class:`TransferClassifier`, which also says what ``X`` may be. Numbers without a backbone stay
        as they are.
    keep
        The cut: ``all``, a count, a share or a block's name; ``auto`` chooses it by probes on the labels that
        :meth:`fit` is given.
    weights, prefer, folds, size, engine, precision, store, random_state
        As for :class:`TransferClassifier`.

    Attributes
    ----------
    keep_
        Blocks up to the cut.
    evidence_, advice_
        With ``auto``: what the probes measured at every cut, and the advice; else ``None``.
    modality_
        ``picture``, ``text``, ``sound``, ``array``, ``row`` or ``numbers``.
    engine_, precision_
        What runs the blocks.

    Examples
    --------
    >>> TransferFeatures().fit_transform([[1.0, 2.0], [3.0, 4.0]]).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """

    def __init__(
        self,
        backbone: str | nn.Module | Backbone | None = None,
        *,
        keep: str | int = "all",
        weights: str | Path = "auto",
        prefer: str = "small",
        folds: int = 5,
        size: int | None = None,
        engine: str = "torch",
        precision: str = "fp32",
        store: str | Path | bool | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.backbone = backbone
        self.keep = keep
        self.weights = weights
        self.prefer = prefer
        self.folds = folds
        self.size = size
        self.engine = engine
        self.precision = precision
        self.store = store
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> TransferFeatures:
        """Load the backbone and settle the cut.

        Parameters
        ----------
        X
            ``n`` examples.
        y
            What only ``keep="auto"`` reads: ``n`` labels, ``(n, labels)`` zeros and ones, or numbers to be
            predicted, ``(n,)`` or ``(n, outputs)`` floats of which some have a fraction.

        Raises
        ------
        TopgraftError
            If an example can't be used, a parameter is out of range, or ``keep="auto"`` has no labels or too
            few of a class for folds.
        """
        is_auto = str(self.keep).strip() == "auto"
        kind = type_of_target(y, input_name="y") if is_auto and y is not None else ""
        numbers, several = kind.startswith("continuous"), kind == "multilabel-indicator"
        taken, labels = self._taken(X, y if is_auto else None, numbers=numbers, several=several)
        settings = self._settings("keep", "weights", "prefer", "folds", "size", "engine", "precision")
        self.evidence_ = self.advice_ = None
        if self._is_on_numbers():
            must_be_one("keep", settings.keep)
            self.modality_, self.keep_, self._n_features_out = "numbers", 1, taken.shape[1]
            return self
        if is_auto and labels is None:
            raise FitError('keep="auto" is chosen by probes, which need labels: give y, or another keep.')
        told: dict[str, Any] = {}
        if numbers:
            assert labels is not None
            labels = labels.reshape(len(labels), -1)
            told["outputs"] = [f"y{i}" for i in range(labels.shape[1])]
        elif several:
            assert labels is not None
            told["classes"] = [str(i) for i in range(labels.shape[1])]
        elif labels is not None:
            classes, labels = np.unique(labels, return_inverse=True)
            told["classes"] = names_of(classes)
        data, backbone = self._examined(taken, settings, labels, **told)
        with self._store_for_fit() as store:
            choice = engine_for(backbone, data, store, settings)
            self.engine_, self.precision_ = choice.engine, choice.precision
            keep = resolve_keep(settings.keep, backbone.chain, backbone.source)
            if keep is None:
                decided = replace(settings, engine=choice.engine, precision=choice.precision)
                self.evidence_, self.advice_ = choose_depth(data, backbone, decided, store)
                keep = self.advice_.keep
        self.keep_, self.modality_, self._backbone = keep, backbone.modality, backbone
        self._n_features_out = width(backbone.chain.blocks[keep - 1])
        return self

    def transform(self, X: Any) -> Array:
        """Features ``(n, width)`` float32 at the cut; numbers without a backbone as they are."""
        new = self._new(X)
        if self.modality_ == "numbers":
            return np.array(new)
        store = self._kept_store()
        return features_at(
            self._backbone, self.keep_, new, store, engine=self.engine_, precision=self.precision_
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if self.backbone is None else []
        return tags
