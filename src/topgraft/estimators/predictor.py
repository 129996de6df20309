"""What the estimators that predict share: parameters, the fit, the model, saving."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from topgraft.advise import DepthAdvice
from topgraft.backbones.types import Backbone
from topgraft.choices import AUTO
from topgraft.console import Console
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.estimators.base import Array, FitError, Transfer, must_be_one
from topgraft.estimators.on_all import fit_on_all, head_logits, logits_of
from topgraft.evidence import Evidence
from topgraft.files import new_folder
from topgraft.head import Head
from topgraft.objective import scale_of
from topgraft.saved import Model, save
from topgraft.settings import Settings

if TYPE_CHECKING:
    from torch import nn

TOLD = (
    *("keep", "freeze", "weights", "prefer", "folds", "budget", "epochs", "hidden", "dropout"),
    *("augment", "mixup", "cutmix", "size", "resize", "taps", "engine", "precision"),
)
"""Parameters that a fit is told."""


class TransferPredictor(Transfer):
    """What a classifier and a regressor share; see :class:`topgraft.TransferClassifier`."""

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
        augment: str | Callable[[Any], Any] = "auto",
        mixup: float | None = None,
        cutmix: float = 0.0,
        size: int | None = None,
        resize: str = "pretrained",
        taps: str | Sequence[int] = "auto",
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
        self.cutmix = cutmix
        self.size = size
        self.resize = resize
        self.taps = taps
        self.engine = engine
        self.precision = precision
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    def _told(self, *more: str) -> Settings:
        """What a fit of the pipeline would be told.

        Raises
        ------
        FitError
            If resizing is to be measured.
        """
        settings = self._settings(*TOLD, *more)
        if settings.resize == AUTO:
            raise FitError(
                "resize='auto' is measured by topgraft.fit. Give one of pretrained, crop, squash, border."
            )
        return settings

    def _refuse_network(self, settings: Settings) -> None:
        """Refuse what only a fit with a network can do."""
        must_be_one("keep", settings.keep)
        must_be_one("freeze", settings.freeze)
        if settings.hidden or settings.dropout:
            raise FitError(
                "hidden and dropout need a backbone: without one the head is fitted in closed form."
            )

    def _keep_head(self, head: Head) -> None:
        """The identity chain's head is the model."""
        self.model_ = head.eval()
        self.modality_, self.keep_, self.freeze_ = "numbers", 1, 1
        self.evidence_ = self.advice_ = self._backbone = None
        self.reasons_ = {"keep": "numbers without a backbone are a chain of one block"}

    def _fit_network(self, data: Data, backbone: Backbone, settings: Settings) -> None:
        console = Console(sys.stdout, sys.stderr) if self.verbose else None
        with self._store_for_fit() as store:
            fitted = fit_on_all(data, backbone, settings, store, console=console)
        self.model_ = fitted.model(
            backbone,
            data.classes,
            outputs=data.outputs,
            scale=scale_of(data),
            separator=data.separator,
            is_ordered=data.is_ordered,
        )
        self.modality_ = backbone.modality
        self.keep_, self.freeze_ = fitted.graft.keep, fitted.graft.freeze
        self.evidence_, self.advice_, self.reasons_ = fitted.evidence, fitted.advice, fitted.reasons
        self._backbone = backbone

    def _given_out(self, X: Any) -> Array:
        """Logits or numbers ``(n, outputs)`` float64."""
        new = self._new(X)
        if isinstance(self.model_, Head):
            return head_logits(self.model_, torch.from_numpy(np.array(new)))
        return logits_of(self.model_, new, backbone=self._backbone, store=self._kept_store())

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
