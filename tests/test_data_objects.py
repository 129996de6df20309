from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from packaged_data import pictures_of
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from topgraft.data import open_picture, read
from topgraft.errors import TopgraftError

TEXTS = ["a red fox", "a blue car", "two brown bears", "the fast train"]
LABELS = ["animal", "vehicle"] * 2
PATHS = [p for name in ("food", "tools") for p in pictures_of(name, 0, 3)]
KINDS = ["food"] * 3 + ["tools"] * 3


class Pictures(Dataset):
    classes = ("food", "tools")

    def __init__(self, *, shaken: bool = False) -> None:
        self.shaken = shaken

    def __len__(self) -> int:
        return len(PATHS)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        picture = open_picture(PATHS[i])
        if self.shaken:
            picture = picture.rotate(float(torch.rand(()) * 90 + 1))
        return picture, int(i >= 3)


def test_arrays_and_tensors_become_float32_rows() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2, 3))
    data = read((x, [10, 9, 10, 9, 10, 9]))
    assert data.modality == "array"
    assert data.classes == ("9", "10")
    assert isinstance(data.inputs, np.ndarray)
    assert data.inputs.dtype == np.float32
    assert data.names == ("0", "1", "2", "3", "4", "5")
    same = read(torch.from_numpy(x), targets=torch.tensor([10, 9] * 3))
    assert same.fingerprint == data.fingerprint
    assert isinstance(data.subset([4, 1]).inputs, np.ndarray)


def test_rows_that_are_not_finite_are_left_out() -> None:
    x = np.ones((4, 2)) * np.arange(4)[:, None]
    x[2, 1] = np.nan
    data = read((x, list("abab")), max_unreadable=0.5)
    assert [(out.name, out.reason) for out in data.left_out] == [("2", "holds values that are not finite")]
    assert len(data) == 3
    assert len(data.inputs) == 3


def test_lists_of_paths_texts_and_pictures() -> None:
    by_path = read(PATHS, targets=KINDS)
    assert by_path.modality == "picture"
    assert by_path.names[0] == str(PATHS[0])
    assert read([str(p) for p in PATHS], targets=KINDS).fingerprint == by_path.fingerprint
    assert read([p.read_bytes() for p in PATHS], targets=KINDS).fingerprint == by_path.fingerprint
    opened = read([open_picture(p) for p in PATHS], targets=KINDS)
    assert opened.modality == "picture"
    assert opened.decode(0).mode == "RGB"
    assert read((TEXTS, LABELS)).modality == "text"
    assert read(np.array(TEXTS), targets=LABELS).fingerprint == read(TEXTS, targets=LABELS).fingerprint


def test_without_targets_the_data_is_unlabelled() -> None:
    data = read(TEXTS)
    assert data.targets is None
    assert data.classes == ()
    assert len(data) == 4


def test_arrays_of_uint8_are_pictures() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    data = read((x, [0, 1, 0, 1]))
    assert data.modality == "picture"
    assert np.array_equal(np.asarray(data.decode(2)), x[2])
    assert any("was taken for pictures" in note for note in data.notes)
    assert read((x, [0, 1, 0, 1]), modality="array").modality == "array"
    assert read((x[:, :, :, 0], [0, 1, 0, 1]), modality="picture").decode(0).mode == "RGB"


def test_a_data_frame_is_a_table() -> None:
    frame = pd.DataFrame({"text": [*TEXTS, None], "stars": [1, 2, 1, 2, 1], "id": range(5)})
    data = read(frame, label="stars", max_unreadable=0.5)
    assert data.classes == ("1", "2")
    assert data.columns == {"text": "text", "label": "stars"}
    assert [out.name for out in data.left_out] == ["4"]
    with pytest.raises(TopgraftError, match='the data frame has no column "sters"'):
        read(frame, label="sters")


def test_a_torch_dataset_of_tensors() -> None:
    x = torch.arange(12.0).reshape(6, 2)
    data = read(TensorDataset(x, torch.tensor([0, 1] * 3)))
    assert data.modality == "array"
    assert data.fingerprint == read((x, [0, 1] * 3)).fingerprint


def test_a_torch_dataset_of_pictures_uses_its_class_names() -> None:
    data = read(Pictures())
    assert data.classes == ("food", "tools")
    assert data.targets is not None
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(np.asarray(data.decode(4)), np.asarray(open_picture(PATHS[4])))
    assert data.subset([5]).decode(0).size == open_picture(PATHS[5]).size


def test_random_augmentation_is_refused() -> None:
    with pytest.raises(TopgraftError, match="Give the data set without random augmentation"):
        read(Pictures(shaken=True))


def test_a_hugging_face_dataset_of_texts_and_of_pictures(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["vehicle", "animal"])}
    )
    texts = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS}, features=features)
    data = read(texts)
    assert data.classes == ("vehicle", "animal")
    assert data.targets is not None
    assert data.targets.tolist() == [1, 0, 1, 0]
    texts.save_to_disk(str(tmp_path / "saved"))
    assert read(tmp_path / "saved").fingerprint == data.fingerprint
    pictures = datasets.Dataset.from_dict({"image": [str(p) for p in PATHS], "label": KINDS})
    pictures = pictures.cast_column("image", datasets.Image())
    data = read(pictures)
    assert data.modality == "picture"
    assert data.digests == read(PATHS, targets=KINDS).digests
    assert data.subset([3]).decode(0).size == open_picture(PATHS[3]).size


def test_parts_of_a_hugging_face_dataset_are_asked_for(tmp_path: Path) -> None:
    part = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    both = datasets.DatasetDict({"train": part, "test": part})
    with pytest.raises(TopgraftError, match=r'parts train, test.*data\["train"\]'):
        read(both)
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(TopgraftError, match=r"both/train --test .*both/test"):
        read(tmp_path / "both")
    (tmp_path / "both" / "train" / "state.json").write_text("{}")
    with pytest.raises(TopgraftError, match="is not a whole Hugging Face data set"):
        read(tmp_path / "both" / "train")


@pytest.mark.parametrize(
    ("source", "targets", "said"),
    [
        (TEXTS, LABELS[:2], "4 examples but 2 targets"),
        (TEXTS, [[0, 1]] * 4, "one label for each example"),
        (TEXTS, ["a"] * 4, "only one class was found"),
        ([], None, "holds no examples"),
        (np.zeros((0, 3)), None, r"An array of shape \(0, 3\)"),
        (np.zeros(3), None, r"An array of shape \(3,\)"),
        (np.zeros((3, 2), dtype=complex), None, "An array of complex128"),
        ([np.zeros(2), np.zeros(3)], None, "different shapes or kinds"),
        (["a", np.zeros(3)], None, "nothing that can be read|different shapes or kinds"),
        (42, None, "int is nothing that can be read as data"),
        (None, None, "NoneType is nothing that can be read as data"),
        ({"text": TEXTS}, LABELS, "dict is nothing that can be read as data"),
        (TensorDataset(torch.zeros(3, 2)), None, "Item 0 of the data set is not a pair"),
    ],
)
def test_what_is_no_data_is_refused(source: object, targets: object, said: str) -> None:
    with pytest.raises(TopgraftError, match=said) as caught:
        read(source, targets=targets)
    assert caught.value.exit_status == 2


def test_missing_labels_are_left_out() -> None:
    data = read([*TEXTS, "an old bus"], targets=[*LABELS, None], max_unreadable=0.3)
    assert [(out.name, out.reason) for out in data.left_out] == [("4", "no label")]
