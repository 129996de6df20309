"""In which order a pass takes examples, and which of them together."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from topgraft.data.types import Data
from topgraft.features.engine import BATCH

SAMPLE = 25 * BATCH
"""Pictures that a pass takes first, spread evenly: what is measured on them alone is a part of the pass."""


def batches(data: Data, indices: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """The examples of each batch; texts and sounds are sorted by length, so that little is padding."""
    order = list(indices)
    if data.modality == "text":
        order.sort(key=lambda i: len(str(data.inputs[i])))
    elif data.seconds is not None:
        seconds = data.seconds
        order.sort(key=lambda i: float(seconds[i]))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def lacking(data: Data, known: AbstractSet[str]) -> list[int]:
    """One example of each content that is not known, in the order in which a pass takes them."""
    first_of = {digest: i for i, digest in reversed(list(enumerate(data.digests)))}
    order = sample_first([*first_of.values()]) if data.modality == "picture" else first_of.values()
    return [i for i in order if data.digests[i] not in known]


def sample_first(order: list[int]) -> list[int]:
    """With :data:`SAMPLE` of them in front, any first ones of which are spread evenly; then the others.

    Examples
    --------
    >>> sample_first(list(range(4000)))[:6], sample_first(list(range(4000)))[SAMPLE:][:3]
    ([0, 2565, 1282, 3848, 641, 3207], [1, 2, 3])
    """
    if len(order) <= SAMPLE:
        return order
    digits = (SAMPLE - 1).bit_length()
    # van der Corput (1935): numbers whose binary digits are read backwards
    backwards = sorted(range(SAMPLE), key=lambda number: f"{number:0{digits}b}"[::-1])
    places = [number * (len(order) - 1) // (SAMPLE - 1) for number in backwards]
    chosen = set(places)
    return [*(order[p] for p in places), *(i for p, i in enumerate(order) if p not in chosen)]
