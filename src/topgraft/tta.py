"""Test-time augmentation: a picture is predicted as it is, mirrored and shifted; answers are averaged."""

from __future__ import annotations

from typing import Any

from topgraft.errors import TopgraftError

SHARE = 0.9
"""Of either side that a shifted view has; it lies in a corner."""
MIRRORED = 1
_SHIFTS = ((0, 0), (1, 1), (1, 0), (0, 1))
MOST = 2 * (1 + len(_SHIFTS))


def must_view(count: int, modality: str) -> None:
    """Refuse so many views of what is no picture.

    Raises
    ------
    TopgraftError
        If there are no such views.
    """
    if not 1 <= count <= MOST:
        raise TopgraftError(f"--tta {count} is out of range: give 1 (the picture alone) to {MOST}.")
    if count > 1 and modality != "picture":
        raise TopgraftError(
            f"--tta {count} shows mirrored and shifted pictures; this model reads {modality}s. Leave it out."
        )


def view(picture: Any, number: int) -> Any:
    """One of the views of a Pillow picture, always the same: 0 is itself, 1 is mirrored.

    The others are the four corners of nine tenths of either side, each as it is or mirrored by turns (the ten
    crops of Krizhevsky et al. 2012, with the whole picture instead of its middle).

    Parameters
    ----------
    picture
        Decoded.
    number
        0 to :data:`MOST` - 1.

    Examples
    --------
    >>> from PIL import Image
    >>> [view(Image.new("RGB", (100, 50)), n).size for n in (0, 1, 2)]
    [(100, 50), (100, 50), (90, 45)]
    """
    if number >= 2:
        wide, high = (max(1, round(SHARE * side)) for side in picture.size)
        right, below = _SHIFTS[(number - 2) % len(_SHIFTS)]
        left, top = right * (picture.width - wide), below * (picture.height - high)
        picture = picture.crop((left, top, left + wide, top + high))
    rounds, place = divmod(number - 2, len(_SHIFTS)) if number >= 2 else (0, number)
    is_mirrored = (place + rounds) % 2 == 1
    if not is_mirrored:
        return picture
    from PIL import ImageOps

    return ImageOps.mirror(picture)


def in_words(count: int) -> str:
    """What is averaged.

    Examples
    --------
    >>> in_words(2), in_words(4)
    ('the picture and mirrored', 'the picture, mirrored, and 2 shifted views of 90 % of its sides')
    """
    if count == MIRRORED + 1:
        return "the picture and mirrored"
    shifted = count - 1 - MIRRORED
    views = f"{shifted} shifted view{'' if shifted == 1 else 's'}"
    return f"the picture, mirrored, and {views} of {round(100 * SHARE)} % of its sides"
