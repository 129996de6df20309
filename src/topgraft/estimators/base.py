"""What the estimators for scikit-learn share: reading X, the backbone, the store."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    check_random_state,
    column_or_1d,
    validate_data,
)

from topgraft.backbones.loading import reads_rows
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.backbones.types import Backbone
from topgraft.data.columns import Rows
from topgraft.data.types import Data, Modality
from topgraft.errors import TopgraftError, TopgraftWarning
from topgraft.estimators.given import examples_in, read_examples, rows_in
from topgraft.estimators.on_all import backbone_for
from topgraft.features.store import Store
from topgraft.settings import Settings

if TYPE_CHECKING:
    from torch import nn

Array = np.ndarray[Any, np.dtype[Any]]

NUMBERS = [np.float64, np.float32]
"""Types that a table of numbers keeps; others become the first."""


class FitError(TopgraftError, ValueError):
    """Labels or choices that can't be fitted; a ``ValueError`` too, as callers of scikit-learn expect."""


class ColumnsWarning(TopgraftWarning):
    """Columns or categories of rows are not those that the network learned from."""


class Transfer(BaseEstimator):
    """What all estimators share: reading X, the backbone, the store.

    After a fit ``modality_`` says what X was: ``"numbers"`` (without a backbone), or what the backbone reads.
    """

    backbone: str | nn.Module | Backbone | None
    store: str | Path | bool | None
    random_state: int | np.random.RandomState | None
    modality_: Modality | Literal["numbers"]
    _known_columns: RowPreprocess | None

    def _settings(self, *names: str) -> Settings:
        """What a fit of the pipeline would be told by these parameters."""
        told = {name: getattr(self, name) for name in names}
        if isinstance(self.random_state, (int, np.integer)):
            seed = int(self.random_state)
        else:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return Settings.of({**told, "weights": str(told["weights"]), "seed": seed})

    def _kept_store(self) -> Store | None:
        """Where activations are kept; ``None`` where nothing is to be."""
        if self.store is False:
            return None
        return Store(None if self.store is None or self.store is True else Path(self.store))

    @contextmanager
    def _store_for_fit(self) -> Iterator[Store]:
        """The store, or a temporary one where nothing is to be kept."""
        if (kept := self._kept_store()) is not None:
            yield kept
            return
        with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
            yield Store(Path(folder))

    def _taken(
        self, X: Any, y: Any = None, *, numbers: bool = False, several: bool = False
    ) -> tuple[Any, Array | None]:
        """X as numbers ``(n, columns)`` or as examples, and y; columns of numbers are noted.

        y is flat labels; with ``numbers`` ``(n,)`` or ``(n, outputs)`` finite numbers; with ``several``
        ``(n, labels)`` zeros and ones.
        """
        if several and hasattr(y, "toarray"):
            y = y.toarray()
        examples = rows_in(X) if reads_rows(self.backbone) else examples_in(X)
        if examples is None:
            more = {"multi_output": numbers or several, "y_numeric": numbers}
            found = validate_data(self, X, **({} if y is None else {"y": y, **more}), dtype=NUMBERS)
            return (found, None) if y is None else found
        for name in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
            if hasattr(self, name):
                delattr(self, name)
        if y is not None:
            if numbers or several:
                y = check_array(y, ensure_2d=False, allow_nd=False, dtype="numeric", input_name="y")
            else:
                y = column_or_1d(y, warn=True)
            check_consistent_length(examples, y)
        return examples, y

    def _examined(
        self,
        taken: Any,
        settings: Settings,
        targets: Array | None = None,
        *,
        classes: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> tuple[Data, Backbone]:
        """The examples of a fit as data, and the backbone that reads them."""
        given = self.backbone
        known = given.modality if isinstance(given, Backbone) else None
        if isinstance(taken, Rows):
            known = "row"
        elif known is None and hasattr(self, "n_features_in_"):
            known = "array"
        data = read_examples(taken, known, targets=targets, classes=classes, outputs=outputs)
        backbone = backbone_for(data, given, settings)
        self._known_columns = backbone.preprocess if isinstance(backbone.preprocess, RowPreprocess) else None
        self._warn_of_columns(data)
        return data, backbone

    def _warn_of_columns(self, data: Data) -> None:
        """Say how columns of rows fit those that the network knows, where they are not the same."""
        if self._known_columns is not None and isinstance(data.inputs, Rows):
            notes = self._known_columns.matched(data.inputs, "X")
            if notes:
                warnings.warn(" ".join(notes), ColumnsWarning, stacklevel=4)

    def _new(self, X: Any) -> Any:
        """X of a prediction: numbers, or data of the kind that the fit was on.

        Raises
        ------
        TopgraftError
            If it is of another kind.
        """
        check_is_fitted(self)
        if hasattr(self, "n_features_in_"):
            X = validate_data(self, X, reset=False, dtype=NUMBERS)
            return X if self.modality_ == "numbers" else read_examples(X, "array")
        if self.modality_ == "row":
            data = read_examples(rows_in(X), "row")
            self._warn_of_columns(data)
            return data
        examples = examples_in(X)
        if examples is None:
            raise TopgraftError(
                f"X is a table of numbers; this {type(self).__name__} was fitted on {self.modality_}s."
            )
        assert self.modality_ != "numbers", "a fit on numbers has noted their columns"
        return read_examples(examples, self.modality_)

    def _is_on_numbers(self) -> bool:
        """Whether there is no network: the identity chain, one block that gives the numbers themselves."""
        return self.backbone is None and hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        reads_examples = self.backbone is not None
        tags.input_tags.one_d_array = tags.input_tags.string = reads_examples
        tags.input_tags.three_d_array = reads_examples
        return tags


def must_be_one(option: str, given: str) -> None:
    """Refuse what is not the one block of the identity chain."""
    if given.strip() not in ("auto", "all", "1", "100%"):
        raise FitError(
            f"{option}={given}: numbers without a backbone are a chain of one block. Give auto, all or 1."
        )
