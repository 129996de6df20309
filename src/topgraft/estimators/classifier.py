"""A classifier with the conventions of scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit, log_expit
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, is_multilabel

from topgraft.backbones.types import Backbone
from topgraft.calibration import log_softmax
from topgraft.data.labels import SEPARATOR
from topgraft.estimators.base import Array, FitError
from topgraft.estimators.given import names_of
from topgraft.estimators.predictor import TransferPredictor
from topgraft.head import Head
from topgraft.label_scores import HALF
from topgraft.linear import fit_head
from topgraft.ordered import middle_class, steps_of
from topgraft.search import balanced
from topgraft.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class TransferClassifier(ClassifierMixin, TransferPredictor):
    """A pretrained network, cut and partly frozen, with a new head, as a classifier of scikit-learn.

    Every example that :meth:`fit` is given trains: no untouched part is held out, since scikit-learn's
    cross-validation does that. Depth is chosen on folds of these examples as in :func:`topgraft.fit`; nothing
    is probed where ``keep`` and ``freeze`` leave nothing to choose.

    ``X`` is one of

    - a list, a one-dimensional array or a column (pandas, polars) of texts, of paths of pictures or sounds,
      of Pillow pictures or of :class:`topgraft.data.Sound`; or a frame with one such column;
    - with a backbone for rows (``"rows"``, or a saved graft that reads rows): a data frame of numbers and
      categories, or a list of mappings from the name of a column to its cell; columns are found by name;
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
    augment, mixup, cutmix, size, taps
        See :class:`topgraft.settings.Settings`.
    resize
        How pictures are brought to the network's size: ``pretrained``, ``crop``, ``squash`` or ``border``,
        see :meth:`topgraft.Backbone.resized`.
    class_weights
        ``none`` or ``balanced``.
    sampling
        ``shuffled`` or ``balanced``; with class weights these are the same where nothing is drawn.
    label_smoothing
        See :class:`topgraft.settings.Settings`.
    order
        Labels that have an order, from the first to the last, see :mod:`topgraft.ordered`; ``classes_`` and
        the columns of probabilities are then in this order, and the prediction is the median class. With
        ``None`` labels have none, those of an ordered categorical neither.
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
        Labels as they were given, sorted; or as ``order`` has them. Where an example may have several: the
        names of the columns of ``y``, or their numbers.
    keep_, freeze_
        Blocks that were kept, and how many of them did not change.
    evidence_, advice_
        What the probes measured at every cut, and the advice; ``None`` where nothing was to be chosen.
    reasons_
        Why the decisions are what they are, in words.
    model_
        A :class:`topgraft.Model`, whose class names are the labels as ``str``; for numbers the head alone.
    modality_
        ``picture``, ``text``, ``sound``, ``array``, ``row`` or ``numbers``.
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
    _has_several: bool
    _target_type: np.dtype[Any]

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
        augment: str | Callable[[Any], Any] = "auto",
        mixup: float | None = None,
        cutmix: float = 0.0,
        size: int | None = None,
        resize: str = "pretrained",
        taps: str | Sequence[int] = "auto",
        class_weights: str = "none",
        sampling: str = "shuffled",
        label_smoothing: float = 0.0,
        order: Sequence[Any] | None = None,
        engine: str = "torch",
        precision: str = "fp32",
        store: str | Path | bool | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            keep=keep,
            freeze=freeze,
            weights=weights,
            prefer=prefer,
            folds=folds,
            budget=budget,
            epochs=epochs,
            hidden=hidden,
            dropout=dropout,
            augment=augment,
            mixup=mixup,
            cutmix=cutmix,
            size=size,
            resize=resize,
            taps=taps,
            engine=engine,
            precision=precision,
            store=store,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weights = class_weights
        self.sampling = sampling
        self.label_smoothing = label_smoothing
        self.order = order

    def fit(self, X: Any, y: Any) -> TransferClassifier:
        """Choose depth, train, and fit the head, on all examples.

        Parameters
        ----------
        X
            ``n`` examples, see the class.
        y
            ``n`` labels: texts, whole numbers or booleans. Where an example may have several, or none:
            ``(n, labels)`` zeros and ones, as an array, a frame or a sparse matrix.

        Raises
        ------
        FitError
            If there is one class only, ``order`` does not name just the labels, or all examples or none have
            one of several labels.
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
        self._has_several = bool(is_multilabel(y))
        taken, labels = self._taken(X, y, several=self._has_several)
        assert labels is not None
        check_classification_targets(labels)
        if self._has_several:
            self.classes_, codes = _columns(labels, getattr(y, "columns", None), self.order)
            self._target_type = labels.dtype
        else:
            self.classes_, codes = _coded(labels, self.order)
        if len(self.classes_) < 2:
            raise FitError(
                f"y has 1 class, {self.classes_.tolist()[0]!r}. "
                "Two or more are needed to learn to tell them apart."
            )
        settings = self._told("class_weights", "sampling", "label_smoothing")
        if self._has_several and settings.sampling == "balanced":
            raise FitError(
                "sampling='balanced' is for one class an example, since one of several labels belongs to "
                "several classes. For several labels: class_weights='balanced'."
            )
        if self._is_on_numbers():
            self._fit_numbers(taken, codes, settings)
        else:
            data, backbone = self._examined(taken, settings, codes, classes=names_of(self.classes_))
            self._fit_network(replace(data, is_ordered=self.order is not None), backbone, settings)
        return self

    def _fit_numbers(self, X: Array, codes: Array, settings: Settings) -> None:
        """The identity chain's head, in float64."""
        self._refuse_network(settings)
        targets, classes = torch.from_numpy(codes), len(self.classes_)
        told = (settings.class_weights, settings.sampling)
        weights = balanced(targets, classes) if "balanced" in told else None
        if self.order is not None:
            targets, classes = steps_of(targets, classes), classes - 1
        fit = fit_head(torch.from_numpy(np.array(X)), targets, classes, class_weights=weights)
        head = Head("vector", X.shape[1], classes).double().start_from(fit)
        self._keep_head(head.finished(1.0, None, is_ordered=self.order is not None))

    def decision_function(self, X: Any) -> Array:
        """Logits ``(n, classes)`` float64; of two classes the second's less the first's, ``(n,)``.

        Of several labels ``(n, labels)``, each for itself.
        """
        logits = self._given_out(X)
        return logits if len(self.classes_) > 2 or self._has_several else logits[:, 1] - logits[:, 0]

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of the probabilities ``(n, classes)``, in the order of ``classes_``."""
        given = self._given_out(X)
        found: Array = log_expit(given) if self._has_several else log_softmax(given)
        return found

    def predict_proba(self, X: Any) -> Array:
        """Probabilities ``(n, classes)`` float64, in the order of ``classes_``.

        Of several labels each for itself, so that they need not sum to 1.
        """
        found: Array = np.exp(self.predict_log_proba(X))
        return found

    def predict(self, X: Any) -> Array:
        """The most probable class of each example, of ordered ones the median, as labels were given.

        Of several labels ``(n, labels)`` as ``y`` was: 1 where the probability is above a half.
        """
        given = self._given_out(X)
        if self._has_several:
            has: Array = (expit(given) > HALF).astype(self._target_type)
            return has
        best = given.argmax(1) if self.order is None else middle_class(np.exp(log_softmax(given)))
        found: Array = self.classes_[best]
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _columns(labels: Array, names: Any, order: Sequence[Any] | None) -> tuple[Array, Array]:
    """Names of several labels, or their numbers, and which of them each example has, ``(n, labels)`` bool.

    Raises
    ------
    FitError
        If an order was given, all examples have a label or none has, or a name holds what parts labels.
    """
    if order is not None:
        raise FitError("order is for one class an example, and y has a column for each of several labels.")
    known = np.arange(labels.shape[1]) if names is None else np.array([str(name) for name in names])
    has = labels.astype(bool)
    for name, share in zip(known.tolist(), has.mean(0).tolist(), strict=True):
        if share in (0.0, 1.0):
            raise FitError(
                f"{'All' if share else 'None'} of the {len(has):,} examples {'have' if share else 'has'} the "
                f"label {name!r}, so that there is nothing to learn. Leave its column out."
            )
        if SEPARATOR in str(name):
            raise FitError(f'The label {name!r} has "{SEPARATOR}" in its name, which stands between labels.')
    return known, has


def _coded(labels: Array, order: Sequence[Any] | None) -> tuple[Array, Array]:
    """The classes, sorted or as given, and the place of each label among them.

    Raises
    ------
    FitError
        If a label is not in the order, or one in it is no label.
    """
    found, codes = np.unique(labels, return_inverse=True)
    if order is None:
        return found, codes
    known, given = found.tolist(), list(order)
    if sorted(map(str, known)) != sorted(map(str, given)) or not all(one in known for one in given):
        raise FitError(f"order is {given}, and the labels are {known}. Name each of them once, in order.")
    place = np.array([given.index(name) for name in known])
    ranked: Array = found[np.argsort(place)]
    return ranked, place[codes]
