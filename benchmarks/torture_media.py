"""Hostile pictures and sounds, as data: each claims what it does not hold, or would never end."""

from __future__ import annotations

import io
import pickle
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torture_input import Bad, Place

PICTURES, SOUNDS = "Pictures that can't be used: each is left out by itself", "Sounds that can't be used"


def zipped(files: dict[str, bytes], *, compressed: bool = False) -> bytes:
    """A zip archive of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


# pictures


def _png(width: int, height: int, data: bytes = b"", *, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    middle = chunk(b"IDAT", data or zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + extra + middle + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    body = b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000, 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return _png(4, 4, zlib.compress(b"\0" * 20), extra=chunk)


def _real_bomb() -> bytes:
    side = 20_000
    stream, row = zlib.compressobj(9), b"\0" * (side + 1)
    parts = [stream.compress(row) for _ in range(side)]
    return _png(side, side, b"".join(parts) + stream.flush())


def _encoded(form: str, side: int = 64) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, form)
    return file.getvalue()


def _bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)
    )


def _tiff_circle() -> bytes:
    tag = struct.pack("<HHII", 256, 4, 1, 8)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + tag + struct.pack("<I", 8)


SPOILT: dict[str, tuple[Callable[[], bytes], str]] = {
    "an empty file": (lambda: b"", "empty file (0 bytes)"),
    "a PNG that is cut short": (lambda: _encoded("PNG")[:2000], "truncated after 2,000 bytes"),
    "a JPEG that is cut short": (lambda: _encoded("JPEG")[:900], "truncated"),
    "a WebP that is cut short": (lambda: _encoded("WEBP")[:900], "truncated after 900 bytes"),
    "a text": (lambda: b"no picture at all", "not a picture"),
    "a web page": (lambda: b"<!doctype html><html><body>404</body></html>", "not a picture"),
    "a pointer of Git LFS": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "Git LFS",
    ),
    "an SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>', "not a picture"),
    "an EPS, which would start another program": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch ran) (w) file\n%%EOF\n",
        "not a picture",
    ),
    "a PNG that claims 3,600,000,000 pixels": (lambda: _png(60_000, 60_000), "3,600,000,000 pixels"),
    "a PNG of 400 million pixels in 400 kB": (_real_bomb, "over the limit"),
    "a PNG whose comment unpacks to 200 MB": (_text_bomb, "damaged"),
    "a PNG of no size": (lambda: _png(0, 0), "not a picture"),
    "a PNG whose pixels are garbage": (lambda: _png(64, 64, b"garbage" * 20), "damaged"),
    "a BMP that claims 2,000,000,000 pixels": (lambda: _bmp(50_000, 40_000), "2,000,000,000 pixels"),
    "a BMP of a size below zero": (lambda: _bmp(-4, 9), "over the limit"),
    "a TIFF whose list of tags leads back to itself": (_tiff_circle, "not a picture"),
    "a GIF without a frame": (lambda: b"GIF89a\x01\0\x01\0\0\0\0;", "not a picture"),
    "a zip archive": (lambda: zipped({"a.txt": b"a"}), "not a picture"),
    "a pickle": (lambda: pickle.dumps({"a": 1}), "not a picture"),
}


def _picture(name: str) -> Bad:
    make, word = SPOILT[name]

    def command(p: Place) -> list[str | Path]:
        return ["predict", p.model, p.write("bad.png", make()), p.pictures / "down" / "000.png"]

    return Bad(PICTURES, name, command, ("bad.png", word), 0)


# sounds


def _wav(seconds: float = 0.5, *, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        tone = np.sin(np.arange(int(seconds * rate)) / 9) * 9000
        out.writeframes(np.repeat(tone.astype("<i2"), channels).tobytes())
    return file.getvalue()


def _patched(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def _silence(seconds: int) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(8_000 * seconds, dtype=np.float32), 8_000, format="FLAC")
    return file.getvalue()


def _nan() -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.full(8_000, np.nan, dtype=np.float32), 8_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


NOISES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an empty file": (lambda: b"", "empty file (0 bytes)"),
    "a WAV that is cut short": (lambda: _wav()[:3000], "truncated"),
    "a text": (lambda: b"no sound at all", "not a sound"),
    "a WAV without samples": (lambda: _wav(0), "0 samples"),
    "a WAV of 65,535 channels": (lambda: _patched(_wav(), 22, b"\xff\xff"), "channels"),
    "a WAV of no rate": (lambda: _patched(_wav(), 24, b"\0\0\0\0"), "damaged"),
    "a WAV that claims 1 GB": (lambda: _patched(_wav(), 40, b"\0\0\0\x40"), "truncated"),
    "a FLAC of 20 minutes of silence in 30 kB": (lambda: _silence(1200), "over the limit of 600 s"),
    "samples that are not numbers": (_nan, "not finite"),
    "a picture": (lambda: _encoded("PNG"), "not a sound"),
}


def _noise(name: str) -> Bad:
    make, word = NOISES[name]

    def command(p: Place) -> list[str | Path]:
        for kind in ("high", "low"):
            for number in range(2):
                p.write(
                    f"sounds/{kind}/{number}.wav",
                    _wav(0.3 + 0.1 * number, rate=8_000 + 2_000 * (kind == "low")),
                )
        p.write("sounds/low/bad.wav", make())
        return ["probe", p.own / "sounds", "--json", "--dry-run"]

    return Bad(SOUNDS, name, command, ("bad.wav", word, "1 of 5", "--max-unreadable"))


MEDIA: list[Bad] = [*map(_picture, SPOILT), *map(_noise, NOISES)]
