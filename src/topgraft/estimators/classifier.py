"""A classifier with the conventions of scikit-learn's estimators."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from topgraft.advise import DepthAdvice
from topgraft.backbones.types import Backbone
from topgraft.calibration import log_softmax
from topgraft.choices import AUTO
from topgraft.console import Console
from topgraft.errors import TopgraftError
from topgraft.estimators.base import Array, FitError, Transfer, must_be_one
from topgraft.estimators.given import names_of
from topgraft.estimators.on_all import fit_on_all, head_logits, logits_of
from topgraft.evidence import Evidence
from topgraft.files import new_folder
from topgraft.head import Head
from topgraft.probe import fit_head
from topgraft.saved import Model, save
from topgraft.search import balanced
from topgraft.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class TransferClassifier(ClassifierMixin, Transfer):
    """A pretrained network, cut and partly frozen, with a new head, as a classifier of scikit-learn.

    Every example that :meth:`fit` is given trains: no untouched part is held out, since scikit-learn's
    cross-validation does that. Depth is chosen on folds of these examples as in :func:`topgraft.fit`; nothing
    is probed where ``keep`` and ``freeze`` leave nothing to choose.

    ``X`` is one of

    - a list, a one-dimensional array or a column (pandas, polars) of texts, of paths of pictures or of Pillow
      pictures; or a frame with one such column;
    - pictures ``(n, height, width, 3)`` uint8, or arrays ``(n, ...)`` of what the backbone reads;
    - numbers ``(n, columns)``. Without a backbone they go through the identity chain: one block, which gives
      the numbers themselves, so that the model is the probe's head.

    Parameters
    ----------
    backbone
        As for :func:`topgraft.load`, or what that gave. ``None``: for texts and pictures the packaged one,
        for numbers the identity chain.
    keep, freeze
        ``auto``, a count, a share, a block's name or ``all``; freeze also 0.
    weights
        Of the backbone: ``auto``, ``none`` for random values, or a file.
    prefer
        Of depths that can't be told from the best: ``small``, ``fast`` or ``accuracy``.
    folds
        Of the probes.
    budget
        Seconds for one fit.
    epochs
        Of a training; by default as many as the budget allows. The same seed gives the same bits where
        nothing but the head trains, or where ``epochs`` is given and the budget is enough for them.
    hidden, dropout
        Widths of hidden layers of the head, and its dropout.
    augment, mixup, taps
        See :class:`topgraft.settings.Settings`.
    resize
        How pictures are brought to the network's size: ``pretrained``, ``crop``, ``squash`` or ``border``,
        see :meth:`topgraft.Backbone.resized`.
    class_weights
        ``none`` or ``balanced``.
    engine, precision
        Of the frozen part, see :class:`topgraft.settings.Settings`. ``auto`` may choose otherwise in another
        fold, which then shares no activations with the first.
    store
        A folder where activations are kept and found again; ``None`` for the user's cache. All folds and
        candidates of a cross-validation share it, predictions where nothing but the head is new included.
        ``False``: nothing is kept, and a prediction runs the kept blocks only.
    random_state
        Seed of every random choice.
    verbose
        Whether results and progress are printed.

    Attributes
    ----------
    classes_
        Labels as they were given, sorted.
    keep_, freeze_
        Blocks that were kept, and how many of them did not change.
    evidence_, advice_
        What the probes measured at every cut, and the advice; ``None`` where nothing was to be chosen.
    reasons_
        Why the decisions are what they are, in words.
    model_
        A :class:`topgraft.Model`, whose class names are the labels as ``str``; for numbers the head alone.
    modality_
        ``picture``, ``text``, ``array`` or ``numbers``.
    n_features_in_, feature_names_in_
        For numbers, as everywhere in scikit-learn.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [0.2, 1.0], [0.4, 3.0], [1.0, 1.0], [1.2, 2.0], [1.4, 1.0]])
    >>> model = TransferClassifier().fit(X, ["low", "low", "low", "high", "high", "high"])
    >>> model.predict([[0.1, 1.0], [1.3, 1.0]]).tolist(), model.keep_
    (['low', 'high'], 1)
    """

    classes_: Array
    model_: Model | Head
    evidence_: Evidence | None
    advice_: DepthAdvice | None
    _backbone: Backbone | None

    def __init__(
        self,
        backbone: str | nn.Module | Backbone | None = None,
        *,
        keep: str | int = "auto",
        freeze: str | int = "auto",
        weights: str | Path = "auto",
        prefer: str = "small",
        folds: int = 5,
        budget: float = 600.0,
        epochs: int | None = None,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        augment: str = "auto",
        mixup: float | None = None,
        resize: str = "pretrained",
        taps: str | Sequence[int] = "auto",
        class_weights: str = "none",
        engine: str = "torch",
        precision: str = "fp32",
        store: str | Path | bool | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.keep = keep
        self.freeze = freeze
        self.weights = weights
        self.prefer = prefer
        self.folds = folds
        self.budget = budget
        self.epochs = epochs
        self.hidden = hidden
        self.dropout = dropout
        self.augment = augment
        self.mixup = mixup
        self.resize = resize
        self.taps = taps
        self.class_weights = class_weights
        self.engine = engine
        self.precision = precision
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> TransferClassifier:
        """Choose depth, train, and fit the head, on all examples.

        Parameters
        ----------
        X
            ``n`` examples, see the class.
        y
            ``n`` labels: texts, whole numbers or booleans.

        Raises
        ------
        FitError
            If there is one class only.
        TopgraftError
            If an example can't be used, or a parameter is out of range.

        Warns
        -----
        topgraft.estimators.on_all.NotMeasuredWarning
            If a class has too few examples for folds: every block is then kept, or as many as asked for, and
            all of them are frozen.
        """
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")
        taken, labels = self._taken(X, y)
        assert labels is not None
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise FitError(
                f"y has 1 class, {self.classes_.tolist()[0]!r}. "
                "Two or more are needed to learn to tell them apart."
            )
        settings = self._settings(
            *("keep", "freeze", "weights", "prefer", "folds", "budget", "epochs", "hidden", "dropout"),
            *("augment", "mixup", "resize", "taps", "class_weights", "engine", "precision"),
        )
        if settings.resize == AUTO:
            raise FitError(
                "resize='auto' is measured by topgraft.fit. Give one of pretrained, crop, squash, border."
            )
        if self._is_on_numbers():
            self._fit_numbers(taken, codes, settings)
        else:
            self._fit_network(taken, codes, settings)
        return self

    def _fit_numbers(self, X: Array, codes: Array, settings: Settings) -> None:
        """The identity chain's head, in float64."""
        must_be_one("keep", settings.keep)
        must_be_one("freeze", settings.freeze)
        if settings.hidden or settings.dropout:
            raise FitError(
                "hidden and dropout need a backbone: without one the head is fitted in closed form."
            )
        targets, classes = torch.from_numpy(codes), len(self.classes_)
        weights = None if settings.class_weights == "none" else balanced(targets, classes)
        fit = fit_head(torch.from_numpy(np.array(X)), targets, classes, class_weights=weights)
        self.model_ = Head("vector", X.shape[1], classes).double().start_from(fit).eval()
        self.modality_, self.keep_, self.freeze_ = "numbers", 1, 1
        self.evidence_ = self.advice_ = self._backbone = None
        self.reasons_ = {"keep": "numbers without a backbone are a chain of one block"}

    def _fit_network(self, taken: Any, codes: Array, settings: Settings) -> None:
        names = names_of(self.classes_)
        data, backbone = self._examined(taken, settings, codes, names)
        console = Console(sys.stdout, sys.stderr) if self.verbose else None
        with self._store_for_fit() as store:
            fitted = fit_on_all(data, backbone, settings, store, console=console)
        self.model_ = fitted.model(backbone, names)
        self.modality_ = backbone.modality
        self.keep_, self.freeze_ = fitted.graft.keep, fitted.graft.freeze
        self.evidence_, self.advice_, self.reasons_ = fitted.evidence, fitted.advice, fitted.reasons
        self._backbone = backbone

    def _logits(self, X: Any) -> Array:
        new = self._new(X)
        if isinstance(self.model_, Head):
            return head_logits(self.model_, torch.from_numpy(np.array(new)))
        return logits_of(self.model_, new, backbone=self._backbone, store=self._kept_store())

    def decision_function(self, X: Any) -> Array:
        """Logits ``(n, classes)`` float64; of two classes the second's less the first's, ``(n,)``."""
        logits = self._logits(X)
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of the probabilities ``(n, classes)``, in the order of ``classes_``."""
        return log_softmax(self._logits(X))

    def predict_proba(self, X: Any) -> Array:
        """Probabilities ``(n, classes)`` float64, in the order of ``classes_``."""
        found: Array = np.exp(self.predict_log_proba(X))
        return found

    def predict(self, X: Any) -> Array:
        """The most probable class of each example, as the labels were given."""
        best = self._logits(X).argmax(1)
        found: Array = self.classes_[best]
        return found

    def save(self, folder: str | Path) -> None:
        """Write the model for :func:`topgraft.open_model`, ``topgraft predict`` and ``evaluate``.

        Raises
        ------
        TopgraftError
            If the folder exists, or the model is a head on numbers, which is kept by pickling the estimator.
        """
        check_is_fitted(self)
        if isinstance(self.model_, Head):
            raise TopgraftError(
                "A head on numbers has no network to save. Keep the estimator with joblib.dump."
            )
        with new_folder(Path(folder)) as there:
            save(there, self.model_.graft, self.model_.preprocess, self.model_.description)

    def __getstate__(self) -> dict[str, Any]:
        """Without the whole network: a model that was pickled predicts by the blocks that it kept."""
        state: dict[str, Any] = dict(super().__getstate__())
        return {**state, "_backbone": None} if "_backbone" in state else state
