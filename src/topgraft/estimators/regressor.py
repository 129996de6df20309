"""A regressor with the conventions of scikit-learn's estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin

from topgraft.errors import TopgraftError
from topgraft.estimators.base import Array, FitError
from topgraft.estimators.predictor import TransferPredictor
from topgraft.head import Head
from topgraft.linear import fit_head
from topgraft.objective import Scale


class TransferRegressor(RegressorMixin, TransferPredictor):
    """A pretrained network, cut and partly frozen, with a new head, as a regressor of scikit-learn.

    Every example that :meth:`fit` is given trains, as with :class:`topgraft.TransferClassifier`, which says
    what ``X`` may be. Numbers are standardised inside; depth is chosen by the squared error on folds.

    Parameters
    ----------
    backbone, keep, freeze, weights, prefer, folds, budget, epochs, hidden, dropout
        As for :class:`topgraft.TransferClassifier`.
    augment, mixup, cutmix, size, resize, taps, engine, precision, store, random_state, verbose
        As there.

    Attributes
    ----------
    keep_, freeze_
        Blocks that were kept, and how many of them did not change.
    evidence_, advice_
        What the probes measured at every cut, and the advice; ``None`` where nothing was to be chosen.
    reasons_
        Why the decisions are what they are, in words.
    model_
        A :class:`topgraft.Model`, which gives numbers in the unit of ``y``; for numbers the head alone.
    modality_
        ``picture``, ``text``, ``sound``, ``array`` or ``numbers``.
    n_features_in_, feature_names_in_
        For numbers, as everywhere in scikit-learn.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 3.0], [3.0, 1.0], [4.0, 2.0], [5.0, 1.0]])
    >>> model = TransferRegressor().fit(X, 10 + 2 * X[:, 0])
    >>> model.predict([[2.5, 1.0]]).round(1).tolist()
    [15.0]
    """

    def fit(self, X: Any, y: Any) -> TransferRegressor:
        """Choose depth, train, and fit the head, on all examples.

        Parameters
        ----------
        X
            ``n`` examples, see :class:`topgraft.TransferClassifier`.
        y
            ``(n,)`` or ``(n, outputs)`` finite numbers.

        Raises
        ------
        FitError
            If there is one example only, or all numbers of an output are the same.
        TopgraftError
            If an example can't be used, or a parameter is out of range.

        Warns
        -----
        topgraft.estimators.on_all.NotMeasuredWarning
            If there are too few examples for folds: every block is then kept, or as many as asked for, and
            all of them are frozen.
        """
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")
        taken, numbers = self._taken(X, y, numbers=True)
        assert numbers is not None
        if len(numbers) < 2:
            raise FitError("X has 1 sample. Two or more are needed to learn from.")
        self._is_flat = numbers.ndim == 1
        # in one order of memory: sums over a frame's columns would else differ in their last bits
        targets = np.ascontiguousarray(numbers.reshape(len(numbers), -1), dtype=np.float64)
        names = tuple(f"y{i}" if targets.shape[1] > 1 else "y" for i in range(targets.shape[1]))
        try:
            scale = Scale.of(targets, names)
        except TopgraftError as problem:
            raise FitError(str(problem)) from None
        settings = self._told()
        if self._is_on_numbers():
            self._refuse_network(settings)
            fit = fit_head(torch.from_numpy(np.array(taken)), scale.standardised(targets))
            head = Head("vector", taken.shape[1], len(names)).double().start_from(fit)
            self._keep_head(head.in_units(scale))
        else:
            data, backbone = self._examined(taken, settings, targets, outputs=names)
            self._fit_network(data, backbone, settings)
        return self

    def predict(self, X: Any) -> Array:
        """Numbers in the unit of ``y``, of its shape: ``(n,)`` or ``(n, outputs)`` float64."""
        found = self._given_out(X)
        return found[:, 0] if self._is_flat else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags
