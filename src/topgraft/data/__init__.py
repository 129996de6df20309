"""Reading and decoding examples: pictures, texts, sounds, rows of numbers; folds and the held-out part.

The names are loaded when they are first asked for, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topgraft.data.example import ExampleError
    from topgraft.data.pictures import MAX_PIXELS, PictureError, as_rgb, open_picture
    from topgraft.data.sounds import MAX_SECONDS, Sound, SoundError, open_sound
    from topgraft.data.sources import read, read_test
    from topgraft.data.splits import assign_folds, hold_out
    from topgraft.data.types import Data, LeftOut
    from topgraft.data.unlabelled import Row, rows

_HOME = {
    "Data": "types",
    "LeftOut": "types",
    "read": "sources",
    "read_test": "sources",
    "hold_out": "splits",
    "assign_folds": "splits",
    "open_picture": "pictures",
    "as_rgb": "pictures",
    "PictureError": "pictures",
    "MAX_PIXELS": "pictures",
    "ExampleError": "example",
    "MAX_SECONDS": "sounds",
    "Sound": "sounds",
    "SoundError": "sounds",
    "open_sound": "sounds",
    "Row": "unlabelled",
    "rows": "unlabelled",
}

__all__ = [
    "MAX_PIXELS",
    "MAX_SECONDS",
    "Data",
    "ExampleError",
    "LeftOut",
    "PictureError",
    "Row",
    "Sound",
    "SoundError",
    "as_rgb",
    "assign_folds",
    "hold_out",
    "open_picture",
    "open_sound",
    "read",
    "read_test",
    "rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
