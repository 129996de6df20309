"""A sheet of examples as training saw them: a few pictures, each beside changed ones."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch

from topgraft.data.types import Data
from topgraft.features.augmentation import augmentation_of
from topgraft.features.views import view_of
from topgraft.settings import Settings

EXAMPLES, CHANGED, SIDE = 4, 4, 128


def sheet(data: Data, settings: Settings, *, views: int) -> dict[str, Any]:
    """What the sheet shows, as plain JSON: the same for the same data and seed.

    Parameters
    ----------
    data
        Pictures that were trained on; the first of each of four classes are shown, or the first ones.
    settings
        With the augmentation and the seed.
    views
        How many stored views of each picture training drew from, which are then shown; 0 where it changed
        each picture anew, of which some of what that gives are shown.
    """
    change = augmentation_of(settings)
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for place in _places(data):
            picture: Any = data.decode(place)  # of this modality it is one
            if views:
                changed = [
                    view_of(picture, data.digests[place], n) for n in range(1, min(views, CHANGED) + 1)
                ]
            else:
                changed = [change(picture) for _ in range(CHANGED)]
            rows.append(
                {"input": data.names[place], "pictures": [_written(one) for one in (picture, *changed)]}
            )
    return {"augment": settings.to_json()["augment"], "views": views, "rows": rows}


def _places(data: Data) -> list[int]:
    """Which examples are shown: the first of each class, and then the first of all."""
    seen: dict[Any, int] = {}
    if data.targets is not None and data.targets.ndim == 1:
        for place, target in enumerate(data.targets.tolist()):
            seen.setdefault(target, place)
    first = dict.fromkeys([*seen.values(), *range(len(data))])
    return list(first)[:EXAMPLES]


def _written(picture: Any) -> dict[str, str]:
    """Small enough to be written into a page."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=70)
    return {"picture": f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"}
