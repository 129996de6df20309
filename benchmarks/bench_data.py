"""The pictures of the speed benchmarks: eight categories of Debian's openclipart-png, shrunk, split once."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path

CATEGORIES = ("animals", "food", "geography", "office", "people", "recreation", "tools", "transportation")
MOST = 300
"""Pictures of a category."""
SIDE = 320
"""Longest side in pixels: the originals vary from 30 to 5,000, and decoding is not what is compared."""
TEST = 0.2
PACKAGE = "openclipart-png"


def pictures(build: Path, given: Path | None = None) -> Path:
    """A folder with ``train`` and ``test``, one folder for each category in each; made once.

    Parameters
    ----------
    build
        Where it is made.
    given
        A folder with one folder a category; Debian's package is fetched where none is given.
    """
    done = build / "pictures"
    if done.is_dir():
        return done
    with tempfile.TemporaryDirectory(dir=build) as folder:
        source = given or _fetched(Path(folder))
        new = Path(folder) / "new"
        for category in CATEGORIES:
            files = sorted((source / category).rglob("*.png"))
            random.Random(0).shuffle(files)
            shrunk = [p for f in files if (p := _shrunk(f, new / "all" / category, MOST))][:MOST]
            for number, file in enumerate(shrunk):
                part = "test" if number < TEST * len(shrunk) else "train"
                (new / part / category).mkdir(parents=True, exist_ok=True)
                file.rename(new / part / category / file.name)
        shutil.rmtree(new / "all")
        new.rename(done)
    return done


def _fetched(folder: Path) -> Path:
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / "unpacked"], check=True)
    return folder / "unpacked" / "usr" / "share" / "openclipart" / "png"


def _shrunk(file: Path, folder: Path, most: int) -> Path | None:
    """The picture on white as JPEG; ``None`` where it can't be read, or there are enough."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.iterdir())) >= most:
        return None
    try:
        with Image.open(file) as opened:
            opened.draft("RGB", (SIDE, SIDE))
            picture = opened.convert("RGBA")
    except (OSError, ValueError):
        return None
    picture.thumbnail((SIDE, SIDE))
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    out = folder / f"{file.stem}.jpg"
    white.convert("RGB").save(out, quality=90)
    return out
