"""Trainings that are healthy, and some that were made sick on purpose, for ``make health``."""

from __future__ import annotations

import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topgraft.health import DEAD, EXPLODING, VANISHING

WIDTH, FEATURES, CLASSES, COUNT = 24, 12, 3, 128
PICTURES, TEXTS, SOUNDS = 30, 40, 16
"""Examples of each class."""
SETTINGS = {"rate": 1e-3}
"""Of networks with random weights; those with real weights have the tool's own rate."""


@dataclass(frozen=True)
class Case:
    """A training.

    Parameters
    ----------
    name, family
        What is trained, and of which family of networks.
    make
        Given a folder, the backbone and the data.
    freeze
        Blocks frozen, as share of all.
    settings
        Of the fit.
    expected
        The verdict on each block that is sick, by number; those left out are healthy. The block after the
        last is the head. Empty for a healthy training.
    either
        Blocks of which nothing is expected: how far gradients vanish depends on the numbers drawn.
    """

    name: str
    family: str
    make: Callable[[Path], tuple[Any, Any]]
    freeze: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[int, str] = field(default_factory=dict)
    either: Sequence[int] = ()


# networks with random weights


def plain(depth: int, activation: type[nn.Module] = nn.ReLU, *, seed: int = 2) -> nn.Sequential:
    """Plain layers."""
    torch.manual_seed(seed)
    found: list[nn.Module] = []
    for size in (FEATURES, *[WIDTH] * (depth - 1)):
        found += [nn.Linear(size, WIDTH), activation()]
    return nn.Sequential(*found, nn.Linear(WIDTH, CLASSES))


class Residual(nn.Module):
    """A layer beside an identity."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(WIDTH, WIDTH), scale

    def forward(self, x: Tensor) -> Tensor:
        """As it says."""
        return x + self.scale * torch.relu(self.linear(x))


def residual(*scales: float) -> nn.Sequential:
    """Residual layers, each scaled by its number."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), *map(Residual, scales), nn.Linear(WIDTH, CLASSES))


def normed() -> nn.Sequential:
    """Layers with layer norms."""
    torch.manual_seed(4)
    found: list[nn.Module] = []
    for size in (FEATURES, WIDTH, WIDTH, WIDTH):
        found += [nn.Linear(size, WIDTH), nn.LayerNorm(WIDTH), nn.GELU()]
    return nn.Sequential(*found, nn.Linear(WIDTH, CLASSES))


def dead(layer: int) -> nn.Sequential:
    """Plain layers, of which one has biases so low that none of its units ever answers."""
    network = plain(4)
    with torch.no_grad():
        network[2 * (layer - 1)].bias -= 100
    return network


def convolutional() -> nn.Module:
    """A small residual network of maps with batch norms, by timm."""
    import timm

    torch.manual_seed(5)
    return timm.create_model("resnet10t", pretrained=False, num_classes=CLASSES, in_chans=3)


def attentive() -> nn.Module:
    """A small vision transformer, by timm."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(6)
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=48, depth=4, num_heads=3, num_classes=CLASSES
    )


def on_rows(network: Callable[[], nn.Module]) -> Callable[[Path], tuple[Any, Any]]:
    """A network for rows of numbers, whose classes follow from two of them."""

    def make(_: Path) -> tuple[Any, Any]:
        x = torch.randn(COUNT, FEATURES, generator=torch.Generator().manual_seed(1))
        return own(network(), x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())

    return make


def on_maps(network: Callable[[], nn.Module], side: int) -> Callable[[Path], tuple[Any, Any]]:
    """A network for maps, whose classes differ in what is bright."""

    def make(_: Path) -> tuple[Any, Any]:
        x = 0.5 * torch.randn(COUNT // 2, 3, side, side, generator=torch.Generator().manual_seed(1))
        y = torch.arange(len(x)) % CLASSES
        for i, label in enumerate(y.tolist()):
            x[i, label, : side // 2] += 0.7
        return own(network(), x, y)

    return make


def own(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    """A module of one's own and arrays, as backbone and data."""
    import topgraft as tg

    data = tg.read((x.numpy(), [f"class {label}" for label in y.tolist()]))
    return tg.load(network.eval(), modality="array", example=x[:4]), data


# networks with real weights


