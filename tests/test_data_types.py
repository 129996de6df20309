from __future__ import annotations

import mmap
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from topgraft.data import Data, read
from topgraft.data.example import ExampleError
from topgraft.errors import TopgraftError

TEXTS = ["a red fox", "the blue car", "A red fox", "some old bus", "a red fox", "two brown bears"]


@pytest.fixture
def data() -> Data:
    return read(TEXTS, targets=["animal", "vehicle", "animal", "vehicle", "vehicle", "animal"])


def test_a_subset_keeps_what_belongs_to_its_examples(data: Data) -> None:
    assert data.duplicates == ((0, 2, 4),)
    assert data.conflicts == ((0, 2, 4),)
    part = data.subset([5, 4, 0])
    assert list(part.inputs) == [TEXTS[5], TEXTS[4], TEXTS[0]]
    assert part.names == ("5", "4", "0")
    assert part.targets is not None
    assert part.targets.tolist() == [0, 1, 0]
    assert part.duplicates == ((1, 2),)
    assert part.conflicts == ((1, 2),)
    assert part.groups[1] == part.groups[2] != part.groups[0]
    assert part.classes == data.classes
    assert part.digests == tuple(data.digests[i] for i in (5, 4, 0))
    assert data.subset([0, 2]).conflicts == ()  # both are animals
    assert data.subset(np.array([1, 3])).duplicates == ()
    assert data.subset(range(len(data))).fingerprint == data.fingerprint


@pytest.mark.parametrize(("indices", "said"), [([6], "0 to 5"), ([-1], "0 to 5"), ([1, 1], "more than once")])
def test_a_subset_of_what_is_not_there_is_refused(data: Data, indices: list[int], said: str) -> None:
    with pytest.raises(TopgraftError, match=said):
        data.subset(indices)


def test_the_fingerprint_changes_with_content_labels_classes_and_order(data: Data) -> None:
    labels = ["animal", "vehicle", "animal", "vehicle", "vehicle", "animal"]
    others = [
        read([*TEXTS[:-1], "two brown bear"], targets=labels),
        read(TEXTS, targets=[*labels[:-1], "vehicle"]),
        read(TEXTS, targets=["animals" if x == "animal" else x for x in labels]),
        read(TEXTS),
        data.subset([1, 0, 2, 3, 4, 5]),
    ]
    assert len({data.fingerprint, *(d.fingerprint for d in others)}) == 6
    assert read(TEXTS, targets=labels).fingerprint == data.fingerprint


def test_the_fingerprint_is_of_the_content_not_of_the_place(tmp_path: Path, photos: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("buildings", "food", "tools"):
        (moved / name).symlink_to(photos / name)
    assert read(moved).fingerprint == read(photos).fingerprint


def test_examples_are_decoded_to_what_preprocessing_takes(data: Data, photos: Path) -> None:
    assert data.decode(1) == "the blue car"
    picture = read(photos).decode(0)
    assert picture.mode == "RGB"
    row = read((np.arange(6).reshape(3, 2), [0, 1, 0])).decode(1)
    assert isinstance(row, np.ndarray)
    assert row.dtype == np.float32
    assert row.tolist() == [2, 3]


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_picture_whose_file_changed_is_not_taken_for_what_it_was(
    tmp_path: Path, photos: Path, is_emptied: bool
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = read(tmp_path / "photos")
    path, before = Path(data.inputs[3]), Path(data.inputs[3]).read_bytes()
    # whoever writes a file anew empties it first
    path.write_bytes(b"" if is_emptied else Path(data.inputs[20]).read_bytes())
    with pytest.raises(ExampleError, match="changed after it was read") as refused:
        data.decode(3)
    assert path.name in str(refused.value)
    assert refused.value.exit_status == 1  # nothing was wrong with the command
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    path.write_bytes(before)
    assert data.decode(3).mode == "RGB"


def test_it_prints_in_one_line(data: Data) -> None:
    assert repr(data) == "Data(6 examples, text, 2 classes, from 'the list')"
    assert data.counts == {"animal": 3, "vehicle": 3}


def test_thumbnails_of_a_subset_are_those_of_its_pictures_and_many_take_no_memory(tmp_path: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    data = read(tmp_path)
    assert data.thumbnails is not None
    part = data.subset([2, 0])
    assert part.thumbnails is not None
    assert np.array_equal(part.thumbnails, data.thumbnails[[2, 0]])
    many = replace(data, thumbnails=np.broadcast_to(data.thumbnails[:, None], (3, 6000, 32, 32, 3)))
    large = many.subset([1, 0]).thumbnails
    assert large is not None
    assert isinstance(np.asarray(large).base.base.obj, mmap.mmap)
    assert np.array_equal(large[:, 5999], data.thumbnails[[1, 0]])
