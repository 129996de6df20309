"""Examples of the data that a model learned from, and which of them are nearest to an input."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.matching import digest_of
from topgraft.console import size
from topgraft.data.assemble import said_of_target
from topgraft.data.notes import printable
from topgraft.data.pairs import in_words
from topgraft.data.types import Data
from topgraft.data.unlabelled import Row
from topgraft.errors import TopgraftError
from topgraft.features.batching import batches, lacking
from topgraft.features.engine import BATCH, version_of
from topgraft.features.passes import SECONDS, SHARD, mended
from topgraft.features.reading import decoded
from topgraft.features.shelf import Shelf
from topgraft.features.store import Store
from topgraft.features.structure import structure_of
from topgraft.pooling import POOLING
from topgraft.predict import Predictor
from topgraft.side_by_side import in_order, single_threaded
from topgraft.stopping import finishing

NEAREST = 5
"""Examples that are shown of each input."""
MEMORY = 1_000_000_000
"""Bytes that features and small pictures of all examples may take."""
SIDE = 112
"""Pixels of the longer side of a small picture."""
LARGEST = 3 * SIDE * SIDE
"""Bytes of the largest small picture: more than WebP takes for any of this size."""
QUALITY = 60
LETTERS = 280
"""Of a text that is shown."""
BLOCK = 4096
"""Examples whose features are read at once for sums in double precision."""
ADVICE = (
    "The service holds no examples. `topgraft serve MODEL --examples DATA` reads the data that the model was "
    "fitted on, and shows which of them are nearest."
)


@dataclass(frozen=True)
class Near:
    """An example that is near an input.

    Parameters
    ----------
    index
        Of the example.
    similarity
        Cosine of the angle between the standardised features of both, -1 to 1.
    """

    index: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Examples:
    """What is held in memory of each example.

    Parameters
    ----------
    names, labels
        Of the examples: of a file its path below the folder of the data; a label is ``None`` where the data
        have none.
    contents
        A text, cut off after :data:`LETTERS` characters, or the cells of a row; else ``None``.
    pictures
        Each as a small WebP; empty for other modalities.
    mean, scale
        (width,) float32: what is taken off each feature, and what it is then multiplied by: one over its
        standard deviation, 0 where all examples have the same value.
    directions
        (n, width) float32: standardised features of length 1.
    """

    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    contents: Sequence[str | Mapping[str, Any] | None]
    pictures: Sequence[bytes]
    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.names)

    @property
    def held(self) -> int:
        """Bytes of features and small pictures in memory."""
        return 4 * self.directions.numel() + sum(map(len, self.pictures))

    def nearest(self, features: Tensor, most: int = NEAREST) -> list[list[Near]]:
        """The nearest examples of each input, nearest first; of equally near ones the first.

        Parameters
        ----------
        features
            (batch, width) float32, as :meth:`topgraft.predict.Predictor.features` gives them.
        most
            Examples of each input.
        """
        close = _directions((features - self.mean) * self.scale) @ self.directions.T
        order = torch.sort(close, dim=1, descending=True, stable=True)
        count = min(most, len(self))
        return [
            [Near(int(i), float(s)) for i, s in zip(places[:count], found[:count], strict=True)]
            for found, places in zip(order.values, order.indices, strict=True)
        ]

    def shown(self, near: Near) -> dict[str, Any]:
        """An example as the service tells of it."""
        content = self.contents[near.index]
        return {
            "index": near.index,
            "name": self.names[near.index],
            "label": self.labels[near.index],
            "similarity": max(-1.0, min(1.0, near.similarity)),
            "text": content if isinstance(content, str) else None,
            "row": content if isinstance(content, Mapping) else None,
            "picture": f"examples/{near.index}" if self.pictures else None,
        }


def examples_of(
    predictor: Predictor,
    data: Data,
    store: Store,
    *,
    memory: int = MEMORY,
    advance: Callable[[int], None] = lambda _: None,
) -> Examples:
    """Hold the examples of some data, each run through the model at most once: the store keeps the features.

    Parameters
    ----------
    predictor
        Runs the model.
    data
        What it was fitted on, or others of its kind.
    store
        Where features and small pictures are kept.
    memory
        Bytes that they may take.
    advance
        Told of progress.

    Raises
    ------
    TopgraftError
        If they would take more memory.
    ExampleError
        If an example can't be read any more.
    """
    width = int(predictor.model.graft.head.linear.in_features)
    _must_fit(4 * width * len(data), len(data), memory)
    shelf = store.shelf(_description(predictor))

    def fill() -> dict[str, Tensor | list[Tensor]]:
        _fill(predictor, data, shelf, advance)
        return shelf.read(data.digests)

    arrays = mended(fill)
    pictures = [part.numpy().tobytes() for part in arrays.pop("picture", [])]
    features = cast("Tensor", arrays.pop("features")).nan_to_num_(0.0, 0.0, 0.0)
    _must_fit(4 * features.numel() + sum(map(len, pictures)), len(data), memory)
    mean, scale = _spread(features)
    targets = data.targets
    return Examples(
        names=tuple(_below(name, data.origin) for name in data.names),
        labels=(None,) * len(data)
        if targets is None
        else tuple(said_of_target(target, data.classes, data.separator) for target in targets),
        contents=[_content(data, i) for i in range(len(data))],
        pictures=pictures,
        mean=mean,
        scale=scale,
        directions=_directions(features.sub_(mean).mul_(scale)),
    )


class Nearest:
    """The work of a :class:`topgraft.serve.batching.Batcher`: the nearest examples of each row.

    Parameters
    ----------
    predictor
        Runs the model.
    examples
        Among which they are.
    """

    def __init__(self, predictor: Predictor, examples: Examples) -> None:
        self.predictor, self.examples = predictor, examples

    def batch(self, rows: list[Row]) -> list[list[Near] | str]:
        """The nearest examples of each row, or why it can't be read."""
        errors, values = self.predictor.read(rows)
        found = iter(self._near(values) if values else ())
        return [next(found) if error is None else error for error in errors]

    def _near(self, values: list[Any]) -> list[list[Near] | str]:
        features = self.predictor.features(values)
        finite = torch.isfinite(features).all(1).tolist()
        near = self.examples.nearest(torch.nan_to_num(features, 0.0, 0.0, 0.0))
        wrong = "the network gives something that is not a number"
        return [one if is_finite else wrong for one, is_finite in zip(near, finite, strict=True)]


