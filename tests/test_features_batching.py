from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import topgraft as tg
from topgraft.features.batching import SAMPLE, batches, lacking, sample_first


@given(st.integers(1, 3 * SAMPLE))
def test_each_is_taken_once_and_no_more_of_them_than_the_sample_change_places(count: int) -> None:
    order = sample_first(list(range(count)))
    assert sorted(order) == list(range(count))
    assert order[SAMPLE:] == sorted(order[SAMPLE:])
    if count <= SAMPLE:
        assert order == list(range(count))


@given(st.integers(2 * SAMPLE, 100_000), st.integers(4, SAMPLE))
def test_the_first_ones_are_spread_evenly_wherever_they_end(count: int, first: int) -> None:
    chosen = np.sort(sample_first(list(range(count)))[:first]) / count
    gaps = np.diff([*chosen, 1.0])
    assert chosen[0] == 0
    assert gaps.max() <= 4 / first  # evenly it would be one part of so many


def test_pictures_come_a_sample_first_without_those_that_are_known() -> None:
    shades = [Image.new("RGB", (8, 8), (n % 256, n // 256, 0)) for n in range(2 * SAMPLE)]
    data = tg.read(shades, targets=["a", "b"] * SAMPLE, near_duplicates=False)
    order = lacking(data, frozenset())
    assert order == sample_first(list(range(2 * SAMPLE))[::-1])
    known = {data.digests[i] for i in order[:32]}
    assert batches(data, lacking(data, known), batch_size=16) == batches(data, order, batch_size=16)[2:]


def test_texts_are_taken_by_their_length() -> None:
    texts = ["word " * (1 + n % 7) + str(n) for n in range(2 * SAMPLE)]
    data = tg.read(texts, targets=["a", "b"] * SAMPLE, near_duplicates=False)
    assert lacking(data, frozenset()) == list(range(2 * SAMPLE))[::-1]
    lengths = [len(texts[i]) for rows in batches(data, range(2 * SAMPLE), batch_size=16) for i in rows]
    assert lengths == sorted(lengths)
