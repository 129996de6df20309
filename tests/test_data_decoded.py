"""What is kept of decoded examples, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from topgraft.data.decoded import Decoded
from topgraft.data.sounds import Sound


def making(size: int) -> Callable[[], np.ndarray]:
    return lambda: np.full(size, size, dtype=np.uint8)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50)), max_size=30), st.integers(0, 200))
def test_what_is_given_is_right_and_never_more_than_the_limit_is_kept(asked, limit):
    kept, sizes = Decoded(limit), dict(asked)
    for key, _ in asked:
        assert len(kept.get(key, making(sizes[key]))) == sizes[key]
        assert kept.bytes <= limit
    total = sum(sizes.values())
    assert kept.is_full == (total > limit)
    if total <= limit:
        assert (kept.bytes, len(kept)) == (total, len(sizes))


def test_pictures_and_sounds_count_as_what_they_take():
    kept = Decoded()
    kept.get("picture", lambda: Image.new("RGB", (30, 20)))
    assert kept.bytes == 2400
    kept.get("sound", lambda: Sound(np.zeros(100, dtype=np.float32), 8000))
    assert kept.bytes == 2800


def test_many_threads_count_each_example_once():
    kept = Decoded(10**6)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: kept.get(i % 10, making(100)), range(400)))
    assert (kept.bytes, len(kept)) == (1000, 10)
