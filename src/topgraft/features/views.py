"""Pictures changed at random: each time anew, or as numbered views that are always the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

AUGMENTATION = "crop 0.6 to 1, flip"
"""What is changed: stored states of views depend on it."""
AREA, RATIO = (0.6, 1.0), (3 / 4, 4 / 3)
"""Share of the picture's area that a crop has, and its width over its height."""
_DRAWING = Lock()


@dataclass(frozen=True)
class Change:
    """A part of a picture, in pixels, and whether it is flipped."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool

    def of(self, picture: Image) -> Image:
        """The part, brought back to the picture's size."""
        from torchvision.transforms import v2

        wide, high = picture.size
        cropped: Image = v2.functional.resized_crop(
            picture,
            self.top,
            self.left,
            self.height,
            self.width,
            [high, wide],
            interpolation=v2.InterpolationMode.BICUBIC,
        )
        return v2.functional.horizontal_flip(cropped) if self.flipped else cropped


def drawn_for(picture: Image, area: tuple[float, float] = AREA) -> Change:
    """A change at random, from torch's own stream of numbers; ``area`` is the share that a crop has."""
    from torchvision.transforms import RandomResizedCrop

    top, left, height, width = RandomResizedCrop.get_params(picture, list(area), list(RATIO))
    return Change(top, left, height, width, bool(torch.rand(()) < 0.5))


def standard_augmentation(picture: Image) -> Image:
    """A random crop of 60 to 100 % of the area, brought back to the picture's size, flipped half of the time.

    Random numbers come from torch's own stream, which training seeds anew each epoch.
    """
    return drawn_for(picture).of(picture)


def view_of(picture: Image, digest: str, number: int) -> Image:
    """One of the views of a picture.

    Parameters
    ----------
    picture
        Decoded.
    digest
        Of its content. Together with the number it decides the view, whatever runs beside it.
    number
        From 1; 0 is the picture itself.
    """
    if number == 0:
        return picture
    seed = int(hashlib.sha256(f"{digest} {number}".encode()).hexdigest()[:15], 16)
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        change = drawn_for(picture)
    return change.of(picture)
