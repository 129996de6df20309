"""Opening pictures of every mode and format that Pillow knows, as RGB; reading is bounded."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageFilter, ImageOps, UnidentifiedImageError

from topgraft.data.example import ChangedError, ExampleError
from topgraft.data.lazily import Member

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 89_478_485
"""Pixels of the largest picture that is decoded: Pillow's own line for a decompression bomb."""

MAX_BYTES = 1 << 30
"""Bytes of the largest picture file that is read into memory (1 GiB)."""

FIRST = 1 << 16
"""Bytes that are asked for at least, whatever size a file is said to have."""

SIDE = 32
"""Width and height of the thumbnails that near duplicates are found by."""

# EPS would start Ghostscript; the others are containers, films or vector formats for which Pillow
# has only a stub that needs a handler from elsewhere.
_NOT_PICTURES = {"EPS", "MPEG", "WMF", "HDF5", "GRIB", "BUFR", "FITS"}


class PictureError(ExampleError):
    """A picture that can't be used; ``reason`` says why in few words, without the name."""


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """Names of the formats that are opened, such as ``"JPEG"``."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_PICTURES))


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Endings of picture files, in lower case with the dot.

    Examples
    --------
    >>> ".jpg" in suffixes(), ".webp" in suffixes(), ".txt" in suffixes()
    (True, True, False)
    """
    known = set(formats())
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def is_picture_name(name: str) -> bool:
    """Whether the ending of a file name is that of a picture."""
    return Path(name).suffix.lower() in suffixes()