def _must_fit(taken: int, count: int, memory: int) -> None:
    if taken > memory:
        raise TopgraftError(
            f"--examples: what is held of {count:,} examples would take {size(taken)}, over the limit of "
            f"{size(memory)}. Give a part of them: about {count * memory // taken:,} fit."
        )


def _description(predictor: Predictor) -> dict[str, Any]:
    """What features and small pictures depend on."""
    model, engine = predictor.model, predictor.engine
    graft = model.graft
    return {
        "what": "examples of a service",
        "weights": digest_of(graft.kept_tensors()),
        "network": structure_of(graft.bare.network),
        "blocks": [point.to_json() for point in graft.bare.points[: graft.keep]],
        "taps": graft.taps,
        "pooling": POOLING,
        "preprocessing": model.preprocess.fingerprint,
        "freeze": graft.freeze,
        "windows": model.windows,
        "engine": version_of(engine.name if engine is not None else "torch"),
        "precision": model.precision,
        "picture": [SIDE, QUALITY],
    }


def _fill(predictor: Predictor, data: Data, shelf: Shelf, advance: Callable[[int], None]) -> None:
    """Store what the shelf lacks of the data."""
    missing = lacking(data, shelf.known())
    advance(len(data) - len(missing))
    chunks = batches(data, missing, batch_size=BATCH)
    waiting: list[tuple[list[int], dict[str, Any]]] = []

    def flush() -> None:
        if waiting:
            digests = [data.digests[i] for rows, _ in waiting for i in rows]
            arrays: dict[str, Any] = {"features": torch.cat([a["features"] for _, a in waiting])}
            if data.modality == "picture":
                arrays["picture"] = [picture for _, a in waiting for picture in a["picture"]]
            shelf.append(digests, arrays)
            waiting.clear()

    with single_threaded() as cores, finishing() as is_stopping:
        stored = time.monotonic()
        until_asked = (chunk for chunk in chunks if not is_stopping())
        made = in_order(lambda rows: _made(predictor, data, rows), until_asked, workers=cores)
        for rows, arrays in zip(chunks, made, strict=False):  # fewer, where it was asked to stop
            waiting.append((rows, arrays))
            advance(len(rows))
            if sum(len(r) for r, _ in waiting) >= SHARD or time.monotonic() - stored > SECONDS:
                flush()
                stored = time.monotonic()
        flush()


def _made(predictor: Predictor, data: Data, rows: Sequence[int]) -> dict[str, Any]:
    """What is stored of a batch."""
    values = decoded(predictor.model.preprocess, data, rows)
    arrays: dict[str, Any] = {"features": predictor.features(values)}
    if data.modality == "picture":
        arrays["picture"] = [
            torch.from_numpy(np.frombuffer(_small(value), np.uint8).copy()) for value in values
        ]
    return arrays


def _small(picture: Any) -> bytes:
    """A picture as a small WebP."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=QUALITY)
    content = written.getvalue()
    assert len(content) <= LARGEST
    return content


def _below(name: str, origin: str) -> str:
    """A name without the folder of the data, which is nobody's business.

    Examples
    --------
    >>> _below("/home/me/photos/cat/1.png", "/home/me/photos"), _below("/home/me/cat.png", "/home/me/a.csv")
    ('cat/1.png', 'cat.png')
    >>> _below("17", "texts.csv"), _below("cat/1.png", "a.csv")
    ('17', 'cat/1.png')
    """
    folder, parent = Path(origin), Path(origin).parent
    return name.removeprefix(f"{folder}/").removeprefix(f"{parent}/" if parent != Path() else "")


def _content(data: Data, index: int) -> str | Mapping[str, Any] | None:
    """What is shown of an example that is no picture."""
    if data.modality == "row":
        row = data.inputs[index]
        return {name: printable(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
    if data.modality != "text":
        return None
    text = printable(in_words(str(data.inputs[index])))
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


def _spread(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each feature, and one over its standard deviation; 0 where it is the same everywhere."""
    parts = features.split(BLOCK)
    mean = sum(part.sum(0, dtype=torch.float64) for part in parts) / len(features)
    assert isinstance(mean, Tensor)
    squares = sum((part.double() - mean).square().sum(0) for part in parts) / len(features)
    assert isinstance(squares, Tensor)
    spread = squares.sqrt()
    varies = spread > 1e-6 * mean.abs()
    return mean.float(), torch.where(varies, 1 / spread.clamp(min=1e-30), torch.zeros_like(spread)).float()


def _directions(standardised: Tensor) -> Tensor:
    """Rows of length 1, or of 0 where every feature is the mean."""
    return standardised.div_(standardised.norm(dim=1, keepdim=True).clamp(min=1e-12))
