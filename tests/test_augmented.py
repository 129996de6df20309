"""The sheet of augmented examples: in the run, in the report, and the same for the same seed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from command_line import called, done
from PIL import Image

from topgraft.augmented import sheet
from topgraft.data import read
from topgraft.features.views import view_of
from topgraft.files import read_json
from topgraft.settings import Settings

NETWORK = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--keep", "3", "--freeze", "1")


def pixels_of(one: dict[str, str]) -> np.ndarray:
    raw = base64.b64decode(one["picture"].removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(raw)) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def test_the_report_of_a_training_that_changed_pictures_shows_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def mirrored(picture):\n    return picture.transpose(0)\n", encoding="utf-8"
    )
    run, asked = tmp_path / "run", ("fit", photos, *NETWORK, "--epochs", "1", "--augment", "mine:mirrored")
    refused = called(*asked, "-o", run)
    assert (refused.status, run.exists()) == (2, False)
    assert "--trust-code" in refused.err
    outcome = done(*asked, "--trust-code", "--cutmix", "1", "-o", run)
    assert "steps paste a box of another one into each (--cutmix)" in " ".join(outcome.out.split())
    kept = read_json(run / "augmented.json")
    assert kept["augment"] == "mine:mirrored"
    assert [len(row["pictures"]) for row in kept["rows"]] == [5] * 4
    first, second = (pixels_of(one) for one in kept["rows"][0]["pictures"][:2])
    assert np.abs(first[:, ::-1] - second).mean() < 6  # but for what a lossy picture loses
    assert np.abs(first - second).mean() > 6
    done("report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "What training saw of pictures" in page
    assert page.count("data:image/webp") >= 20


@pytest.mark.slow
def test_a_run_that_changed_none_has_no_sheet(photos: Path, tmp_path: Path) -> None:
    done("fit", photos, *NETWORK, "--epochs", "1", "--augment", "none", "-o", tmp_path / "run")
    assert not (tmp_path / "run" / "augmented.json").exists()
    done("report", tmp_path / "run")
    assert "What training saw" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_the_seed_decides_and_stored_views_are_the_ones_shown(photos: Path) -> None:
    data = read(photos)
    one, again, other = (sheet(data, Settings(augment="strong", seed=seed), views=0) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert [row["pictures"][0] for row in one["rows"]] == [row["pictures"][0] for row in other["rows"]]
    assert len({row["input"].split("/")[0] for row in one["rows"]} | {"x"}) >= 2
    stored = sheet(data, Settings(), views=2)
    place = data.names.index(stored["rows"][1]["input"])
    expected = view_of(data.decode(place), data.digests[place], 2).convert("RGB")
    expected.thumbnail((128, 128))
    assert np.abs(pixels_of(stored["rows"][1]["pictures"][2]) - np.asarray(expected).astype(int)).mean() < 8
