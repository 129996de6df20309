"""The tasks of the study: pictures, texts and sounds, near to the backbone's world and far from it.

The chain of the packaged network for sounds has four blocks, and so 14 pairs of keep and freeze in all. One
task of sounds is therefore read from spectrograms by the network for pictures, whose chain has 18, as is
often done (Palanisamy et al. 2020, arXiv:2007.11154).
"""

from __future__ import annotations

import csv
import gzip
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_data

Row = tuple[str, str]
"""A text or the path of a file, and its label."""
NUMBERS = 6
"""Classes of fonts, voices and kinds of nouns, where more could be had."""
FONTS = {
    "fonts-dejavu-core": "DejaVuSerif.ttf",
    "fonts-liberation": "LiberationSans-Regular.ttf",
    "fonts-freefont-ttf": "FreeMono.ttf",
    "fonts-lobster": "*obster*.otf",
    "fonts-comfortaa": "*omfortaa*.ttf",
    "fonts-cantarell": "Cantarell*.otf",
}
"""Debian's package of a font -> its file."""
VOICES = ("m1", "m3", "m7", "f2", "f4", "croak")
LANGUAGES = ("en", "de", "fr", "it", "fi", "pl")
KINDS = {"05": "animal", "06": "artifact", "08": "body", "13": "food", "15": "location", "20": "plant"}
"""Lexicographers' files of WordNet's nouns: number -> name, by its manual page lexnames."""
PARTS = ("noun", "verb", "adj", "adv")
RATE, SECONDS, RANGE = 8_000, 2, 60
"""Of spectrograms: samples a second, of which so many seconds are heard, and decibels below the loudest."""


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Parameters
    ----------
    name, modality
        ``picture``, ``text`` or ``sound``.
    near
        Whether the backbone was trained on much the same.
    examples
        That are learned from.
    untouched
        That every choice is scored on, in halves.
    size
        Pixels of pictures for the network; ``None``: its own.
    epochs
        For which a training is laid out.
    make
        Writes files below a folder and gives rows, in an order that is always the same.
    said
        In words.
    """

    name: str
    modality: str
    near: bool
    examples: int
    untouched: int
    size: int | None
    epochs: int
    make: Callable[[Path], Iterable[Row]]
    said: str

    @property
    def column(self) -> str:
        """Of the tables that :func:`tables` writes."""
        return "text" if self.modality == "text" else "path"


def rows_of(task: Task, folder: Path) -> list[Row]:
    """Everything that a task draws from; made once below ``folder``."""
    table = folder / "all.csv"
    if not table.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(table, task.column, list(task.make(folder)))
    with table.open(encoding="utf-8", newline="") as file:
        return [(row[task.column], row["label"]) for row in csv.DictReader(file)]


def tables(task: Task, rows: Sequence[Row], seed: int, folder: Path) -> tuple[Path, Path]:
    """Tables of the examples of one seed and of the untouched ones, which are the same for all seeds."""
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    untouched, rest = order[: task.untouched], order[task.untouched :]
    learned = random.Random(seed + 1).sample(rest, task.examples)
    made = folder / f"learned-{seed}.csv", folder / "untouched.csv"
    for path, numbers in zip(made, (learned, untouched), strict=True):
        write_rows(path, task.column, [rows[number] for number in numbers])
    return made


def write_rows(path: Path, column: str, rows: Sequence[Sequence[str]]) -> None:
    """A table with a column and the labels, whole or not at all."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(column, "label"), *rows])
    new.replace(path)


def digits(folder: Path) -> Iterable[Row]:
    """Handwritten digits of scikit-learn, 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    for number, (picture, label) in enumerate(zip(found.images, found.target, strict=True)):
        yield _picture(folder, number, 255 - picture * 15.9, f"digit {label}")


def clothes(folder: Path, *, most: int = 3000) -> Iterable[Row]:
    """Fashion-MNIST: the first pictures of clothes, 28 x 28 pixels."""
    import numpy as np

    with tempfile.TemporaryDirectory(dir=folder) as place:
        unpacked = _package("dataset-fashion-mnist", Path(place))
        files = {path.name: path for path in unpacked.rglob("train-*ubyte*")}
        pixels, labels = (_bytes(files, what) for what in ("train-images", "train-labels"))
    pictures = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)[:most]
    for number, picture in enumerate(pictures):
        yield _picture(folder, number, 255.0 - picture, f"kind {labels[8 + number]}")


def many_clothes(folder: Path) -> Iterable[Row]:
    """As many as are needed for thousands to learn from."""
    return clothes(folder, most=4500)


def clipart(folder: Path) -> Iterable[Row]:
    """Drawings of openclipart, in eight categories."""
    made = bench_data.pictures(folder)
    for file in sorted(made.rglob("*.jpg")):
        yield str(file.relative_to(folder)), file.parent.name


def fonts(folder: Path) -> Iterable[Row]:
    """Which font a made-up word is written in."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rng, number = random.Random(0), 0
    for package, pattern in FONTS.items():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            file = next(iter(sorted(_package(package, Path(place)).rglob(pattern))))
            for _ in range(250):
                word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 6)))
                picture = Image.new("L", (96, 96), 255)
                font = ImageFont.truetype(str(file), rng.randint(18, 30))
                at = rng.randint(2, 20), rng.randint(10, 50)
                ImageDraw.Draw(picture).text(at, word, font=font, fill=rng.randint(0, 90))
                yield _picture(
                    folder, number, np.asarray(picture, np.float64), package.removeprefix("fonts-")
                )
                number += 1


