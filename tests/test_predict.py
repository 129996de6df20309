from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_cache import tiny_bert
from PIL import Image
from small_networks import backbone_of, data_of_maps, example_maps, graft_of, maps

from topgraft.backbones import load
from topgraft.backbones.types import Backbone
from topgraft.data import read
from topgraft.data.unlabelled import Row
from topgraft.errors import TopgraftError
from topgraft.predict import Prediction, Predictor, predict, predicted_classes, rows_of
from topgraft.saved import Model, describe

CLASSES = ("cat", "dog", "épée")
TEXTS = ["a film", "a good long story about people", "bad", "the film was good", "people"]


def model_of(backbone: Backbone, keep: int, freeze: int, precision: str = "fp32") -> Model:
    graft = graft_of(backbone.chain, keep, freeze)
    columns = {"text": "gloss", "label": "stars"} if backbone.modality == "text" else {}
    description = describe(graft, backbone, classes=CLASSES, columns=columns, precision=precision)
    return Model(
        graft, backbone.preprocess, CLASSES, backbone.modality, columns, "torch", precision, description
    )


@pytest.fixture(scope="module")
def arrays() -> Backbone:
    return backbone_of(maps(dropout=0.5), example_maps())


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder)
    return model_of(load(f"hf/{folder}"), 3, 2)


