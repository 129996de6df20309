"""How pictures are brought to size: measured on the folds, written into the plan, saved and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import Residual, settled
from torch import nn

import topgraft as tg
from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.backbones.types import Backbone
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.features.passes import pooled_shelf
from topgraft.features.store import Store
from topgraft.fit import Run
from topgraft.resizing import advise_resize, affordable, can_be_squashed
from topgraft.saved import open_model
from topgraft.settings import Settings
from topgraft.stages import prepare

PLAIN: dict[str, Any] = {"engine": "torch", "precision": "fp32"}
SETTINGS = Settings.of(PLAIN)
SIZE = 16


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Residual(8), Residual(8)]
    return settled(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)))


def backbone() -> Backbone:
    found = tg.load(network(), modality="picture", example=torch.rand(2, 3, SIZE, SIZE))
    assert isinstance(found.preprocess, PicturePreprocess)
    own = PicturePreprocess(size=(SIZE, SIZE), resize=(SIZE + 2, SIZE + 2), key=found.preprocess.key)
    return replace(found, preprocess=own)


def pictures(folder: Path, *, wide: bool, count: int = 30) -> Data:
    """Noise; of the one class the ends are red, of the other blue, and of square pictures the middle."""
    random = np.random.default_rng(0)
    for label, channel in (("red", 0), ("blue", 2)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 120, (32, 96 if wide else 32, 3), dtype=np.uint8)
            ends = np.s_[:, [*range(20), *range(76, 96)]] if wide else np.s_[10:22, 10:22]
            pixels[ends][..., channel] += 60
            changed = pixels[ends].copy()
            changed[..., channel] += 60
            pixels[ends] = changed
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return tg.read(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return pictures(tmp_path_factory.mktemp("wide") / "pictures", wide=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fitted(data: Data, out: Path, store: Store, **options: Any) -> Run:
    return tg.fit(data, out, backbone=backbone(), store=store, **PLAIN, **options)


def plan_of(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "plan.json").read_text())["decisions"]
    return found


@pytest.mark.parametrize(
    ("how", "left", "corner"), [("crop", 30, 30), ("squash", 255, 255), ("border", 255, 124)]
)
def test_each_way_shows_its_part_of_a_picture(how: str, left: int, corner: int) -> None:
    pixels = np.full((40, 80, 3), 30, dtype=np.uint8)
    pixels[:, :12] = 255
    changed = backbone().resized(how).preprocess
    assert isinstance(changed, PicturePreprocess)
    seen = np.asarray(changed.crop(pixels))
    assert seen.shape == (SIZE, SIZE, 3)
    assert (seen[SIZE // 2, 0, 0], seen[0, 0, 0]) == (left, corner)


def test_resizing_of_what_is_no_picture_and_in_unknown_ways_is_refused() -> None:
    with pytest.raises(TopgraftError, match="resize=pad: give one of pretrained, crop, squash, border"):
        backbone().resized("pad")
    with pytest.raises(TopgraftError, match=r"resize=squash is for pictures; .* reads texts"):
        tg.load(None, modality="text").resized("squash")
    with pytest.raises(TopgraftError, match="--resize pad: give one of auto, pretrained, crop"):
        Settings.of({"resize": "pad"})


def test_pictures_that_a_crop_would_cut_are_squashed_and_predicted_so(
    wide: Data, store: Store, tmp_path: Path
) -> None:
    run = fitted(wide, tmp_path / "run", store, keep=3)
    decided = plan_of(run)["resize"]
    assert (decided["value"], run.result["resize"]) == ("squash", "squash")
    assert decided["reason"] == run.result["reasons"]["resize"]
    model = open_model(run.folder, module=network())
    assert isinstance(model.preprocess, PicturePreprocess)
    assert (model.preprocess.mode, model.preprocess.resize) == ("squash", (SIZE, SIZE))
    cropped = fitted(wide, tmp_path / "cropped", store, keep=3, resize="pretrained")
    assert run.score > cropped.score + 0.2
    assert cropped.result["reasons"]["resize"] == "as asked"
    again = fitted(wide, tmp_path / "again", store, plan=run.folder / "plan.json", keep=3)
    assert again.result["resize"] == "squash"
    weights = [(r.folder / "model.safetensors").read_bytes() for r in (run, again)]
    assert weights[0] == weights[1]


def test_a_repeat_without_what_was_stored_has_the_same_bits(wide: Data, store: Store, tmp_path: Path) -> None:
    run = fitted(wide, tmp_path / "run", store)
    again = fitted(wide, tmp_path / "again", Store(tmp_path / "empty"), plan=run.folder / "plan.json")
    weights = [(r.folder / "model.safetensors").read_bytes() for r in (run, again)]
    assert weights[0] == weights[1]


def test_pictures_of_which_nothing_is_lost_are_left_as_the_weights_were_made(
    tmp_path: Path, store: Store
) -> None:
    data, own = pictures(tmp_path / "pictures", wide=False), backbone()
    whole = own.resized("border").resized("crop")
    fold_of = np.arange(len(data)) % 3
    advice = advise_resize(whole, data, fold_of, store, SETTINGS, most=len(data))
    assert advice is not None
    assert (advice.gain, advice.how) == (0.0, "pretrained")  # the same pixels
    assert not can_be_squashed(own.resized("squash"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """So many that a sample of 400 is measured, of what is left without the untouched part, too."""
    return pictures(tmp_path_factory.mktemp("many") / "pictures", wide=True, count=510)


def test_what_was_measured_on_a_sample_is_the_one_passs_bit_for_bit(
    many: Data, store: Store, tmp_path: Path
) -> None:
    own, fold_of = backbone(), np.random.default_rng(0).integers(0, 3, len(many))
    both = (own, own.resized("squash"))
    shelves = [pooled_shelf(b, store, engine="torch", precision="fp32") for b in both]
    with_few = np.array([0] * len(many))
    assert advise_resize(own, many, with_few, store, SETTINGS, most=400) is None
    assert [len(shelf.known()) for shelf in shelves] == [0, 0]
    sample = advise_resize(own, many, fold_of, store, SETTINGS, most=400)
    assert sample is not None
    assert sample.count == 400
    assert [count for count, _ in sample.fresh] == [400, 400]
    reds = sum(many.targets[i] == 0 for i, d in enumerate(many.digests) if d in shelves[0].known())
    assert reds == 200, "half of each class, though the data are sorted by class"
    for number, one in enumerate(both):
        after, reused = tg.one_pass(one, many, store, **PLAIN)
        alone, _ = tg.one_pass(one, many, Store(tmp_path / str(number)), **PLAIN)
        assert reused == 400
        assert all(torch.equal(after.cuts[cut], alone.cuts[cut]) for cut in alone.cuts)


def test_a_fit_whose_sample_was_measured_and_its_repeat_have_the_same_bits(
    many: Data, store: Store, tmp_path: Path
) -> None:
    run = fitted(many, tmp_path / "run", store)
    assert "on 400 pictures" in run.result["reasons"]["resize"]
    again = fitted(many, tmp_path / "again", Store(tmp_path / "empty"), plan=run.folder / "plan.json")
    weights = [(r.folder / "model.safetensors").read_bytes() for r in (run, again)]
    assert weights[0] == weights[1]


def test_what_was_measured_is_the_one_passs(wide: Data, store: Store) -> None:
    own, fold_of = backbone(), np.random.default_rng(0).integers(0, 3, len(wide))
    shelves = [pooled_shelf(b, store, engine="torch", precision="fp32") for b in (own, own.resized("squash"))]
    found = advise_resize(own, wide, fold_of, store, SETTINGS, most=len(wide))
    assert found is not None
    assert [count for count, _ in found.fresh] == [len(wide)] * 2
    assert [shelf.known() for shelf in shelves] == [set(wide.digests)] * 2


@pytest.mark.parametrize(
    ("count", "example", "left", "expected"),
    [
        (516, 0.005, 60, 516),
        (516, 0.05, 60, 0),
        (800, 0.005, 600, 800),
        (801, 0.005, 600, 400),
        (10_000, 0.005, 600, 400),
        (10_000, 0.3, 600, 288),
        (60, 0.005, 1, 0),
    ],
)
def test_as_many_are_measured_as_the_share_of_time_allows(
    count: int, example: float, left: float, expected: int
) -> None:
    assert affordable(count, example=example, left=left) == expected


def test_nothing_is_measured_where_keep_and_freeze_are_given_or_there_is_no_time(
    wide: Data, store: Store, tmp_path: Path
) -> None:
    given = fitted(wide, tmp_path / "given", store, keep=3, freeze="all")
    assert given.result["resize"] == "pretrained"
    assert given.result["forecast"]["resizing"] is None
    asked = fitted(wide, tmp_path / "asked", store, keep=3, freeze="all", resize="squash")
    assert asked.result["resize"] == "squash"
    with pytest.raises(TopgraftError, match="resize=crop, but the plan says resize=squash"):
        fitted(wide, tmp_path / "other", store, resize="crop", plan=asked.folder / "plan.json")
    assert not (tmp_path / "other").exists()


def test_what_measuring_costs_is_told_before_and_counts_against_the_time(
    wide: Data, many: Data, store: Store, tmp_path: Path
) -> None:
    told = {"backbone": backbone(), "store": store, "folds": 3, "augment": "none", "engine": "torch"}
    found = tg.forecast(wide, **told)
    assert found.resizing is not None
    assert found.resizing.seconds == pytest.approx(found.one_pass.seconds)  # as many pictures, squashed
    assert found.resizing.disk == found.one_pass.disk > 0
    assert tg.forecast(wide, **told, keep=3, freeze="all").resizing is None
    assert tg.forecast(wide, **told, resize="squash").resizing is None
    sample = tg.forecast(many, **told)
    assert sample.resizing is not None
    assert sample.resizing.seconds == pytest.approx(400 * sample.speed.example)
    assert sample.resizing.disk == pytest.approx(sample.one_pass.disk * 400 / (0.8 * len(many)))
    run = fitted(wide, tmp_path / "run", store, keep=3)
    stage = run.result["forecast"]["resizing"]["seconds"]
    assert stage["predicted"] > 0
    assert stage["actual"] > 0
    again = tg.forecast(wide, **told)
    assert again.resizing is not None
    assert (again.resizing.seconds, again.one_pass.seconds) == (0, 0)  # both ways are stored


def test_the_probe_command_measures_depths_on_what_fit_would_read(
    wide: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from topgraft.console import Console
    from topgraft.measuring import run_probe

    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / "cache"))
    told = {"test": None, "allow_overlap": False, "dry_run": False, "timed": False}
    found = run_probe(wide, SETTINGS, began=time.monotonic(), console=Console(), **told)
    assert found["resize"]["how"] == "squash"
    assert found["resize"]["gain"] > 0
    ready = prepare(wide, tg.load(None, modality="picture").resized("squash"), SETTINGS)
    features, _ = tg.one_pass(ready.backbone, ready.development, Store(tmp_path / "other"))
    evidence = tg.probe(
        features, ready.development.targets, ready.fold_of, 2, groups=ready.development.groups
    )
    assert [cut["score"] for cut in found["cuts"]] == [cut.score for cut in evidence.cuts]
