"""Opening sounds that libsndfile reads, as one channel of 32-bit floats; reading is bounded."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.data.example import ExampleError
from topgraft.data.lazily import Member
from topgraft.data.pictures import PictureError, read_bytes
from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SECONDS = 600.0
"""Seconds of the longest sound that is decoded (10 minutes)."""

MAX_BYTES = 1 << 28
"""Bytes of the largest sound file that is read into memory (256 MiB)."""

RATES = 1_000, 192_000
"""Samples a second that a sound has at least and at most."""

MAX_CHANNELS = 64

ENDINGS = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})
"""Endings of the names of sound files, in lower case with the dot."""

_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF"}
_BLOCK = 1 << 16  # samples of each channel that are decoded at a time
_UNKNOWN = 0x7FFF_F000  # lengths from here on are what programs write that do not know it yet
_SLACK = 2 * 1152  # samples: MP3 holds whole frames, and its header may count those that only fill up


class SoundError(ExampleError):
    """A sound that can't be used; ``reason`` says why in few words, without the name."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded sound.

    Parameters
    ----------
    samples
        (n,) float32, one channel; full scale is -1 to 1.
    rate
        Samples a second.

    Examples
    --------
    >>> Sound(np.zeros(8_000, dtype=np.float32), 16_000).seconds
    0.5
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def is_sound_name(name: str) -> bool:
    """Whether the ending of a file name is that of a sound.

    Examples
    --------
    >>> is_sound_name("a.WAV"), is_sound_name("a.txt")
    (True, False)
    """
    return Path(name).suffix.lower() in ENDINGS


def reader() -> Any:
    """The library that reads sounds.

    Raises
    ------
    TopgraftError
        If it is not installed.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile itself is missing
        raise TopgraftError(
            f"Sounds are read by the package soundfile, which is not here ({error}).\n"
            "Install it: pip install 'topgraft[sound]'"
        ) from error
    return soundfile


def open_sound(source: str | os.PathLike[str] | Member | bytes, *, max_seconds: float = MAX_SECONDS) -> Sound:
    """Decode a sound; several channels become their mean.

    What a file is goes by its content, not by its name. Its header is read first, so that a sound which is
    too long is refused before any of it is decoded.

    Parameters
    ----------
    source
        A path, a member of a shard, or the content of a file: WAV, FLAC, OGG (Vorbis, Opus), MP3 or AIFF.
    max_seconds
        Seconds of the longest sound that is decoded.

    Returns
    -------
    Sound
        With the rate that the file has.

    Raises
    ------
    SoundError
        If it is no sound, truncated, damaged, without samples, too long or too large; ``reason`` says which.
    TopgraftError
        If the package soundfile is not installed.

    Examples
    --------
    >>> import soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, np.full((800, 2), [0.5, 0.25]), 8_000, format="WAV")
    >>> sound = open_sound(file.getvalue())
    >>> sound.rate, sound.samples.shape, float(sound.samples[0])
    (8000, (800,), 0.375)
    >>> open_sound(file.getvalue()[:1000])
    Traceback (most recent call last):
        ...
    topgraft.data.sounds.SoundError: truncated after 1,000 bytes
    """
    name = "" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else read_bytes(source, limit=MAX_BYTES)
    except PictureError as error:
        raise SoundError(name, error.reason) from None
    if not content:
        raise SoundError(name, "an empty file (0 bytes)")
    library = reader()
    try:
        with library.SoundFile(_Content(content)) as file:
            _refuse(name, file, max_seconds)
            if _is_cut_short(content):
                raise SoundError(name, _truncated(content))
            samples = _decoded(name, file, max_seconds)
            if file.format == "MP3" and len(samples) < file.frames - _SLACK:
                raise SoundError(name, _truncated(content))
            return checked(Sound(samples, int(file.samplerate)), name)
    except library.LibsndfileError as error:
        raise SoundError(name, _why(content, str(error.error_string))) from None
    except MemoryError:
        raise SoundError(name, "too large for the memory that is left") from None


def sound_of(value: Any, *, max_seconds: float = MAX_SECONDS) -> Sound:
    """An example as a sound: a path or the content of a file is opened, a decoded one is checked.

    Raises
    ------
    SoundError
        If it can't be used.
    """
    if isinstance(value, ExampleError):
        raise value
    if isinstance(value, (str, bytes, os.PathLike, Member)):
        return open_sound(value, max_seconds=max_seconds)
    if not isinstance(value, Sound):
        raise SoundError("", f"a {type(value).__name__}, not a sound")
    sound = Sound(np.asarray(value.samples, dtype=np.float32), value.rate)
    if sound.samples.ndim != 1:
        raise SoundError("", f"samples of shape {sound.samples.shape}, not one channel")
    _refuse_rate("", sound.rate)
    if sound.seconds > max_seconds:
        raise SoundError("", _too_long(sound.seconds, max_seconds))
    return checked(sound, "")


def told_seconds(content: bytes) -> float:
    """Seconds of a sound by its header, at most :data:`MAX_SECONDS`; 0 where there is none to be read.

    Examples
    --------
    >>> import soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, np.zeros(800), 16_000, format="FLAC")
    >>> told_seconds(file.getvalue()), told_seconds(b"no sound")
    (0.05, 0.0)
    """
    library = reader()
    try:
        with library.SoundFile(_Content(content)) as file:
            return min(MAX_SECONDS, float(file.frames / file.samplerate))
    except (library.LibsndfileError, ArithmeticError, MemoryError):
        return 0.0


def checked(sound: Sound, name: str) -> Sound:
    """The sound itself.

    Raises
    ------
    SoundError
        If it has no samples, or some that are not finite.
    """
    if len(sound.samples) == 0:
        raise SoundError(name, "0 samples")
    if not np.isfinite(sound.samples).all():
        raise SoundError(name, "holds samples that are not finite")
    return sound


class _Content(io.BytesIO):
    """The content of a file; a damaged one may send its reader to a place before the beginning."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self.tell() if whence == io.SEEK_SET and offset < 0 else super().seek(offset, whence)


