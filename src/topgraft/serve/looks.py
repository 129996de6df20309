"""Where in pictures that were sent a model looked."""

from __future__ import annotations

import math
from typing import Any

from topgraft.data.unlabelled import Row
from topgraft.looking import Looked, Looker
from topgraft.predict import Predictor
from topgraft.serve.described import SIDES

DIGITS = 4
"""Of the numbers of a map."""
MOST = 8
"""Pictures that are run at the same time: gradients take more memory than predictions."""


class Looks:
    """The work of a :class:`topgraft.serve.batching.Batcher`: where the model looked in each picture.

    Parameters
    ----------
    predictor
        Reads the pictures.
    looker
        Of the same model.
    """

    def __init__(self, predictor: Predictor, looker: Looker) -> None:
        self.predictor, self.looker = predictor, looker

    def batch(self, rows: list[Row]) -> list[Looked | str]:
        """Where it looked in each picture, or why that can't be told."""
        errors, pictures = self.predictor.read(rows)
        found = iter(self.looker.look(pictures) if pictures else ())
        return [_checked(next(found)) if error is None else error for error in errors]


def _checked(looked: Looked) -> Looked | str:
    is_finite = math.isfinite(looked.score) and math.isfinite(looked.rest)
    return looked if is_finite else "the network gives something that is not a number"


def told(looked: Looked) -> dict[str, Any]:
    """As the service tells of it."""
    return {
        "of": looked.of,
        "map": looked.shares.round(DIGITS).tolist(),
        "seen": dict(zip(SIDES, looked.seen, strict=True)),
        "where": looked.where,
    }
