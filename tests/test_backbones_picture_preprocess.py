from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from topgraft.backbones import PicturePreprocess
from topgraft.backbones.picture_preprocess import crop_of
from topgraft.errors import TopgraftError

SIZES = [(50, 40), (40, 50), (31, 97), (33, 33), (20, 16), (200, 7)]


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in SIZES]


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("share", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
def test_pictures_are_prepared_bit_for_bit_as_timm_does(mode, interpolation, share, size):
    from timm.data import create_transform

    theirs = create_transform(
        (3, *size),
        interpolation=interpolation,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        crop_pct=share,
        crop_mode=mode,
    )
    ours = PicturePreprocess(
        size=size,
        resize=crop_of(size, share),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        interpolation=interpolation,
        mode="crop" if mode == "center" else mode,
    )
    batch = ours.batch(pictures())["x"]
    assert batch.shape == (len(SIZES), 3, *size)
    assert batch.dtype == torch.float32
    for picture, got in zip(pictures(), batch, strict=True):
        assert torch.equal(got, theirs(picture))


def test_pictures_of_other_modes_and_arrays_are_taken():
    preprocess = PicturePreprocess(size=(8, 8), resize=(8, 8))
    grey = Image.new("L", (9, 12), 100)
    rgb = np.full((12, 9, 3), 100, dtype=np.uint8)
    batch = preprocess.batch([grey, rgb, rgb[:, :, 0]])["x"]
    assert torch.equal(batch[0], batch[1])
    assert torch.equal(batch[0], batch[2])


@pytest.mark.parametrize(
    "bad", ["a/path.jpg", np.zeros((4, 4, 3)), np.zeros((3, 4, 4), dtype=np.uint8), None]
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(TopgraftError, match="Expected a"):
        PicturePreprocess(size=(8, 8), resize=(8, 8)).batch([bad])
