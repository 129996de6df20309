"""Sounds that are made, not recorded: three instruments that differ in timbre, at any pitch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

INSTRUMENTS = ("bell", "organ", "pluck")
FORMATS = (("wav", 16_000), ("flac", 22_050), ("ogg", 44_100), ("mp3", 32_000))


def tone(
    instrument: str, number: int, *, rate: int = 16_000, seconds: float | None = None
) -> NDArray[np.float32]:
    """(n,) float32: one note of an instrument, 0.4 to 2.4 s, its pitch and noise by its number."""
    stream = np.random.default_rng([INSTRUMENTS.index(instrument), number])
    pitch = 110 * 2 ** stream.uniform(0, 2)  # as pitch_of says
    drawn = stream.uniform(0.4, 2.4)
    t = np.arange(int(rate * (drawn if seconds is None else seconds))) / rate
    if instrument == "bell":  # partials that are no multiples, dying away slowly
        sound = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2.76, 5.4, 8.9)) * np.exp(-1.5 * t)
    elif instrument == "organ":  # the odd multiples, steady
        sound = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 3, 5, 7, 9))
    else:  # all multiples, plucked anew four times a second
        sound = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 16)) * np.exp(-12 * (t % 0.25))
    noise = stream.normal(0, 0.02, len(t))
    return (0.2 * sound + noise).astype(np.float32)


def pitch_of(instrument: str, number: int) -> float:
    """The frequency of a note's first partial in hertz, 110 to 440."""
    stream = np.random.default_rng([INSTRUMENTS.index(instrument), number])
    return float(110 * 2 ** stream.uniform(0, 2))


def write_sounds(root: Path, each: int, *, first: int = 0) -> Path:
    """``each`` notes of every instrument, a folder each, in all formats in turn; the WAV files are stereo."""
    for instrument in INSTRUMENTS:
        folder = root / instrument
        folder.mkdir(parents=True)
        for number in range(first, first + each):
            ending, rate = FORMATS[number % len(FORMATS)]
            samples = tone(instrument, number, rate=rate)
            both = np.stack([samples, 0.5 * samples], axis=1) if ending == "wav" else samples
            soundfile.write(folder / f"{number:02}.{ending}", np.clip(both, -1, 1), rate)
    return root


def harmonics(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    """(n,) float32: five rising tones that swell four times a second, the same in every place."""
    t = np.arange(int(seconds * rate)) / rate
    pitches = (180.0, 360.0, 540.0, 1250.0, 2600.0)
    sound = sum(np.sin(2 * np.pi * f * t * (1 + 0.1 * t)) / k for k, f in enumerate(pitches, start=1))
    return (0.05 * sound * (1 + 0.5 * np.sin(2 * np.pi * 4 * t))).astype(np.float32)