def kinds(folder: Path) -> Iterable[Row]:
    """What kind of thing a gloss of WordNet explains."""
    rows = [(gloss, KINDS[kind]) for kind, gloss in _glosses(folder, ("noun",)) if kind in KINDS]
    random.Random(0).shuffle(rows)
    return rows[:4000]


def parts(folder: Path) -> Iterable[Row]:
    """Whether a gloss of WordNet explains a noun, a verb, an adjective or an adverb; as many of each."""
    found: dict[str, list[Row]] = {part: [] for part in PARTS}
    for part in PARTS:
        rows = [(gloss, part) for _, gloss in _glosses(folder, (part,))]
        random.Random(0).shuffle(rows)
        found[part] = rows[:600]
    return [row for some in found.values() for row in some]


def voices(folder: Path) -> Iterable[Row]:
    """Which of espeak's voices speaks, in any of six languages."""
    return [(path, f"voice {voice}") for path, voice, _ in _spoken(folder)]


def languages(folder: Path) -> Iterable[Row]:
    """Which of six languages is spoken, by any of the voices."""
    return [(path, language) for path, _, language in _spoken(folder)]


def spectrograms(folder: Path) -> Iterable[Row]:
    """Which of espeak's voices speaks, as pictures of the sounds: pitch upwards, time to the right."""
    import numpy as np
    from scipy.signal import resample_poly, spectrogram
    from soundfile import read

    for number, (path, voice, _) in enumerate(_spoken(folder, each=40)):
        samples, rate = read(folder / path)
        heard = np.zeros(RATE * SECONDS)
        samples = resample_poly(samples, RATE, rate)[: len(heard)]
        heard[: len(samples)] = samples
        _, _, power = spectrogram(heard, RATE, nperseg=256, noverlap=192)
        loud = 10 * np.log10(power[::-1] + 1e-12)
        shades = 255 * (1 + (loud - loud.max()).clip(-RANGE, 0) / RANGE)
        yield _picture(folder, number, shades, f"voice {voice}", 96)


def _spoken(folder: Path, *, each: int = 20) -> Iterable[tuple[str, str, str]]:
    program = shutil.which("espeak-ng")
    if program is None:
        raise SystemExit("This task needs the program espeak-ng: apt-get install espeak-ng")
    rng, number = random.Random(0), 0
    words = [gloss for _, gloss in _glosses(folder, ("noun",))]
    for voice in VOICES:
        for language in LANGUAGES:
            for _ in range(each):
                name = f"{number:04}.wav"
                text = " ".join(rng.choice(words).split()[:5])
                speed, pitch = rng.randint(130, 210), rng.randint(30, 70)
                told = ["-v", f"{language}+{voice}", "-s", str(speed), "-p", str(pitch), "-w", name, text]
                subprocess.run([program, *told], cwd=folder, check=True, capture_output=True)
                yield name, voice, language
                number += 1


def _glosses(folder: Path, of: Sequence[str]) -> list[tuple[str, str]]:
    """Number of the lexicographers' file and gloss (without examples) of WordNet's entries."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        unpacked = _package("wordnet-base", Path(place))
        found = []
        for part in of:
            text = next(unpacked.rglob(f"data.{part}")).read_text(encoding="utf-8")
            for line in text.splitlines():
                if not line.startswith(" "):
                    gloss = line.partition(" | ")[2].partition(";")[0].strip()
                    found.append((line.split(" ")[1], gloss))
    return [(kind, gloss) for kind, gloss in found if len(gloss) > 12]


def _package(name: str, folder: Path) -> Path:
    """One of Debian's packages, unpacked below ``folder``."""
    subprocess.run(["apt-get", "download", name], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / "unpacked"], check=True)
    return folder / "unpacked"


def _bytes(files: dict[str, Path], what: str) -> bytes:
    path = next(path for name, path in files.items() if name.startswith(what))
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _picture(folder: Path, number: int, pixels: Any, label: str, side: int | None = None) -> Row:
    """Write grey pixels, 0 to 255, as a picture; a square of ``side`` pixels if that is given."""
    import numpy as np
    from PIL import Image

    name = f"{number:05}.png"
    picture = Image.fromarray(np.asarray(pixels).clip(0, 255).astype(np.uint8))
    (picture.resize((side, side)) if side else picture).save(folder / name)
    return name, label


TASKS = {
    task.name: task
    for task in (
        Task("clipart", "picture", True, 400, 400, 96, 12, clipart, "drawings in eight categories"),
        Task("clothes", "picture", False, 300, 800, 64, 12, clothes, "Fashion-MNIST, ten kinds"),
        Task(
            "clothes3000",
            "picture",
            False,
            3000,
            1000,
            64,
            3,
            many_clothes,
            "Fashion-MNIST, ten times as many",
        ),
        Task("digits", "picture", False, 300, 800, 64, 12, digits, "handwritten digits"),
        Task("fonts", "picture", False, 300, 600, 64, 12, fonts, "the font of a made-up word, six fonts"),
        Task("kinds", "text", True, 300, 800, None, 6, kinds, "the kind of thing that a gloss explains"),
        Task("parts", "text", False, 300, 800, None, 6, parts, "the part of speech that a gloss explains"),
        Task("voices", "sound", True, 120, 400, None, 6, voices, "which of six voices speaks"),
        Task(
            "spectrograms",
            "picture",
            False,
            300,
            800,
            64,
            12,
            spectrograms,
            "which of six voices speaks, from spectrograms",
        ),
        Task("languages", "sound", False, 240, 400, None, 6, languages, "which of six languages it is"),
    )
}
"""By name, quick ones among them."""
