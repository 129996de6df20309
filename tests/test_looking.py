"""Where a model looked: the parts of all places make up the score, and lie where the class can be seen."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from packaged_data import pictures_of
from PIL import Image
from served import graft_model
from torch import Tensor, nn

from topgraft.backbones import PicturePreprocess, load
from topgraft.backbones.types import Backbone
from topgraft.errors import TopgraftError
from topgraft.looking import Looker, where
from topgraft.saved import Model
from topgraft.taps import with_taps

GREY = (128, 128, 128)
PLAIN = PicturePreprocess(size=(64, 64), resize=(64, 64), mean=(128 / 255,) * 3, std=(0.5,) * 3)
FIRST = np.eye(2)[:1].T @ np.eye(2)[:1]
"""A map of two by two with all of its weight in the first place."""
WHOLE = (0.0, 0.0, 1.0, 1.0)


def photos(count: int = 3) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in pictures_of("food", 0, count)]


def with_patch(left: int, top: int, side: int = 16) -> Image.Image:
    """Grey, which the networks below see as nothing, with a patch of colours."""
    picture = Image.new("RGB", (64, 64), GREY)
    colours = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    picture.paste(Image.fromarray(colours), (left, top))
    return picture


def convolutions(*more: nn.Module) -> nn.Sequential:
    """Layers without biases, so that where the picture is grey their activations are zero."""
    torch.manual_seed(0)
    more = more or (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12, bias=False), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 16, 2, stride=2, bias=False),
        nn.ReLU(),
        *more,
        nn.Linear(12, 3),  # the old output layer
    )


def model_of(network: nn.Module, keep: int | None = None) -> Model:
    example = torch.randn(2, 3, 64, 64)
    key = "input" if isinstance(network, nn.Sequential) else "x"
    backbone = load(network, modality="picture", example=example, preprocess=replace(PLAIN, key=key))
    return graft_model(backbone, keep or len(backbone.chain), 0)


def bias_score(model: Model, of: str) -> float:
    """The score of a class where all features are zero."""
    bias = model.graft.head.linear.bias.detach().double()
    best = model.classes.index(of)
    return float(bias[best] - (bias.sum() - bias[best]) / (len(bias) - 1))


def score(model: Model, picture: Image.Image, of: str) -> float:
    """Computed anew: the logit less the mean of the others."""
    with torch.no_grad():
        logits = model.graft(model.preprocess.batch([picture]))[0].double()
    best = model.classes.index(of)
    return float(logits[best] - (logits.sum() - logits[best]) / (len(logits) - 1))


@pytest.mark.parametrize(
    ("name", "freeze"),
    [
        ("test_efficientnet", 0),
        pytest.param("test_efficientnet", 5, marks=pytest.mark.exhaustive),
        ("test_resnet", 2),
    ],
)
def test_behind_the_last_cut_the_parts_of_all_places_and_the_bias_make_up_the_score(name: str, freeze: int):
    backbone = load(f"timm/{name}", weights="none", seed=4)
    model = graft_model(backbone, len(backbone.chain), freeze)
    looker = Looker(model)
    assert looker.grid.cut == len(backbone.chain)
    for picture, looked in zip(photos(), looker.look(photos()), strict=True):
        assert looked.parts.shape == (looker.grid.height, looker.grid.width)
        assert looked.score == pytest.approx(score(model, picture, looked.of), abs=1e-4)
        assert looked.parts.sum() + bias_score(model, looked.of) == pytest.approx(looked.score, abs=1e-4)
        assert looked.rest == pytest.approx(bias_score(model, looked.of), abs=1e-4)
        assert 0 <= looked.shares.min() <= looked.shares.max() == 1


def test_it_explains_the_class_that_predict_gives_and_changes_nothing():
    from topgraft.predict import predict

    model = graft_model(load("timm/test_efficientnet", weights="none", seed=4), 4, 3)
    before = predict(model, photos(5))
    looked = Looker(model).look(photos(5))
    assert [one.of for one in looked] == [p.label for p in before]
    assert [p.probabilities for p in predict(model, photos(5))] == [p.probabilities for p in before]
    assert not any(p.grad is not None for p in model.graft.parameters())


@pytest.mark.parametrize(
    ("left", "top", "said"),
    [(4, 4, "upper left"), (44, 24, "middle right"), (24, 44, "lower middle"), (24, 24, "middle")],
)
def test_where_one_region_alone_can_carry_the_class_all_of_the_weight_lies_there(
    left: int, top: int, said: str
):
    model = model_of(convolutions(), 2)
    nothing, looked = Looker(model).look([Image.new("RGB", (64, 64), GREY), with_patch(left, top)])
    rows = slice(top // 8, (top + 15) // 8 + 1)
    columns = slice(left // 8, (left + 15) // 8 + 1)
    outside = np.ones_like(looked.parts, dtype=bool)
    outside[rows, columns] = False
    assert np.abs(looked.parts).sum() > 1e-3
    assert np.abs(looked.parts[outside]).max() < 1e-6 * np.abs(looked.parts).max()
    found = re.match(rf"mostly in the {said} \((\d+) %", looked.where)
    assert found, looked.where
    assert int(found[1]) >= 95
    assert np.abs(nothing.parts).max() == 0
    assert nothing.where == "nowhere: no part of the picture speaks for it"
    assert nothing.score == pytest.approx(bias_score(model, nothing.of), abs=1e-6)


def test_the_sum_over_the_map_is_the_change_of_the_score():
    model = model_of(convolutions(), 2)
    (looked,) = Looker(model).look([with_patch(4, 4)])
    change = score(model, with_patch(4, 4), looked.of) - score(
        model, Image.new("RGB", (64, 64), GREY), looked.of
    )
    assert looked.parts.sum() == pytest.approx(change, abs=1e-6)


def test_behind_a_state_without_places_the_last_map_before_it_is_read():
    model = model_of(convolutions())
    assert model.graft.head.layout == "vector"
    looker = Looker(model)
    assert (looker.grid.layout, looker.grid.height) == ("map", 8)
    (looked,) = looker.look([with_patch(44, 44)])
    assert looked.parts.sum() + bias_score(model, looked.of) == pytest.approx(looked.score, abs=1e-5)
    assert np.abs(looked.parts[:5]).max() == 0
    assert np.abs(looked.parts[5:, 5:]).max() > 0


def test_what_earlier_cuts_tell_the_head_is_in_no_place():
    backbone = with_taps(load("timm/test_efficientnet", weights="none", seed=4), [2])
    model = graft_model(backbone, 4, 0)
    (looked,) = Looker(model).look(photos(1))
    picture = model.preprocess.batch(photos(1))
    with torch.no_grad():
        state = backbone.chain[:4].eval()(picture)
    head = model.graft.head.linear
    best = model.classes.index(looked.of)
    row = head.weight.detach().double()
    row = row[best] - (row.sum(0) - row[best]) / (len(row) - 1)
    of_tap = float((row[-state.tensors[1].shape[1] :] * state.tensors[1][0].double()).sum())
    assert looked.rest == pytest.approx(bias_score(model, looked.of) + of_tap, abs=1e-5)
    assert abs(of_tap) > 1e-3


def test_tokens_are_laid_out_without_the_class_token_one_block_before_the_head():
    backbone = load("timm/test_vit", weights="none", seed=1)
    model = graft_model(backbone, len(backbone.chain), 0)
    grid = Looker(model).grid
    assert (grid.layout, grid.height, grid.width, grid.before) == ("tokens", 10, 10, 1)
    last = max(b.index for b in backbone.chain if b.layout == "tokens" and b.index < len(backbone.chain))
    assert grid.cut == last
    (looked,) = Looker(model).look(photos(1))
    assert looked.parts.shape == (10, 10)
    assert looked.score == pytest.approx(score(model, photos(1)[0], looked.of), abs=1e-4)


class Tokens(nn.Module):
    """Patches as tokens, in order or not, each worked on alone."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 16, stride=16, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(2))
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)[:, self.order]
        for block in self.blocks:
            x = torch.relu(block(x))
        return x.mean(1)


