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
LARGEST = 4_000_000
"""Pixels of an original: a few have hundreds of millions, made to be drawn by machines."""
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
        source = given or fetched(Path(folder))
        new = Path(folder) / "new"
        for category in CATEGORIES:
            made = sampled(source / category, new / "all" / category, most=MOST, seed=0)
            for number, file in enumerate(made):
                part = "test" if number < TEST * len(made) else "train"
                (new / part / category).mkdir(parents=True, exist_ok=True)
                file.rename(new / part / category / file.name)
        shutil.rmtree(new / "all")
        drop_copies(new)
        new.rename(done)
    return done


def drop_copies(folder: Path) -> None:
    """Take out of ``test`` what is, exactly or nearly, in ``train`` too."""
    import topgraft as tg
    from topgraft.data.sources import overlap

    test = tg.read(folder / "test")
    for number in {number for number, _ in overlap(test, tg.read(folder / "train"))}:
        Path(test.names[number]).unlink()


def fetched(folder: Path) -> Path:
    """Debian's package, unpacked below ``folder``: where its categories lie."""
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / "unpacked"], check=True)
    return folder / "unpacked" / "usr" / "share" / "openclipart" / "png"


def sampled(source: Path, out: Path, *, most: int, seed: int) -> list[Path]:
    """At most so many pictures of a category, at random, shrunk into a folder; their new paths."""
    files = sorted(source.rglob("*.png"))
    random.Random(seed).shuffle(files)
    made: list[Path] = []
    for file in files:
        new = out / f"{len(made):04}.jpg"
        if len(made) < most and _shrunk(file, new):
            made.append(new)
    return made


def _shrunk(file: Path, out: Path) -> bool:
    """Write the picture on white as JPEG; whether it could be read and is of an ordinary size."""
    import warnings

    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > LARGEST:
                return False
            picture = opened.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
    picture.thumbnail((SIDE, SIDE))
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    out.parent.mkdir(parents=True, exist_ok=True)
    white.convert("RGB").save(out, quality=90)
    return True
