from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_shards import of_pictures, write_tar
from PIL import Image, ImageFilter

import topgraft as tg
from topgraft.backbones import ArrayPreprocess, PicturePreprocess
from topgraft.data.example import ChangedError
from topgraft.data.types import Data
from topgraft.features.reading import Batch, at_least, batch_of, decoded
from topgraft.features.sources import LiveSource

PREPROCESS = PicturePreprocess(size=(64, 64), resize=(72, 72))


def photo(side: int, seed: int) -> bytes:
    """A JPEG with detail of every size, as photographs have it."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (side // n, side * 3 // 2 // n, 3), dtype=np.uint8)).resize(
            (side * 3 // 2, side), Image.Resampling.BICUBIC
        )
        for n in (4, 16, 64)
    ]
    mixed = Image.blend(Image.blend(layers[0], layers[1], 0.7), layers[2], 0.5)
    file = io.BytesIO()
    mixed.filter(ImageFilter.GaussianBlur(1)).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        place = folder / "ab"[seed % 2]
        place.mkdir(exist_ok=True)
        (place / f"{seed}.jpg").write_bytes(photo(800 if seed < 2 else 200, seed))
    return tg.read(folder)


def test_large_jpegs_are_decoded_at_a_part_of_their_size_and_small_ones_whole(photos: Data) -> None:
    assert at_least(PREPROCESS) == 144
    sizes = sorted(picture.size for picture in decoded(PREPROCESS, photos, range(4)))
    assert sizes == [(300, 200), (300, 200), (300, 200), (300, 200)]  # a quarter of 1200 x 800, and 300 x 200
    whole = replace(PREPROCESS, reducing_gap=0.0)
    assert at_least(whole) is None
    assert max(picture.size for picture in decoded(whole, photos, range(4))) == (1200, 800)


def test_what_the_network_gets_is_nearly_the_same(photos: Data) -> None:
    quick = batch_of(PREPROCESS, photos, range(4))["x"]
    whole = batch_of(replace(PREPROCESS, reducing_gap=0.0), photos, range(4))["x"]
    one = 1 / 255 / 0.225  # a step of brightness, normalised
    assert float((quick - whole).abs().mean()) < 1.5 * one
    assert float(whole.std()) > 20 * one


def test_numbers_of_one_way_of_decoding_are_not_taken_for_those_of_another() -> None:
    assert PREPROCESS.fingerprint != replace(PREPROCESS, reducing_gap=0.0).fingerprint
    assert PREPROCESS.fingerprint != replace(PREPROCESS, reducing_gap=4.0).fingerprint


def test_training_reads_what_the_pass_reads(photos: Data) -> None:
    source = LiveSource(photos, PREPROCESS, engine=None, augment=None)
    inputs = source.batch([2, 0], training=True)
    assert isinstance(inputs, dict)
    assert torch.equal(inputs["x"], batch_of(PREPROCESS, photos, [2, 0])["x"])


def test_it_is_kept_with_a_model_and_told(tmp_path: Path) -> None:
    from topgraft.backbones.preprocess import open_preprocess

    PREPROCESS.save(tmp_path)
    assert open_preprocess(tmp_path) == PREPROCESS
    assert any("both sides keep 144 pixels" in line for line in PREPROCESS.lines())
    with pytest.raises(ValueError, match="reducing_gap"):
        replace(PREPROCESS, reducing_gap=0.5)


def test_other_kinds_are_decoded_whole() -> None:
    assert at_least(ArrayPreprocess()) is None


def test_a_batch_by_itself_is_decoded_to_the_same_wherever_one_stands(
    photos: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(photos.inputs[0]).parents[1])
    near = replace(photos, inputs=[Path(path).relative_to(Path.cwd()) for path in photos.inputs])
    sent = pickle.loads(pickle.dumps(Batch.of(near, [3, 1])))
    monkeypatch.chdir(tmp_path)
    assert sent.lacks() == ()
    there = batch_of(PREPROCESS, sent.data, range(2))["x"]
    assert torch.equal(there, batch_of(PREPROCESS, photos, [3, 1])["x"])
    assert len(pickle.dumps(sent)) < 4_000  # nothing but paths and digests
    assert str(sent) == f"{photos.names[3]}, {photos.names[1]}"


def test_a_batch_with_its_files_content_needs_no_files(photos: Data, tmp_path: Path) -> None:
    copies = [tmp_path / Path(path).name for path in photos.inputs]
    for path, copy in zip(photos.inputs, copies, strict=True):
        copy.write_bytes(Path(path).read_bytes())
    batch = Batch.of(replace(photos, inputs=copies), [2, 0])
    filled = batch.filled()
    for copy in copies:
        copy.unlink()
    assert batch.lacks() == (str(copies[2]), str(copies[0]))
    assert filled.lacks() == ()
    expected = batch_of(PREPROCESS, photos, [2, 0])["x"]
    assert torch.equal(batch_of(PREPROCESS, filled.data, range(2))["x"], expected)


def test_content_that_changed_meanwhile_is_not_sent(photos: Data, tmp_path: Path) -> None:
    other = tmp_path / "other.jpg"
    other.write_bytes(Path(photos.inputs[1]).read_bytes())
    batch = Batch.of(replace(photos, inputs=[other, *photos.inputs[1:]]), [0])
    with pytest.raises(ChangedError, match=r"other\.jpg: its file changed"):
        batch.filled()
    with pytest.raises(ChangedError, match=r"other\.jpg: its file changed"):
        batch_of(PREPROCESS, batch.data, [0])


def test_texts_and_arrays_are_sent_as_they_are() -> None:
    texts = tg.read((["/no/file.png", "two"], ["a", "b"]))
    batch = Batch.of(texts, [0])
    assert batch.lacks() == ()
    assert batch.filled().data.decode(0) == "/no/file.png"
    rows = tg.read((np.eye(4, dtype=np.float32), ["a", "b", "a", "b"]))
    assert np.array_equal(Batch.of(rows, [2]).filled().data.decode(0), np.eye(4, dtype=np.float32)[2])


def test_a_batch_of_a_shard_is_decoded_here_or_sent_with_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "a.tar", of_pictures(0, 3))
    data = tg.read("a.tar")
    batch = Batch.of(data, [4, 1])
    expected = [data.decode(i).tobytes() for i in (4, 1)]
    monkeypatch.chdir("/")
    assert batch.lacks() == ()
    assert [batch.data.decode(i).tobytes() for i in range(2)] == expected
    sent = batch.filled()
    (tmp_path / "a.tar").unlink()
    assert batch.lacks() == (str(tmp_path / "a.tar"),)
    assert [sent.data.decode(i).tobytes() for i in range(2)] == expected
