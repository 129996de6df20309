from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from topgraft.features.views import standard_augmentation, view_of

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
RAMP = np.stack([np.tile(np.arange(60, dtype=np.uint8) * 4, (60, 1))] * 3, 2)


def test_augmentation_is_a_view_of_the_same_size_that_the_seed_decides():
    picture = Image.fromarray(NOISE)
    views = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        views.append(np.asarray(standard_augmentation(picture)))
    assert all(view.shape == NOISE.shape for view in views)
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
    assert not np.array_equal(views[0], NOISE)


def test_half_of_the_views_are_flipped_and_small_parts_never_show():
    picture = Image.fromarray(RAMP)
    torch.manual_seed(0)
    rows = [np.asarray(standard_augmentation(picture))[30, :, 0].astype(int) for _ in range(60)]
    flipped = sum(row[-1] < row[0] for row in rows)
    assert 15 < flipped < 45
    # 60 % of the area at 4:3 is at least 0.66 of the width
    assert min(abs(row[-1] - row[0]) for row in rows) > 0.6 * (int(RAMP[0, -1, 0]) - int(RAMP[0, 0, 0]))


def test_a_numbered_view_is_the_same_whenever_and_beside_whatever_it_is_asked_for():
    picture = Image.fromarray(NOISE)
    asked = [(digest, number) for digest in ("a", "b") for number in (1, 2, 3)] * 8
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    alone = [np.asarray(view_of(picture, *one)) for one in asked]
    assert torch.equal(torch.random.get_rng_state(), before)
    with ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(lambda one: np.asarray(view_of(picture, *one)), asked))
    assert all(np.array_equal(a, b) for a, b in zip(alone, beside, strict=True))
    assert len({view.tobytes() for view in alone}) == 6


def test_view_nought_is_the_picture_itself():
    picture = Image.fromarray(NOISE)
    assert view_of(picture, "a", 0) is picture