@pytest.fixture(scope="module")
def pictures() -> Model:
    return model_of(load("timm/test_efficientnet", weights="none"), 4, 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(["b.png", "a.png", "c.png"]):
        noise = np.random.default_rng(i).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    return folder


def probabilities(predictions: list[Prediction]) -> torch.Tensor:
    return torch.tensor([p.probabilities for p in predictions], dtype=torch.float64)


@pytest.mark.parametrize(("keep", "freeze"), [(4, 4), (3, 1), (2, 0)])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_probabilities_are_those_of_the_graft_in_the_order_given(arrays, keep, freeze, batch_size):
    model = model_of(arrays, keep, freeze)
    data = data_of_maps(23)
    got = list(Predictor(model).predict(rows_of(data), batch_size=batch_size))
    with torch.no_grad():
        wanted = torch.softmax(model.graft.eval()(torch.from_numpy(data.inputs)).double(), 1)
    assert torch.allclose(probabilities(got), wanted, atol=1e-5)
    assert [p.input for p in got] == list(data.names)
    for prediction, row in zip(got, probabilities(got), strict=True):
        assert float(row.sum()) == pytest.approx(1)
        assert prediction.label == CLASSES[int(row.argmax())]
        assert prediction.confidence == float(row.max())
        assert prediction.error is None
    assert predicted_classes(got, CLASSES).tolist() == wanted.argmax(1).tolist()


def test_labelled_pictures_must_be_what_they_were_when_they_were_read(pictures, photos):
    files = sorted(photos.glob("*.png"))
    data = read(files, targets=["x", "y", "x"])
    before = list(Predictor(pictures).predict(rows_of(data)))
    files[1].write_bytes(files[2].read_bytes())
    got = list(Predictor(pictures).predict(rows_of(data)))
    assert got[1].label is None
    assert "changed after it was read" in str(got[1].error)
    assert [got[i].label for i in (0, 2)] == [before[i].label for i in (0, 2)]


def test_the_same_rows_give_the_same_bits_and_leave_threads_and_modes_alone(arrays):
    model = model_of(arrays, 4, 2)
    rows = list(rows_of(data_of_maps(9)))
    threads = torch.get_num_threads()
    first, second = (list(Predictor(model).predict(rows, batch_size=4)) for _ in range(2))
    assert first == second
    assert torch.get_num_threads() == threads
    assert not any(m.training for m in model.graft.modules())


def test_bf16_of_the_frozen_part_is_near(arrays):
    rows = list(rows_of(data_of_maps(9)))
    exact, rough = (
        probabilities(list(Predictor(model_of(arrays, 4, 3, p)).predict(rows))) for p in ("fp32", "bf16")
    )
    assert not torch.equal(exact, rough)
    assert torch.allclose(exact, rough, atol=0.05)


def test_padding_changes_no_texts_probabilities(texts):
    together = predict(texts, TEXTS)
    alone = [predict(texts, [text])[0] for text in TEXTS]
    assert torch.allclose(probabilities(together), probabilities(alone), atol=1e-5)
    assert [p.label for p in together] == [p.label for p in alone]
    assert [p.input for p in together] == ["0", "1", "2", "3", "4"]


def test_a_row_that_cannot_be_read_gets_its_error_and_the_others_go_on(pictures, photos):
    whole = (photos / "a.png").read_bytes()
    (photos / "bad.png").write_bytes(whole[: len(whole) // 2])
    rows = [
        Row("a", photos / "a.png"),
        Row("bad", photos / "bad.png"),
        Row("known", None, "not a picture"),
        Row("bytes", whole),
        Row("none", photos / "none.png"),
    ]
    got = list(Predictor(pictures).predict(rows, batch_size=2))
    assert [p.input for p in got] == ["a", "bad", "known", "bytes", "none"]
    assert [p.error is None for p in got] == [True, False, False, True, False]
    assert "truncated" in str(got[1].error)
    assert got[2].error == "not a picture"
    assert got[0].probabilities == pytest.approx(got[3].probabilities, abs=1e-6)
    assert got[1].row(CLASSES) == {
        "input": "bad",
        "label": None,
        "confidence": None,
        "p_cat": None,
        "p_dog": None,
        "p_épée": None,
        "error": got[1].error,
    }
    assert predicted_classes(got, CLASSES)[1:3].tolist() == [-1, -1]
    assert list(Predictor(pictures).predict([])) == []


def test_a_row_has_fixed_columns():
    prediction = Prediction("x", "dog", 0.5, (0.25, 0.5, 0.25))
    assert prediction.row(CLASSES) == {
        "input": "x",
        "label": "dog",
        "confidence": 0.5,
        "p_cat": 0.25,
        "p_dog": 0.5,
        "p_épée": 0.25,
        "error": None,
    }
    assert list(prediction.row(CLASSES)) == [
        "input",
        "label",
        "confidence",
        "p_cat",
        "p_dog",
        "p_épée",
        "error",
    ]


def test_rows_are_read_as_they_are_needed(arrays):
    model = model_of(arrays, 1, 1)
    value, taken = data_of_maps(3).inputs[0], []

    def endless() -> Any:
        for i in range(10_000):
            taken.append(i)
            yield Row(str(i), value)

    predictions = Predictor(model).predict(endless(), batch_size=2)
    assert [next(predictions).input for _ in range(3)] == ["0", "1", "2"]
    predictions.close()
    assert len(taken) < 100


# from Python


def test_pictures_by_path_folder_pillow_array_or_bytes_are_the_same(pictures, photos):
    folder = predict(pictures, photos)
    assert [p.input for p in folder] == [str(photos / n) for n in ("a.png", "b.png", "c.png")]
    paths = sorted(photos.iterdir())
    opened = [Image.open(p).convert("RGB") for p in paths]
    for given in (
        [str(p) for p in paths],
        paths,
        opened,
        [np.asarray(p) for p in opened],
        [p.read_bytes() for p in paths],
    ):
        assert torch.equal(probabilities(predict(pictures, given)), probabilities(folder))
    (photos / "table.csv").write_text("path\nc.png\na.png\n")
    table = predict(pictures, photos / "table.csv")
    assert torch.allclose(probabilities(table), probabilities(folder)[[2, 0]], atol=1e-6)


def test_texts_by_list_or_table(texts, tmp_path, monkeypatch):
    listed = predict(texts, TEXTS)
    table = tmp_path / "reviews.csv"
    table.write_text("gloss,other\n" + "".join(f"{text},x\n" for text in TEXTS))
    for given in (table, str(table)):
        assert torch.equal(probabilities(predict(texts, given)), probabilities(listed))
    with pytest.raises(TopgraftError, match="nothing"):
        predict(texts, table, column="nothing")
    assert predict(texts, "a film")[0].probabilities == pytest.approx(listed[0].probabilities, abs=1e-6)
    assert len(predict(texts, "long " * 5000)) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("a film\nbad\n"))
    assert torch.allclose(probabilities(predict(texts, "-")), probabilities(listed)[[0, 2]], atol=1e-5)
    with pytest.raises(TopgraftError):
        predict(texts, tmp_path / "none.csv")


def test_arrays_come_from_python(arrays, tmp_path):
    model = model_of(arrays, 3, 1)
    inputs = data_of_maps(4).inputs
    assert len(predict(model, inputs)) == 4
    with pytest.raises(TopgraftError, match="predicted from Python"):
        predict(model, [str(tmp_path)])
