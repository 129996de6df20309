"""Views of a picture at prediction: which ones, and that their answers are averaged, one view being none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import called, done
from exported_grafts import pictures, saved
from PIL import Image, ImageOps

import topgraft as tg
from topgraft.errors import TopgraftError
from topgraft.saved import Model
from topgraft.tta import MOST, must_view, view

RAMP = Image.fromarray(np.arange(20 * 40 * 3, dtype=np.uint32).reshape(20, 40, 3).astype(np.uint8))


@pytest.fixture(scope="module")
def model() -> Model:
    return pictures()


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = replace(model, description={**model.description, "classes": ["buildings", "food", "tools"]})
    return saved(named, tmp_path_factory.mktemp("saved") / "model")


def test_views_are_itself_mirrored_and_each_corner_as_it_is_and_mirrored() -> None:
    pixels = np.asarray(RAMP)
    found = [np.asarray(view(RAMP, n)) for n in range(MOST)]
    assert np.array_equal(found[0], pixels)
    assert np.array_equal(found[1], pixels[:, ::-1])
    corners = [pixels[a : a + 18, b : b + 36] for a in (0, 2) for b in (0, 4)]
    expected = {corner.tobytes() for one in corners for corner in (one, one[:, ::-1])}
    assert {one.tobytes() for one in found[2:]} == expected
    assert found[2].tobytes() == corners[0].tobytes()


def test_one_view_is_bit_for_bit_what_there_was_and_more_are_the_mean(model: Model, photos: Path) -> None:
    paths = sorted(photos.rglob("*.webp"))[:5]
    plain = [p.probabilities for p in tg.predict(model, paths)]
    assert [p.probabilities for p in tg.predict(model, paths, tta=1)] == plain
    opened = [Image.open(path).convert("RGB") for path in paths]
    each = [[p.probabilities for p in tg.predict(model, [view(one, n) for one in opened])] for n in range(4)]
    found = tg.predict(model, opened, tta=4)
    assert np.array([p.probabilities for p in found]) == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert not np.allclose(each[0], each[1])
    mirrored = tg.predict(model, [ImageOps.mirror(one) for one in opened], tta=2)
    same = tg.predict(model, opened, tta=2)
    for a, b in zip(mirrored, same, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


def test_the_command_line_says_what_is_averaged(folder: Path, photos: Path) -> None:
    outcome = done("predict", folder, photos / "food", "--tta", "3", "--format", "jsonl")
    assert "mean over 3: the picture, mirrored, and 1 shifted view of 90 % of its sides" in outcome.err
    assert (
        done("predict", folder, photos / "food", "--tta", "1").out
        == done("predict", folder, photos / "food").out
    )
    told = done("evaluate", folder, photos, "--tta", "2", "--json")
    assert told.json["tta"] == 2
    assert "the picture and mirrored" in told.err
    assert "tta" not in done("evaluate", folder, photos, "--json").json


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--tta", "0"), "give 1 (the picture alone) to 10"),
        (("--tta", "11"), "--tta 11 is out of range"),
        (("--tta", "2", "--coverage", "0.9"), "rests on predictions without --tta"),
    ],
)
def test_views_that_there_are_not_are_refused(folder: Path, photos: Path, more: tuple, words: str) -> None:
    outcome = called("predict", folder, photos / "food", *more)
    assert outcome.status == 2
    assert words in " ".join(outcome.err.split())


def test_what_is_no_picture_has_no_views() -> None:
    must_view(1, "text")
    with pytest.raises(TopgraftError, match="this model reads texts"):
        must_view(2, "text")
