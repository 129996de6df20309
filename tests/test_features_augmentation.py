"""Named augmentations, and one's own: what they do, by the seed, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from topgraft.data import read
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.features.augmentation import LEVELS, augmentation_of, must_augment
from topgraft.features.views import standard_augmentation
from topgraft.settings import Settings

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
RAMP = Image.fromarray(np.stack([np.tile(np.arange(200, dtype=np.uint8), (150, 1))] * 3, 2))
OWN = """
from PIL import ImageOps

def turned(picture):
    return ImageOps.flip(picture)

def numbers(picture):
    return 3

def broken(picture):
    raise ValueError("no")
"""


def drawn(name: str, seed: int, picture: Image.Image) -> np.ndarray:
    torch.manual_seed(seed)
    return np.asarray(augmentation_of(Settings(augment=name))(picture))


@pytest.fixture(scope="module")
def pictures() -> Data:
    return read(
        [Image.fromarray(np.roll(NOISE, i)) for i in range(6)], targets=[0, 1] * 3, near_duplicates=False
    )


@pytest.mark.parametrize("name", list(LEVELS))
def test_the_seed_decides_and_the_size_stays(name: str) -> None:
    picture = Image.fromarray(NOISE)
    found = [drawn(name, seed, picture) for seed in (1, 1, 2)]
    assert all(one.shape == NOISE.shape for one in found)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_standard_is_the_one_that_stored_views_have() -> None:
    picture = Image.fromarray(NOISE)
    torch.manual_seed(3)
    expected = np.asarray(standard_augmentation(picture))
    assert np.array_equal(drawn("standard", 3, picture), expected)


def test_stronger_ones_leave_out_more_and_strong_ones_change_colours_or_form() -> None:
    spans = {}
    for name in ("light", "standard"):
        rows = [drawn(name, seed, RAMP)[75, :, 0].astype(int) for seed in range(40)]
        spans[name] = [abs(row[-1] - row[0]) for row in rows]
    assert min(spans["light"]) > 0.85 * 199 * 0.85
    assert np.mean(spans["standard"]) < np.mean(spans["light"])
    plain = [drawn("standard", seed, RAMP) for seed in range(20)]
    assert all((one[..., 0] == one[..., 1]).all() for one in plain)
    still = 0
    for seed in range(40):
        found = drawn("strong", seed, RAMP).astype(int)
        still += int((np.abs(np.diff(found[..., 0], axis=0)).max() < 3) and found.max() - found.min() > 90)
    assert still < 35


def test_ones_own_by_name_needs_leave_and_in_python_anything_callable_does(
    pictures: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_changes.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TopgraftError, match="runs code of your own"):
        must_augment(Settings(augment="my_changes:turned"), pictures)
    trusted = Settings(augment="my_changes:turned", trust_code=True)
    must_augment(trusted, pictures)
    found = augmentation_of(trusted)(Image.fromarray(NOISE))
    assert np.array_equal(np.asarray(found), NOISE[::-1])
    flip = v2.RandomVerticalFlip(p=1.0)
    assert augmentation_of(Settings(augment=flip)) is flip
    assert Settings(augment=flip).to_json()["augment"] == "RandomVerticalFlip(p=1.0)"
    must_augment(Settings(augment=flip), pictures)
    for name, words in (
        ("my_changes:numbers", "gave a int for 0. Expected a Pillow picture"),
        ("my_changes:broken", "failed on 0: ValueError: no"),
        ("my_changes:turner", "has no 'turner'"),
    ):
        with pytest.raises(TopgraftError, match=words):
            must_augment(Settings(augment=name, trust_code=True), pictures)


def test_what_is_no_picture_is_not_changed() -> None:
    texts = read(["a b", "c d", "e f"], targets=["x", "y", "x"])
    with pytest.raises(TopgraftError, match="--augment strong changes pictures; the data are texts"):
        must_augment(Settings(augment="strong"), texts)
    must_augment(Settings(augment="none"), texts)
    with pytest.raises(TopgraftError, match="give one of auto, none, light, standard, strong"):
        Settings(augment="strogn")
    with pytest.raises(TopgraftError, match=r"package\.module:function"):
        augmentation_of(Settings(augment=":"))


def test_a_plan_keeps_the_name_and_agrees_with_the_same_function() -> None:
    asked = Settings(augment=v2.RandomVerticalFlip(p=1.0))
    decided = {"augment": {"value": asked.to_json()["augment"], "reason": ""}}
    assert asked.repeating(decided).augment is asked.augment
    with pytest.raises(TopgraftError, match="the plan says"):
        Settings(augment="strong").repeating(decided)
