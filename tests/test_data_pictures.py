from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged_data import pictures_of
from PIL import Image

from topgraft.data import PictureError, as_rgb, open_picture
from topgraft.data.pictures import is_picture_name, thumbnail


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def photo(width: int = 64, height: int = 48) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 3, y * 4, x + y], axis=2).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, with next to nothing in it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F"])
def test_a_white_picture_of_any_mode_is_white_in_rgb(mode: str) -> None:
    if mode in ("I;16", "I", "F"):
        values = {"I;16": np.uint16(65535), "I": np.int32(65535), "F": np.float32(1.0)}[mode]
        picture = Image.fromarray(np.full((4, 4), values))
    elif mode == "LAB":
        picture = Image.new("LAB", (4, 4), (255, 128, 128))
    elif mode == "HSV":
        picture = Image.new("RGB", (4, 4), "white").convert("HSV")
    else:
        picture = Image.new("RGB", (4, 4), "white").convert(mode)
    assert picture.mode == mode
    assert as_rgb(picture).mode == "RGB"
    assert min(as_rgb(picture).getpixel((1, 1))) >= 254


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG", "PPM", "TGA", "ICO"])
def test_formats_of_pillow_are_opened(kind: str) -> None:
    opened = open_picture(encoded(photo(), kind))
    assert opened.mode == "RGB"
    near = np.abs(np.asarray(opened.resize((64, 48)), dtype=float) - np.asarray(photo(), dtype=float))
    assert near.mean() < 20


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    transparent = Image.new("P" if mode == "PA" else mode.removesuffix("A"), (4, 4))
    transparent.putalpha(0)
    assert transparent.mode == mode
    assert as_rgb(transparent).getpixel((2, 2)) == (255, 255, 255)
    half = as_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0))
    assert half == (127, 127, 127)


def test_a_transparent_colour_of_a_palette_is_laid_on_white() -> None:
    picture = Image.new("P", (4, 4), 3)
    picture.putpalette([0, 0, 0] * 256)
    content = encoded(picture, "PNG", transparency=3)
    assert open_picture(content).getpixel((1, 1)) == (255, 255, 255)
    assert open_picture(encoded(picture, "PNG")).getpixel((1, 1)) == (0, 0, 0)


def test_sixteen_bits_keep_their_order_and_range() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    opened = open_picture(encoded(Image.fromarray(ramp), "PNG"))
    assert np.array_equal(np.asarray(opened)[:, :, 0].ravel(), np.arange(256))
    assert np.array_equal(np.asarray(as_rgb(ramp.astype(">u2"))), np.asarray(opened))


def test_exif_rotation_is_done() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture = photo(64, 48)
    opened = open_picture(encoded(picture, "JPEG", exif=exif, quality=95))
    assert opened.size == (48, 64)
    upright = np.asarray(picture.rotate(-90, expand=True), dtype=float)
    assert np.abs(np.asarray(opened, dtype=float) - upright).mean() < 5


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own, which a user may see
def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    content = encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert open_picture(content).size == (64, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    with pytest.raises(PictureError) as caught:
        open_picture(content[: int(len(content) * share)])
    # The directory of a TIFF lies at its end, and a tenth of a GIF is its palette: nothing says what is gone.
    if kind != "TIFF" and (kind, share) != ("GIF", 0.1):
        assert caught.value.reason == f"truncated after {int(len(content) * share):,} bytes"


def test_the_header_is_checked_before_pixels_are_decoded() -> None:
    with pytest.raises(PictureError, match=r"^9,000 x 8,000 pixels, over the limit of 1,000,000$"):
        open_picture(png_header(9_000, 8_000)[:60], max_pixels=1_000_000)
    with pytest.raises(PictureError, match=r"^3,600,000,000 pixels, over the limit of 89,478,485$"):
        open_picture(png_header(60_000, 60_000))
    with pytest.raises(PictureError, match=r"over the limit of 3,071"):
        open_picture(encoded(photo(64, 48), "PNG"), max_pixels=3071)
    assert open_picture(encoded(photo(64, 48), "PNG"), max_pixels=3072).size == (64, 48)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"hello, I am no picture", "not a picture in a format that Pillow reads"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a Git LFS pointer"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert reason in caught.value.reason
    assert str(path) in str(caught.value)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    with pytest.raises(PictureError, match="a device, pipe or socket"):
        open_picture(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="a folder, not a file"):
        open_picture(tmp_path)
    with pytest.raises(PictureError, match="no such file"):
        open_picture(tmp_path / "gone.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(PictureError, match="a link to a file that is not there"):
        open_picture(tmp_path / "link.png")


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 4, 2), (4,), (2, 2, 2, 3)])
def test_an_array_of_a_shape_that_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match="an array of shape"):
        as_rgb(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(PictureError, match="not finite"):
        as_rgb(np.full((2, 2), np.nan))


def test_draft_decoding_gives_nearly_the_thumbnail_of_the_whole() -> None:
    with Image.open(pictures_of("food", 0, 1)[0]) as small:
        large = small.convert("RGB").resize((1280, 1280), Image.Resampling.BICUBIC)
    content = encoded(large, "JPEG", quality=90)
    drafted = open_picture(content, at_least=128)
    assert drafted.width < 1280
    whole = thumbnail(open_picture(content)).astype(int)
    assert np.abs(thumbnail(drafted).astype(int) - whole).max() <= 16


def test_names_of_pictures_are_known_by_their_ending() -> None:
    assert all(
        is_picture_name(n) for n in ("a.jpg", "a.JPEG", "b.c.png", "x.webp", "x.tif", "x.bmp", "x.gif")
    )
    assert not any(is_picture_name(n) for n in ("a.txt", "a", ".png", "a.eps", "README.md", "a.pdf", "a.mpg"))


@pytest.mark.filterwarnings("ignore")  # Pillow's own, on what is damaged
@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "TGA", "ICO"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_a_picture_or_a_reason(kind: str, changes: list[tuple[float, bytes]]) -> None:
    content = bytearray(encoded(photo(), kind))
    for where, what in changes:
        at = int(where * (len(content) - 1))
        content[at : at + len(what)] = what
    try:
        picture = open_picture(bytes(content), max_pixels=1_000_000)
    except PictureError as error:
        said, pixels = error.reason, 1
    else:
        said, pixels = picture.mode, picture.width * picture.height
    assert 0 < len(said) < 150
    assert 0 < pixels <= 1_000_000
