"""What comes out of an export: names, how it follows from what the head gives, and how it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from topgraft.data.types import Task
from topgraft.label_scores import HALF, RANKING, ranking_score
from topgraft.number_scores import r2
from topgraft.ordered import middle_class
from topgraft.rank_scores import AGREEMENT, weighted_agreement
from topgraft.score import accuracy

if TYPE_CHECKING:
    from topgraft.saved import Model

Array = np.ndarray[Any, np.dtype[Any]]

CHANCES, NUMBERS = ("logits", "probabilities"), ("predictions",)
"""Names of the outputs: of classes or labels, and of predicted numbers."""


def names_of(task: Task) -> tuple[str, ...]:
    """Names of the outputs; the last is the one that answers are read from.

    Examples
    --------
    >>> names_of("ordinal"), names_of("regression")
    (('logits', 'probabilities'), ('predictions',))
    """
    return NUMBERS if task == "regression" else CHANCES


def outputs_of(task: Task, given: Tensor) -> tuple[Tensor, ...]:
    """The outputs, of what a saved graft gives: what ``predict`` says of the same examples.

    Parameters
    ----------
    task
        Of the model.
    given
        ``(batch, outputs)`` float: logits, or numbers in the target's own unit. Of ordered classes a logit
        each, see :func:`topgraft.ordered.class_logits`.

    Examples
    --------
    >>> [one.tolist() for one in outputs_of("multilabel", torch.zeros(1, 3))]
    [[[0.0, 0.0, 0.0]], [[0.5, 0.5, 0.5]]]
    """
    if task == "regression":
        return (given,)
    return given, torch.sigmoid(given) if task == "multilabel" else torch.softmax(given, 1)


def answer_json(model: Model) -> dict[str, Any]:
    """How the answer is read from the last output: an entry of ``export.json``."""
    task, of = model.task, names_of(model.task)[-1]
    if task == "regression":
        told = f"{', '.join(model.outputs)}: numbers in the unit that was learned from"
        return {"from": of, "rule": "as it is", "told": told}
    if task == "multilabel":
        told = f"each label by itself: given where its probability is above {HALF}; maybe none"
        return {"from": of, "rule": "above", "threshold": HALF, "told": told}
    if task == "ordinal":
        told = (
            "classes from the first to the last; the answer is the median: the first class at which the sum "
            f"of the probabilities up to it is {HALF} or more"
        )
        return {"from": of, "rule": "median", "threshold": HALF, "told": told}
    return {"from": of, "rule": "largest", "told": "the class of the largest probability"}


def answers_of(task: Task, said: Array) -> Array:
    """The answers ``(n, ...)``: classes by number, booleans of labels, or the numbers themselves.

    Parameters
    ----------
    task
        Of the model.
    said
        ``(n, outputs)`` float: the last output.

    Examples
    --------
    >>> said = np.array([[0.4, 0.25, 0.35]])
    >>> [answers_of(task, said).tolist() for task in ("classification", "ordinal", "multilabel")]
    [[0], [1], [[False, False, False]]]
    """
    if task == "regression":
        return said
    if task == "multilabel":
        found: Array = said > HALF
        return found
    return middle_class(said) if task == "ordinal" else np.argmax(said, axis=1)


def score_of(task: Task, targets: Array, said: Array) -> tuple[str, float]:
    """The metric that ``evaluate`` names first for this task, and its value.

    Parameters
    ----------
    task
        Of the model.
    targets
        Of ``n`` examples, as :func:`topgraft.read` has them.
    said
        ``(n, outputs)`` float: the last output.

    Examples
    --------
    >>> score_of("ordinal", np.array([0, 2]), np.array([[0.4, 0.35, 0.25], [0.0, 0.1, 0.9]]))
    ('weighted agreement', 0.75)
    """
    if task == "regression":
        return "R2", r2(targets, said)
    if task == "multilabel":
        return RANKING, ranking_score(targets, said)
    found = answers_of(task, said)
    if task == "ordinal":
        return AGREEMENT, weighted_agreement(targets, found, said.shape[1])
    return "accuracy", accuracy(targets, found)
