"""What the probes measured: per cut the out-of-fold loss of every example, complete and exact as JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

FORM = 2
"""Version of the JSON form."""


@dataclass(frozen=True)
class Features:
    """Pooled activations at every cut.

    Parameters
    ----------
    cuts
        By the number of blocks kept: ``(n, width)`` float32 tensors on the CPU, the examples in one order.
    key
        Proves what they were made from.
    """

    cuts: Mapping[int, Tensor]
    key: str

    @property
    def widest_first(self) -> list[int]:
        """The cuts in the order in which cores share them best: the longest work, done last, holds up all.

        Examples
        --------
        >>> import torch
        >>> Features({1: torch.ones(2, 3), 2: torch.ones(2, 5), 3: torch.ones(2, 3)}, "").widest_first
        [2, 1, 3]
        """
        return sorted(self.cuts, key=lambda cut: (-self.cuts[cut].shape[1], cut))


def paired_gain(before: Array, after: Array) -> tuple[float, float]:
    """By how much losses of the same examples ``(n,)`` are lower on average, and the standard error of that.

    Examples
    --------
    >>> paired_gain(np.array([2.0, 3.0]), np.array([1.0, 1.0]))
    (1.5, 0.5)
    """
    saved = before - after
    error = float(np.std(saved, ddof=1)) / math.sqrt(len(saved)) if len(saved) > 1 else math.inf
    return float(saved.mean()), error


@dataclass(frozen=True)
class CutEvidence:
    """How a probe at one cut did on examples that it had not seen.

    Parameters
    ----------
    keep
        Number of blocks kept.
    losses
        ``(n,)`` float64: out-of-fold loss of every example, see :func:`topgraft.objective.losses`.
    marks
        ``(n,)``: what the score is the mean of, bool for classes (right or not), else float64; see
        :func:`topgraft.objective.marks`.
    predictions
        ``(n,)`` int64: class predicted out of fold; or ``(n, outputs)`` float64: logits of labels or
        steps, or standardised numbers.
    score, low, high
        Accuracy, label ranking average precision, agreement of ordered classes, or R² of numbers, and its
        95 % interval: see :mod:`topgraft.score`.
    penalties, temperatures
        Chosen inside each fold's training part.
    edges
        "low" or "high" for folds whose penalty was the first or last of those tried, else "".
    """

    keep: int
    losses: Array
    marks: Array
    predictions: Array
    score: float
    low: float
    high: float
    penalties: tuple[float, ...]
    temperatures: tuple[float, ...]
    edges: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """Mean out-of-fold loss."""
        return float(self.losses.mean())


@dataclass(frozen=True)
class Evidence:
    """The probes of all cuts on the same folds.

    Parameters
    ----------
    cuts
        One a cut, by ascending ``keep``.
    fold_of
        ``(n,)`` int64: the fold in which each example was scored.
    targets
        ``(n,)`` int64 class indices, ``(n, labels)`` booleans, ``(n, steps)`` uint8 of ordered classes, or
        ``(n, outputs)`` float64 standardised numbers.
    classes
        Number of classes, labels or steps; 0 for numbers.
    groups
        ``(n,)`` int64: examples with the same number belong together and are resampled together.
    chance_losses
        ``(n,)`` float64: out-of-fold loss of knowing only how frequent each class is, or the mean of numbers.
    chance_predictions
        Out of fold, always the most frequent class of the training part, ``(n,)`` int64; or its mean, or the
        log-odds of labels in it, ``(n, outputs)`` float64.
    notes
        Plain sentences for the user.
    """

    cuts: tuple[CutEvidence, ...]
    fold_of: Array
    targets: Array
    classes: int
    groups: Array
    chance_losses: Array
    chance_predictions: Array
    notes: tuple[str, ...] = ()

    @property
    def chance_marks(self) -> Array:
        """``(n,)``: as the marks of a cut, of knowing nothing of the inputs."""
        if self.targets.dtype.kind == "f":
            return 1 - self.chance_losses
        if self.targets.dtype.kind not in "bu":
            return np.asarray(self.chance_predictions == self.targets)
        import torch

        from topgraft.objective import marks

        return marks(torch.from_numpy(self.chance_predictions), torch.from_numpy(self.targets)).numpy()

    @property
    def best(self) -> CutEvidence:
        """The cut with the highest score; of equals the one that loses less, then the one that keeps less."""
        return min(self.cuts, key=lambda cut: (-cut.score, cut.loss, cut.keep))

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import evidence

        return evidence(self)

    def __getitem__(self, keep: int) -> CutEvidence:
        for cut in self.cuts:
            if cut.keep == keep:
                return cut
        measured = ", ".join(str(cut.keep) for cut in self.cuts)
        raise TopgraftError(f"There is no evidence for keep={keep}; measured were {measured}.")

    def to_json(self, pack: Callable[[Array], Any] | None = None) -> dict[str, Any]:
        """Everything, bit for bit, as what the ``json`` module can write.

        ``pack`` says what stands for an array that is not to be in the document. Else it is base64 of its
        little-endian bytes beside dtype and shape, since a hundred thousand examples at twenty cuts are too
        many for decimal numbers.
        """
        pack = pack or _pack
        return {
            "form": FORM,
            "classes": self.classes,
            "fold_of": pack(self.fold_of),
            "targets": pack(self.targets),
            "groups": pack(self.groups),
            "chance_losses": pack(self.chance_losses),
            "chance_predictions": pack(self.chance_predictions),
            "notes": list(self.notes),
            "cuts": [
                {
                    "keep": cut.keep,
                    "score": cut.score,
                    "low": cut.low,
                    "high": cut.high,
                    "penalties": list(cut.penalties),
                    "temperatures": list(cut.temperatures),
                    "edges": list(cut.edges),
                    "losses": pack(cut.losses),
                    "marks": pack(cut.marks),
                    "predictions": pack(cut.predictions),
                }
                for cut in self.cuts
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], unpack: Callable[[Any], Array] | None = None) -> Evidence:
        """The evidence that :meth:`to_json` wrote; ``unpack`` gives back what its ``pack`` took.

        Raises
        ------
        TopgraftError
            If the document is damaged, or of a form that this version does not know.
        """
        unpack = unpack or _unpack
        read: object = document
        form = read.get("form") if isinstance(read, Mapping) else None
        if form != FORM:
            raise TopgraftError(f"The evidence is of form {form!r:.40}; this version reads form {FORM}.")
        try:
            evidence = cls(
                tuple(_cut(part, unpack) for part in document["cuts"]),
                unpack(document["fold_of"]),
                unpack(document["targets"]),
                int(document["classes"]),
                unpack(document["groups"]),
                unpack(document["chance_losses"]),
                unpack(document["chance_predictions"]),
                tuple(document["notes"]),
            )
            n = len(evidence.targets)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise TopgraftError(f"The evidence is damaged: {error}.") from error
        if any(
            len(array) != n for cut in evidence.cuts for array in (cut.losses, cut.marks, cut.predictions)
        ):
            raise TopgraftError(f"The evidence is damaged: a cut has not {n:,} examples.")
        return evidence


def _cut(part: Mapping[str, Any], unpack: Callable[[Any], Array]) -> CutEvidence:
    return CutEvidence(
        int(part["keep"]),
        unpack(part["losses"]),
        unpack(part["marks"]),
        unpack(part["predictions"]),
        float(part["score"]),
        float(part["low"]),
        float(part["high"]),
        tuple(map(float, part["penalties"])),
        tuple(map(float, part["temperatures"])),
        tuple(part["edges"]),
    )


_KINDS = ("<f8", "<i8", "|b1", "|u1")


def _pack(array: Array) -> dict[str, Any]:
    kind = next(k for k in _KINDS if np.dtype(k).kind == array.dtype.kind)
    plain = np.ascontiguousarray(array, dtype=kind)
    return {"dtype": kind, "shape": list(plain.shape), "base64": base64.b64encode(plain.tobytes()).decode()}


def _unpack(document: Mapping[str, Any]) -> Array:
    kind, shape = document["dtype"], tuple(int(s) for s in document["shape"])
    if kind not in _KINDS:
        raise ValueError(f"dtype {kind!r} is not one of {', '.join(_KINDS)}")
    raw = base64.b64decode(document["base64"], validate=True)
    if len(raw) != np.dtype(kind).itemsize * math.prod(shape):
        raise ValueError(f"{len(raw):,} bytes are not an array of shape {shape}")
    return np.frombuffer(raw, dtype=kind).reshape(shape).astype(np.dtype(kind).newbyteorder("="))