def read_bytes(path: str | os.PathLike[str] | Member, *, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file, or of a member of a shard.

    Raises
    ------
    PictureError
        If there is no such file, it is no regular file (a pipe would block), it is over
        ``limit`` bytes, it is empty, or may not be read.
    """
    content = _content(path, limit)
    if not content:
        raise PictureError(str(path), "an empty file (0 bytes)")
    return content


def _content(given: str | os.PathLike[str] | Member, limit: int) -> bytes:
    if isinstance(given, Member):
        try:
            return given.read(limit)
        except ExampleError as error:
            raise PictureError(error.name, error.reason) from None
    path = Path(given)
    name = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise PictureError(name, f"{kind}, not a file")
        if status.st_size > limit:
            raise PictureError(name, f"{status.st_size:,} bytes, over the limit of {limit:,}")
        with path.open("rb") as file:
            return file.read(max(status.st_size, FIRST) + 1)  # room for the limit would be taken at once
    except FileNotFoundError:
        kind = "a link to a file that is not there" if path.is_symlink() else "no such file"
        raise PictureError(name, kind) from None
    except PermissionError:
        raise PictureError(name, "no permission to read it") from None
    except (OSError, ValueError) as error:
        raise PictureError(name, f"can't be read ({getattr(error, 'strerror', None) or error})") from None


def unchanged(path: str | os.PathLike[str] | Member, digest: str, *, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file that was read before, which must still be the same.

    Parameters
    ----------
    path, limit
        As for :func:`read_bytes`.
    digest
        SHA-256, as hexadecimal, of what it was.

    Raises
    ------
    ChangedError
        If it holds something else now, or nothing: whoever writes a file anew empties it first.
    ExampleError
        As for :func:`read_bytes` otherwise.
    """
    content = _content(path, limit)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ChangedError(str(path))
    return content


def open_picture(
    source: str | os.PathLike[str] | Member | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
) -> Image.Image:
    """Open a picture as RGB: palette, 16-bit and CMYK converted, alpha laid on white, EXIF rotation done.

    The header is read first, so that a picture with too many pixels is refused before any is
    decoded. Of a picture with several frames the first is taken.

    Parameters
    ----------
    source
        A path, a member of a shard, or the content of a file.
    max_pixels
        Width x height, in pixels, of the largest picture that is decoded.
    at_least
        If given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep
        this many pixels. This is much faster where only a thumbnail is wanted.

    Returns
    -------
    PIL.Image.Image
        Of mode ``RGB``, width x height, upright.

    Raises
    ------
    PictureError
        If it is no picture, truncated, damaged, of zero size or too large; ``reason`` says which.

    Examples
    --------
    >>> file = io.BytesIO()
    >>> Image.new("L", (3, 2), 255).save(file, "PNG")
    >>> picture = open_picture(file.getvalue())
    >>> picture.mode, picture.size, picture.getpixel((0, 0))
    ('RGB', (3, 2), (255, 255, 255))
    >>> open_picture(file.getvalue()[:50])
    Traceback (most recent call last):
        ...
    topgraft.data.pictures.PictureError: truncated after 50 bytes
    """
    name = "" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else read_bytes(source)
    if not content:
        raise PictureError(name, "an empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as picture:
            width, height = picture.size
            if width < 1 or height < 1:
                raise PictureError(name, f"{width} x {height} pixels")
            if width * height > max_pixels:
                raise PictureError(name, _too_large(width, height, max_pixels))
            if at_least is not None:
                picture.draft("RGB", (at_least, at_least))
            picture.load()
            return as_rgb(_upright(picture))
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        pixels = f"{int(found[1]):,} pixels" if found else "more pixels than Pillow decodes"
        raise PictureError(name, f"{pixels}, over the limit of {max_pixels:,}") from None
    except MemoryError:
        raise PictureError(name, "too large for the memory that is left") from None
    except Exception as error:  # noqa: BLE001 (Pillow's readers raise almost anything on damaged files)
        raise PictureError(name, _why(content, error)) from None


def as_rgb(picture: Image.Image | NDArray[Any]) -> Image.Image:
    """The picture as RGB with 8 bits a channel; alpha is laid on white.

    Parameters
    ----------
    picture
        A Pillow picture of any mode, or an array: (height, width), or (height, width, 1, 3 or 4);
        uint8, 0 to 255; uint16, 0 to 65,535; or floats, 0 to 1.

    Examples
    --------
    >>> as_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> as_rgb(np.full((1, 1), 65535, dtype=np.uint16)).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(picture, np.ndarray):
        return as_rgb(_of_array(picture))
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture.copy() if isinstance(picture, ImageFile.ImageFile) else picture
    if mode.startswith("I") or mode == "F":
        return _of_array(np.asarray(picture)).convert("RGB")
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        changed = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
        if changed is None:
            raise ValueError("colours in LAB that can't be converted")
        return changed
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        with_alpha = picture.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return picture.convert("RGB")


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """What near duplicates are found by: (``SIDE``, ``SIDE``, 3) uint8, means of areas that overlap.

    The overlap (a blur of 3 x 3) is what makes a picture and its copy at half the size agree: on
    clip art it takes the largest difference from 0.23 to 0.08 of the range, at the median.
    """
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.filter(ImageFilter.BoxBlur(1)), dtype=np.uint8)


def _of_array(values: NDArray[Any]) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.size == 0 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        raise PictureError("", f"an array of shape {values.shape}, not (height, width[, 1, 3 or 4])")
    return Image.fromarray(_eight_bits(values))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0..255 from whole numbers of 8, 16 or 32 bits, or floats (0..1, else 0..255, else their range)."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.bool_:
        return np.where(values, np.uint8(255), np.uint8(0))
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise PictureError("", "holds values that are not finite")
    low, high = float(wide.min()), float(wide.max())
    two_bytes = values.dtype.kind == "u" and values.dtype.itemsize == 2
    if two_bytes or (values.dtype.kind in "iu" and low >= 0 and 255 < high <= 65_535):
        scaled = wide / 257.0
    elif values.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled = wide * 255.0
    elif low >= 0 and high <= 255:
        scaled = wide
    else:
        scaled = (wide - low) * (255.0 / (high - low)) if high > low else np.zeros_like(wide)
    return np.rint(scaled).astype(np.uint8)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 (a damaged EXIF block may raise anything; the picture is sound)
        return picture


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return f"{width:,} x {height:,} pixels, over the limit of {max_pixels:,}"


def _why(content: bytes, error: Exception) -> str:
    """The reason in few words."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture itself"
    if _is_cut_short(content, error):
        return f"truncated after {len(content):,} bytes"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow reads"
    said = " ".join(str(error).split())[:80]
    return f"damaged ({said or type(error).__name__})"


def _is_cut_short(content: bytes, error: Exception) -> bool:
    if content[:4] == b"RIFF" and len(content) >= 8:  # WebP: the header holds the length
        return len(content) < int(struct.unpack("<I", content[4:8])[0]) + 8
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in content[-64:]
    if content.startswith(b"\xff\xd8") and isinstance(error, UnidentifiedImageError):
        return b"\xff\xd9" not in content[-64:]
    said = str(error).lower()
    return any(word in said for word in ("truncated", "unexpected end", "not enough", "eof"))


def content_of(value: object) -> str | os.PathLike[str] | Member | bytes | None:
    """What :func:`open_picture` takes, if ``value`` is that: a path, a member, or the bytes of a file."""
    return value if isinstance(value, (str, bytes, Path, Member)) else None
