"""Examples that are files: pictures and sounds, told by the endings of their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from topgraft.data.pictures import is_picture_name
from topgraft.data.sounds import is_sound_name

Kind = Literal["picture", "sound"]


def kind_of(name: str) -> Kind | None:
    """What a file is by the ending of its name; ``None`` where it is neither.

    Examples
    --------
    >>> kind_of("a.JPG"), kind_of("a.flac"), kind_of("a.txt")
    ('picture', 'sound', None)
    """
    return "picture" if is_picture_name(name) else "sound" if is_sound_name(name) else None


def most_are(names: Iterable[str]) -> Kind:
    """What most of some files are; pictures, where there are as many of each.

    Examples
    --------
    >>> most_are(["a.wav", "b.mp3", "cover.jpg"])
    'sound'
    """
    kinds = [kind_of(name) for name in names]
    return "sound" if kinds.count("sound") > kinds.count("picture") else "picture"


def as_kind(modality: str | None) -> Kind | None:
    """A modality whose examples are files; ``None`` for any other and for one that is not known."""
    return "picture" if modality == "picture" else "sound" if modality == "sound" else None
