"""How pictures are changed in training: light, standard, strong, or by a function of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from topgraft.backbones.own import TARGET, function_of
from topgraft.data.types import Data
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.features.views import AREA, drawn_for
from topgraft.settings import AUGMENTATIONS, Settings

Augment = Callable[[Any], Any]


@dataclass(frozen=True)
class Level:
    """A named augmentation: a random crop, a flip half of the time, and maybe a change of colour or form.

    Parameters
    ----------
    area
        Share of the picture's area that a crop has.
    is_wide
        Whether one of torchvision's operations of any strength follows, drawn at random (TrivialAugment,
        wide: Mueller and Hutter 2021).
    """

    area: tuple[float, float]
    is_wide: bool = False

    def __call__(self, picture: Any) -> Any:
        """A changed Pillow picture of the same size, drawn from torch's own stream of numbers."""
        changed = drawn_for(picture, self.area).of(picture)
        if not self.is_wide:
            return changed
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)(changed)


LEVELS = {"light": Level((0.85, 1.0)), "standard": Level(AREA), "strong": Level((0.35, 1.0), is_wide=True)}


def augmentation_of(settings: Settings) -> Augment:
    """What changes a decoded picture in each epoch; where it is ``auto``, as ``standard``.

    Raises
    ------
    TopgraftError
        If it is the name of a function that is not there, or that may not be run.
    """
    asked = settings.augment
    if not isinstance(asked, str):
        return asked
    if asked in LEVELS or asked in AUGMENTATIONS:
        return LEVELS.get(asked, LEVELS["standard"])
    if not TARGET.fullmatch(asked):
        raise TopgraftError(
            f"--augment {asked}: give one of {', '.join(AUGMENTATIONS)}, or package.module:function."
            f"{did_you_mean(asked, AUGMENTATIONS)}"
        )
    if not settings.trust_code:
        raise TopgraftError(
            f"--augment {asked} runs code of your own. Say so with --trust-code (trust_code=True)."
        )
    found: Augment = function_of(asked)
    return found


def must_augment(settings: Settings, data: Data) -> None:
    """Refuse what can't change these examples, by trying it on one, before anything is measured.

    Raises
    ------
    TopgraftError
        If the examples are no pictures, or a function of one's own fails or gives something else.
    """
    if settings.augment in ("auto", "none"):
        return
    change, name = augmentation_of(settings), settings.to_json()["augment"]
    if data.modality != "picture":
        raise TopgraftError(
            f"--augment {name} changes pictures; the data are {data.modality}s. Leave it out."
        )
    if isinstance(change, Level) or not len(data):
        return
    example = data.decode(0)
    try:
        with torch.random.fork_rng(devices=[]):
            changed = change(example)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise TopgraftError(f"--augment {name} failed on {data.names[0]}: {said}") from error
    if not hasattr(changed, "convert"):
        raise TopgraftError(
            f"--augment {name} gave a {type(changed).__name__} for {data.names[0]}. Expected a "
            "Pillow picture in, a Pillow picture out; the preprocessing follows."
        )