def pictures(folder: Path) -> tuple[Any, Any]:
    """EfficientNet-Lite0 and some of the packaged pictures."""
    import shutil

    import topgraft as tg
    from topgraft import demo

    for name in ("animals", "buildings", "food"):
        place = folder / "pictures" / name
        if not place.is_dir():
            place.mkdir(parents=True)
            for picture in sorted((demo.pictures() / name).iterdir())[:PICTURES]:
                shutil.copy(picture, place)
    return tg.load(modality="picture"), tg.read(folder / "pictures")


def texts(folder: Path) -> tuple[Any, Any]:
    """MiniLM and some of the packaged glosses."""
    import csv

    import topgraft as tg
    from topgraft import demo

    with demo.glosses().open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    kept = []
    for name in ("animal", "food", "person"):
        kept += [row for row in rows if row[1] == name][:TEXTS]
    table = folder / "texts.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *kept])
    return tg.load(modality="text"), tg.read(table, text="text", label="label")


def sounds(folder: Path) -> tuple[Any, Any]:
    """Resemblyzer and notes of three instruments that are made."""
    import topgraft as tg

    rate, stream = 16_000, np.random.default_rng(0)
    t = np.arange(int(1.6 * rate)) / rate
    for name, partials in (("bell", (1, 2.76, 5.4)), ("organ", (1, 3, 5, 7)), ("pluck", range(1, 12))):
        place = folder / "sounds" / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(SOUNDS):
            pitch = 110 * 2 ** stream.uniform(0, 2)
            sound = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in partials)
            fading = {"bell": 1.5 * t, "organ": 0 * t, "pluck": 12 * (t % 0.25)}[name]
            samples = 0.2 * sound * np.exp(-fading) + stream.normal(0, 0.02, len(t))
            with wave.open(str(place / f"{number:02}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(rate)
                file.writeframes((32_000 * samples.clip(-1, 1)).astype("<i2").tobytes())
    return tg.load(modality="sound"), tg.read(folder / "sounds")


HEALTHY_ONES = (
    Case("EfficientNet-Lite0, the right-most third", "convolutional, real weights", pictures, 2 / 3),
    Case("EfficientNet-Lite0, the last two blocks", "convolutional, real weights", pictures, 0.89),
    Case("MiniLM, the right-most third", "transformer, real weights", texts, 2 / 3),
    Case("MiniLM, all blocks", "transformer, real weights", texts),
    Case("Resemblyzer, all blocks", "recurrent, real weights", sounds),
    Case("three plain layers", "plain", on_rows(lambda: plain(3)), settings=SETTINGS),
    Case("two layers of tanh", "plain", on_rows(lambda: plain(2, nn.Tanh)), settings=SETTINGS),
    Case("four layers with layer norms", "plain with norms", on_rows(normed), settings=SETTINGS),
    Case("four residual layers", "residual", on_rows(lambda: residual(1, 1, 1)), settings=SETTINGS),
    Case("ResNet of ten layers", "convolutional", on_maps(convolutional, 32), settings={"rate": 3e-4}),
    Case("vision transformer of four blocks", "transformer", on_maps(attentive, 16), settings={"rate": 3e-4}),
)
GAIN = 20.0
"""By which each residual layer is scaled: activations grow 160,000-fold."""
EVERYWHERE = dict.fromkeys(range(1, 7), EXPLODING)
SICK_ONES = (
    Case(
        "thirty layers of sigmoids",
        "plain",
        on_rows(lambda: plain(30, nn.Sigmoid)),
        settings=SETTINGS,
        expected=dict.fromkeys(range(1, 21), VANISHING),
        either=range(21, 30),
    ),
    Case(
        "no norms and a large gain",
        "residual",
        on_rows(lambda: residual(*[GAIN] * 4)),
        settings=SETTINGS,
        expected=EVERYWHERE,
    ),
    Case(
        "the same, gradients not clipped",
        "residual",
        on_rows(lambda: residual(*[GAIN] * 4)),
        settings={**SETTINGS, "clip": 1e6},
        expected=EVERYWHERE,
    ),
    Case(
        "a rate 100 times too high",
        "plain",
        on_rows(lambda: plain(3)),
        settings={"rate": 0.1},
        expected=dict.fromkeys(range(1, 4), EXPLODING),
    ),
    Case(
        "dead units in the third layer",
        "plain",
        on_rows(lambda: dead(3)),
        settings=SETTINGS,
        expected={1: VANISHING, 2: VANISHING, 3: DEAD},
    ),
    Case(
        "a block scaled by 1e-6",
        "residual",
        on_rows(lambda: residual(1, 1e-6, 1)),
        settings=SETTINGS,
        expected={3: VANISHING},
    ),
)
