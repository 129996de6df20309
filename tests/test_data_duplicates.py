from __future__ import annotations

import io
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged_data import pictures_of
from PIL import Image

from topgraft.data import open_picture
from topgraft.data.duplicates import ALIKE, confirmed, near_pictures, near_texts, united, words
from topgraft.data.pictures import thumbnail

CLASSES = ("animals", "buildings", "food", "plants", "tools", "transportation")


@pytest.fixture(scope="module")
def drawings() -> list[Image.Image]:
    return [open_picture(path) for name in CLASSES for path in pictures_of(name, 0, 20)]


def looks(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(p) for p in pictures])


def again(picture: Image.Image, kind: str, scale: float, **options: object) -> Image.Image:
    file = io.BytesIO()
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture.resize(size, Image.Resampling.BICUBIC).save(file, kind, **options)
    return open_picture(file.getvalue(), at_least=128)


@pytest.mark.parametrize(
    ("kind", "scale", "options"),
    [
        ("JPEG", 1, {"quality": 75}),
        ("JPEG", 0.5, {"quality": 75}),
        ("WEBP", 0.8, {"quality": 50}),
        ("PNG", 2, {}),
    ],
)
def test_copies_are_found(
    drawings: list[Image.Image], kind: str, scale: float, options: dict[str, object]
) -> None:
    pairs = near_pictures(looks([again(p, kind, scale, **options) for p in drawings]), looks(drawings))
    assert len({i for i, j in pairs if i == j}) >= 0.9 * len(drawings)


def test_different_drawings_are_not_taken_for_one(drawings: list[Image.Image]) -> None:
    """Clip art repeats itself: what is found is a drawing again, at most a few pixels apart."""
    pairs = near_pictures(looks(drawings))
    assert len(pairs) < 0.1 * len(drawings)
    for i, j in pairs:
        first, second = (np.asarray(drawings[k].resize((64, 64)), dtype=float) for k in (i, j))
        assert np.abs(first - second).mean() < 2


def test_plain_and_nearly_plain_pictures_are_only_one_when_they_are_the_same() -> None:
    white = Image.new("RGB", (64, 64), "white")
    dot, line = white.copy(), white.copy()
    dot.paste("black", (30, 30, 33, 33))
    line.paste("gray", (0, 10, 64, 11))
    dark, darker = Image.new("RGB", (64, 64), (8, 8, 8)), Image.new("RGB", (64, 64), (0, 0, 0))
    assert near_pictures(looks([white, dot, line, dark, darker, white])) == [(0, 5)]


def test_pairs_are_those_of_comparing_all_with_all(drawings: list[Image.Image]) -> None:
    copies = [again(p, "JPEG", 1, quality=60) for p in drawings[:20]]
    all_looks = looks([*drawings, *copies])
    pairs = set(near_pictures(all_looks))
    everything = np.array(list(combinations(range(len(all_looks)), 2)))
    near = confirmed(all_looks, all_looks, everything)
    assert 20 <= near.sum() < 60
    assert pairs == {(int(i), int(j)) for i, j in everything[near]}


def test_a_crowd_of_near_duplicates_becomes_one_set_without_all_pairs() -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (32, 32, 3)).astype(int)
    frames = np.clip(still + rng.integers(-2, 3, (600, 32, 32, 3)), 0, 255).astype(np.uint8)
    pairs = near_pictures(frames)
    assert len(pairs) <= 600 * 10
    assert len(set(united(600, pairs).tolist())) == 1


def test_texts_that_say_the_same() -> None:
    long = "the quick brown fox jumps over a lazy dog while we all watch it from that old bridge near here"
    texts = [
        "A dry, white wine.",
        "a dry white  WINE!",
        "a dry red wine",
        long,
        long.replace("quick", "slow"),
        "wine",
    ]
    assert near_texts(texts) == [(0, 1), (3, 4)]
    assert near_texts(["wine", "a dry white wine"], ["A dry: white wine", "beer"]) == [(1, 0)]


def test_texts_without_words_or_spaces_are_not_all_one() -> None:
    assert near_texts(["C", "C++", "C#!", "c"]) == [(0, 2), (0, 3)]
    assert near_texts([":-)", "?!", "😀", "😢", "👍👍"]) == []
    assert near_texts(["我喜欢这部电影", "我讨厌这部电影", "我喜欢这部电影。"]) == [(0, 2)]
    assert words("ﬁne Straße") == ["fine", "strasse"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=1, max_size=40), max_size=12)
)
def test_near_texts_unite_what_comparing_all_with_all_unites(bags: list[list[str]]) -> None:
    texts = [" ".join(bag) for bag in bags]
    sets = [set(bag) for bag in bags]
    brute = [
        (i, j) for i, j in combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) >= ALIKE * len(sets[i] | sets[j])
    ]  # fmt: skip
    assert np.array_equal(united(len(texts), near_texts(texts)), united(len(texts), brute))
    half = len(sets) // 2
    left = {i for i, _ in near_texts(texts[:half], texts[half:])}
    assert left == {i for i, j in brute if i < half <= j}


def test_many_texts_take_seconds() -> None:
    rng = np.random.default_rng(0)
    common = rng.zipf(1.3, (20_000, 20)) % 30_000
    texts = [" ".join(f"w{w}" for w in row) for row in common]
    began = time.perf_counter()
    pairs = near_texts([*texts, *[t.upper() + "!" for t in texts[:100]]])
    assert {(i, 20_000 + i) for i in range(100)} <= {(i, j) for i, j in pairs if j >= 20_000} | set(pairs)
    assert time.perf_counter() - began < 30


@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=4), max_size=10))
def test_united_is_the_smallest_partition_that_holds_the_sets(sets: list[list[int]]) -> None:
    number_of = united(20, sets)
    for members in sets:
        assert len({int(number_of[i]) for i in members}) == 1
    parts = [{i} for i in range(20)]
    for members in sets:
        touched = [p for p in parts if p & set(members)]
        parts = [p for p in parts if not p & set(members)] + [set().union(*touched)]
    assert len(set(number_of.tolist())) == len(parts)