def test_tokens_in_another_order_are_no_map():
    model = model_of(Tokens(list(range(16))))
    (looked,) = Looker(model).look([with_patch(48, 0)])
    outside = np.ones((4, 4), dtype=bool)
    outside[0, 3] = False
    assert looked.parts.shape == (4, 4)
    assert np.abs(looked.parts[outside]).max() < 1e-6 * np.abs(looked.parts).max()
    turned = model_of(Tokens(list(range(16))[::-1]))
    cuts = [block.layout for block in turned.graft.bare]
    if "map" in cuts[: turned.graft.keep]:  # then the map before the tokens is read
        assert Looker(turned).grid.layout == "map"
    else:
        with pytest.raises(TopgraftError, match="does not lie over the picture"):
            Looker(turned)


def test_what_has_no_places_or_reads_no_pictures_is_refused_with_the_reason():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    with pytest.raises(TopgraftError, match=r"\(the last: .*, vector\) does not lie over the picture"):
        Looker(model_of(flat))
    array: Backbone = load(convolutions(), modality="array", example=torch.randn(2, 3, 8, 8))
    with pytest.raises(TopgraftError, match="this model reads arrays"):
        Looker(graft_model(array, 2, 0))


class Stopped(nn.Module):
    """Lets no gradient through."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def test_where_no_gradient_comes_back_it_is_refused_at_once():
    more = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), Stopped(), nn.Linear(16, 12, bias=False), nn.ReLU())
    with pytest.raises(TopgraftError, match="There is no gradient from the answer back to the picture"):
        Looker(model_of(convolutions(*more)))


def test_covering_what_speaks_for_a_class_costs_more_than_covering_the_rest():
    """On real weights and real pictures: the half with more of the parts against the other one."""
    backbone = load("timm/tf_efficientnet_lite0")
    model = graft_model(backbone, 13, 13)
    some = photos(6)
    changes = []
    for picture, looked in zip(some, Looker(model).look(some), strict=True):
        width, height = picture.size
        mean = tuple(round(255 * m) for m in model.preprocess.mean)
        scores = []
        for left in (0, width // 2):
            covered = picture.copy()
            covered.paste(Image.new("RGB", (width // 2, height), mean), (left, 0))
            scores.append(score(model, covered, looked.of))
        half = looked.parts.shape[1] // 2
        more_is_left = looked.parts[:, :half].sum() > looked.parts[:, -half:].sum()
        changes.append((scores[1] - scores[0]) * (1 if more_is_left else -1))
    assert np.mean(changes) > 0
    assert sum(change > 0 for change in changes) >= 4


@pytest.mark.parametrize(
    ("weights", "seen", "said"),
    [
        (np.eye(3)[:1].T @ np.eye(3)[:1], WHOLE, "mostly in the upper left (100 %"),
        (np.eye(3), WHOLE, "in several parts, most in the upper left (33 %"),
        (np.ones((6, 6)), WHOLE, "in no part more than in the others"),
        (np.eye(4)[3:].T @ np.ones((1, 4)), WHOLE, "mostly in the lower half (100 %"),
        (FIRST, WHOLE, "mostly in the upper left quarter (100 %"),
        (FIRST, (0.4, 0.4, 0.8, 0.8), "mostly in the middle (100 %"),
        (np.ones((1, 4)), (0.0, -2.0, 1.0, 3.0), "in no part more"),
        (np.eye(9)[:1].T @ np.ones((1, 2)), (0.0, -2.0, 1.0, 3.0), "mostly in the upper half (100 %"),
    ],
)
def test_words_go_by_the_frame_of_the_picture(weights: np.ndarray, seen: tuple[float, ...], said: str):
    assert where(weights, seen).startswith(said)


@pytest.mark.parametrize("mode", ["crop", "squash", "border"])
@pytest.mark.parametrize(("height", "width"), [(90, 60), (60, 200), (64, 64), (20, 30)])
@pytest.mark.parametrize("sizes", [((32, 32), (40, 40)), ((48, 32), (54, 36)), ((40, 40), (32, 32))])
def test_what_is_seen_of_a_picture_is_what_the_crop_shows(mode, height, width, sizes):
    """Each pixel tells its place: red from left to right, green from top to bottom."""
    size, resize = sizes
    preprocess = PicturePreprocess(size=size, resize=resize, mode=mode, interpolation="bilinear")
    y, x = np.mgrid[:height, :width]
    places = np.stack([255 * (x + 0.5) / width, 255 * (y + 0.5) / height, 0 * x], -1)
    shown = np.asarray(preprocess.crop(Image.fromarray(places.round().astype(np.uint8))), dtype=float) / 255
    left, top, right, bottom = preprocess.seen(height, width)
    across = left + (np.arange(size[1]) + 0.5) / size[1] * (right - left)
    down = top + (np.arange(size[0]) + 0.5) / size[0] * (bottom - top)
    inside = [slice(*np.flatnonzero((at > 0.1) & (at < 0.9))[[0, -1]]) for at in (down, across)]
    off = 1.5 / min(height, width, *size) + 0.01  # of rounding to whole pixels
    assert np.abs(shown[inside[0], inside[1], 0] - across[inside[1]]).max() < off
    assert np.abs(shown[inside[0], inside[1], 1] - down[inside[0]][:, None]).max() < off
