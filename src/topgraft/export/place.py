"""Where an export appears: whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topgraft.errors import TopgraftError
from topgraft.files import new_folder, told

DOCUMENT = "export.json"
"""What tells an export from other folders."""
_FILES = (".onnx", ".pt2", ".pt", ".xml", ".bin", ".safetensors")


def check(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where an export can't appear, before any work is done.

    Raises
    ------
    TopgraftError
        If something is there that may not be replaced, or the name is that of a file.
    """
    if path.suffix in _FILES and not path.is_dir():
        raise TopgraftError(
            f"-o {path}: an export is a folder, and this is the name of a file. Give {path.with_suffix('')}, "
            "say; the file will be in it."
        )
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / DOCUMENT).is_file():
        raise TopgraftError(
            f"{path} exists and is not an export of topgraft; it is left alone. "
            "Give -o a folder that does not exist yet."
        )
    if not overwrite:
        raise TopgraftError(f"{path} holds an export. Give another -o, or --overwrite to replace it.")


@contextmanager
def export_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into that appears at ``path`` when the block ends well, in place of what was there.

    Raises
    ------
    TopgraftError
        As :func:`check`; or if the place can't be written to.
    """
    check(path, overwrite=overwrite)
    place = path.resolve()  # what a link stands for is replaced, not the link
    with told(path):
        place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        with new_folder(place) as folder:
            yield folder
        return
    token = secrets.token_hex(8)
    new, old = (place.with_name(f".{place.name}-{what}-{token}") for what in ("new", "old"))
    with new_folder(new) as folder:
        yield folder
    with told(path):
        place.rename(old)
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            shutil.rmtree(new, ignore_errors=True)
            raise
    shutil.rmtree(old, ignore_errors=True)