def _refuse(name: str, file: Any, max_seconds: float) -> None:
    """Refuse by what the header says."""
    if file.format not in _FORMATS:
        raise SoundError(name, f"a sound in the format {file.format}; expected WAV, FLAC, OGG, MP3 or AIFF")
    _refuse_rate(name, file.samplerate)
    if file.channels > MAX_CHANNELS:
        raise SoundError(name, f"{file.channels:,} channels, over the limit of {MAX_CHANNELS}")
    seconds = file.frames / file.samplerate
    if max_seconds < seconds and file.frames < 1 << 62:  # beyond that it says that it does not know
        raise SoundError(name, _too_long(seconds, max_seconds))


def _refuse_rate(name: str, rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise SoundError(name, f"{rate:,} samples a second, not {RATES[0]:,} to {RATES[1]:,}")


def _too_long(seconds: float, max_seconds: float) -> str:
    return f"{seconds:,.1f} s, over the limit of {max_seconds:,g} s"


def _decoded(name: str, file: Any, max_seconds: float) -> NDArray[np.float32]:
    """(n,) float32, the mean of all channels; never more than a block of them at once."""
    blocks: list[NDArray[np.float32]] = []
    count, most = 0, max_seconds * file.samplerate
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        count += len(block)
        if count > most:
            raise SoundError(name, f"over the limit of {max_seconds:,g} s")
        blocks.append(block.mean(axis=1, dtype=np.float32))
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.float32)


def _truncated(content: bytes) -> str:
    return f"truncated after {len(content):,} bytes"


def _why(content: bytes, said: str) -> str:
    """The reason in few words."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the sound itself"
    if _is_cut_short(content):
        return _truncated(content)
    if "not recognised" in said or "unknown format" in said.lower():
        return "not a sound in a format that libsndfile reads"
    if content.startswith(b"fLaC"):
        return f"truncated or damaged (FLAC of {len(content):,} bytes)"
    said = " ".join(said.split()).rstrip(".")[:80]
    return "damaged" if "regular file" in said else f"damaged ({said})"


def _is_cut_short(content: bytes) -> bool:
    """Whether the container says that more belongs to it; libsndfile would give what is there."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _wav_is_cut_short(content)
    if content[:4] == b"FORM" and len(content) >= 8:
        return len(content) < int(struct.unpack_from(">I", content, 4)[0]) + 8
    if content[:4] == b"OggS":
        last = content.rfind(b"OggS")
        if len(content) < last + 27:
            return True
        end = last + 27 + content[last + 26]
        return len(content) < end + sum(content[last + 27 : end])
    return False


def _wav_is_cut_short(content: bytes) -> bool:
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        if name == b"data":
            return bool(0 < size < _UNKNOWN and at + 8 + size > len(content))
        at += 8 + size + size % 2
    return True
