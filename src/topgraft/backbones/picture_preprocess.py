"""From decoded pictures to a network's input: resized, cropped, normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from topgraft.backbones.described import Described, at_least_one, plain
from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

Mode = Literal["crop", "squash", "border"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
LARGEST = 8192
"""Pixels of the largest height or width that a network gets."""


@dataclass(frozen=True)
class PicturePreprocess(Described):
    """Resize, crop and normalise pictures.

    Parameters
    ----------
    size
        Height and width that the network gets, pixels.
    resize
        Height and width before cropping, pixels. With ``mode="crop"`` the picture keeps its shape and
        just covers it; with ``"squash"`` it is stretched to it; with ``"border"`` it keeps its shape,
        fits inside, and is filled up with the mean colour.
    mean, std
        Per channel, on a scale where white is 1 (after ``scale``).
    key
        Name of the network's input.
    interpolation
        ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"lanczos"``, ``"box"`` or ``"hamming"``.
    mode
        See ``resize``.
    scale
        What pixel values 0 to 255 are divided by; 255 almost everywhere.
    reducing_gap
        A JPEG is decoded at a half, a quarter or an eighth of its size as long as both sides keep so many
        times the pixels of ``resize``, as Pillow's parameter of this name does it; 0 to decode all of it.

    Examples
    --------
    >>> from PIL import Image
    >>> preprocess = PicturePreprocess(size=(32, 32), resize=(36, 36), mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> batch = preprocess.batch([Image.new("RGB", (50, 40), "white")])
    >>> batch["x"].shape, batch["x"].max().item()
    (torch.Size([1, 3, 32, 32]), 1.0)
    """

    size: tuple[int, int]
    resize: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    key: str = "x"
    interpolation: str = "bicubic"
    mode: Mode = "crop"
    scale: float = 255.0
    reducing_gap: float = 2.0

    @property
    def at_least(self) -> int | None:
        """Pixels that both sides of a decoded picture must have; ``None`` to decode all of it."""
        return math.ceil(self.reducing_gap * max(self.resize)) or None

    def __post_init__(self) -> None:
        """Refuse what can't be meant, such as a changed file would have it."""
        if [len(self.size), len(self.resize), len(self.mean), len(self.std)] != [2, 2, 3, 3]:
            raise ValueError("height and width, and three channels, are needed")
        sizes: tuple[object, ...] = (*self.size, *self.resize)
        for pixels in sizes:
            if not isinstance(pixels, int) or not 1 <= pixels <= LARGEST:
                raise ValueError(f"sizes are 1 to {LARGEST:,} pixels, not {pixels!r}")
        if not all(math.isfinite(m) for m in self.mean) or not all(s > 0 for s in (*self.std, self.scale)):
            raise ValueError(f"mean {self.mean}, deviation {self.std} or scale {self.scale} can't be used")
        if not (self.reducing_gap == 0 or 1 <= self.reducing_gap < math.inf):
            raise ValueError(f"reducing_gap {self.reducing_gap} is neither 0 nor 1 or more")
        if not isinstance(self.key, str):
            raise TypeError(f"key is a text, not {self.key!r:.40}")
        if self.interpolation not in INTERPOLATIONS or self.mode not in get_args(Mode):
            raise ValueError(f"interpolation {self.interpolation!r} or mode {self.mode!r} is unknown")

    def resized(self, how: Mode) -> PicturePreprocess:
        """The same, but for how pictures are brought to ``size``; they reach to its edges, with no margin.

        Examples
        --------
        >>> PicturePreprocess(size=(32, 32), resize=(36, 36)).resized("squash").lines()[0]
        'pictures: stretched to 32 x 32 (bicubic), mean 0.485, 0.456, 0.406, deviation 0.229, 0.224, 0.225'
        """
        return self if how == self.mode else replace(self, mode=how, resize=self.size)

    def sized(self, side: int) -> PicturePreprocess:
        """The same for pictures of another size, with the same share of them cut away.

        Parameters
        ----------
        side
            Pixels of the shorter side of what the network gets.

        Examples
        --------
        >>> PicturePreprocess(size=(224, 224), resize=(256, 256)).sized(112).resize
        (128, 128)
        """
        return replace(
            self, size=scaled(self.size, self.size, side), resize=scaled(self.resize, self.size, side)
        )

    def crop(self, picture: Image | NDArray[np.uint8]) -> Image:
        """One picture, resized and cropped to ``size``, in RGB.

        Raises
        ------
        TopgraftError
            If it is neither a Pillow picture nor an array of bytes of shape (H, W) or (H, W, 3).
        """
        from PIL import Image as Pillow

        picture = _as_picture(picture)
        sample = Pillow.Resampling[self.interpolation.upper()]
        width, height = picture.size
        new = self._resized(height, width)
        if new != (height, width):
            picture = picture.resize((new[1], new[0]), sample)
        return _centre(picture, self.size, fill=self._fill())

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """What the network sees of a picture: left, top, right and bottom, as shares of its width and height.

        Outside 0 to 1 where the picture is given a border.

        Parameters
        ----------
        height, width
            Of the picture, pixels.

        Examples
        --------
        >>> preprocess = PicturePreprocess(size=(32, 32), resize=(32, 32))
        >>> preprocess.seen(100, 200)
        (0.25, 0.0, 0.75, 1.0)
        >>> preprocess.resized("border").seen(100, 200)
        (0.0, -0.5, 1.0, 1.5)
        """
        high, wide = self._resized(height, width)
        top, bottom = _middle(high, self.size[0])
        left, right = _middle(wide, self.size[1])
        return left / wide, top / high, right / wide, bottom / high

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.resize
        if self.mode == "squash":
            return self.resize
        if self.mode == "crop" and rows == columns:
            # As torchvision's Resize with one number: the longer side is cut off, not rounded.
            short, long = min(height, width), max(height, width)
            longer = int(rows * long / short)
            return (rows, longer) if height <= width else (longer, rows)
        by = max if self.mode == "border" else min
        ratio = by(height / rows, width / columns)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _fill(self) -> tuple[int, ...]:
        return tuple(round(255 * m) for m in self.mean) if self.mode == "border" else (0, 0, 0)

    def normalize(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures of one size -> float32 (B, 3, H, W), normalised."""
        import numpy as np
        import torch

        pixels = torch.from_numpy(np.stack([np.asarray(p, dtype=np.uint8) for p in pictures]))
        values = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(float(self.scale))
        mean = torch.tensor(self.mean, dtype=torch.float32).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32).view(1, -1, 1, 1)
        return values.sub_(mean).div_(std)

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Pictures -> ``{key: float32 (B, 3, height, width)}``."""
        at_least_one(raw)
        return {self.key: self.normalize([self.crop(picture) for picture in raw])}

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        return {"kind": "picture", **plain(asdict(self))}

    def lines(self) -> list[str]:
        """What is done, in plain words."""
        height, width = self.size
        how = {
            "crop": f"shorter side resized to {min(self.resize)}, centre cropped to",
            "squash": "stretched to",
            "border": "fitted with a border into",
        }[self.mode]
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        said = [f"pictures: {how} {height} x {width} ({self.interpolation}), mean {mean}, deviation {std}"]
        if self.at_least is not None:
            said.append(f"JPEGs decoded at 1/2 to 1/8 where both sides keep {self.at_least} pixels")
        return said


def scaled(sides: tuple[int, int], like: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width, changed by what brings the shorter one of ``like`` to ``side``.

    Examples
    --------
    >>> scaled((256, 512), (224, 448), 112)
    (128, 256)
    """
    return round(sides[0] * side / min(like)), round(sides[1] * side / min(like))


def crop_of(size: tuple[int, int], share: float) -> tuple[int, int]:
    """Height and width to resize to, so that the crop ``size`` is ``share`` of it (timm's ``crop_pct``).

    Examples
    --------
    >>> crop_of((224, 224), 0.875)
    (256, 256)
    """
    return math.floor(size[0] / share), math.floor(size[1] / share)


def _as_picture(picture: Any) -> Image:
    import numpy as np
    from PIL import Image as Pillow

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (
            picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
        ):
            raise TopgraftError(
                f"Expected a picture as bytes (uint8) of shape (height, width, 3), "
                f"got {picture.dtype} of shape {picture.shape}."
            )
        return Pillow.fromarray(picture).convert("RGB")
    if not isinstance(picture, Pillow.Image):
        raise TopgraftError(f"Expected a decoded picture, got {type(picture).__name__}: {picture!r:.80}.")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _middle(side: int, size: int) -> tuple[int, int]:
    """Where :func:`_centre` begins and ends along one side, pixels; outside it where it is filled up."""
    missing = max(0, size - side)
    start = round((side + missing - size) / 2) - missing // 2
    return start, start + size


def _centre(picture: Image, size: tuple[int, int], fill: tuple[int, ...]) -> Image:
    """The middle of a picture; where it is smaller than ``size`` it is filled up first."""
    from PIL import ImageOps

    height, width = size
    wide, high = picture.size
    across, down = max(0, width - wide), max(0, height - high)
    if across or down:
        border = (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
        picture = ImageOps.expand(picture, border, fill=fill)
        wide, high = picture.size
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return picture.crop((left, top, left + width, top + height))
