"""What a saved model says of the examples that it is scored on, by the path that ``predict`` takes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from topgraft.console import Console
from topgraft.data.types import Data
from topgraft.errors import RunningError
from topgraft.predict import Prediction, Predictor, rows_of

if TYPE_CHECKING:
    from topgraft.stages import Prepared


def answers(predictor: Predictor, untouched: Data, console: Console) -> list[Prediction]:
    """What a saved model says of untouched examples.

    Raises
    ------
    RunningError
        If an untouched example can't be read any more.
    """
    predictions = []
    with console.progress("Untouched", len(untouched)) as bar:
        for prediction in predictor.predict(rows_of(untouched)):
            predictions.append(prediction)
            bar(1)
    lost = next((p for p in predictions if p.error is not None), None)
    if lost is not None:
        asked = "" if "changed" in str(lost.error) else ". Did the data change?"
        raise RunningError(f"{lost.input} can't be read any more: {lost.error}{asked}")
    return predictions


def own_module(ready: Prepared) -> Any:
    """For one's own network the module itself, since a saved graft never runs code to make it."""
    if ready.backbone.recipe.get("kind") != "own":
        return None
    return copy.deepcopy(ready.backbone.chain.network)
