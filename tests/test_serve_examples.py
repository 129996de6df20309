"""The nearest examples of an input, by the features that the head reads; kept in the store."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import called
from hub_cache import tiny_bert
from made_rows import table
from packaged_data import glosses_of, pictures_of
from PIL import Image
from served import (
    FORM,
    asked,
    form,
    graft_model,
    in_thread,
    posted,
    rows_backbone,
    saved_graft,
    serving,
    wav,
)
from small_networks import backbone_of, data_of_maps, example_maps, maps

from topgraft.backbones import load
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.features.store import Store
from topgraft.pooling import pool
from topgraft.predict import Predictor
from topgraft.saved import Model
from topgraft.serve.examples import SIDE, Examples, examples_of

SHOWN = ["index", "name", "label", "similarity", "text", "row", "picture"]


@pytest.fixture(scope="module")
def model() -> Model:
    return graft_model(backbone_of(maps(), example_maps()), 4, 2)


def held(model: Model, data: Data, root: Path, **options: Any) -> Examples:
    return examples_of(Predictor(model), data, Store(root), **options)


def features_by_hand(model: Model, values: Any) -> np.ndarray:
    """Pooled states at the last kept cut, each example alone."""
    graft = model.graft
    rows = []
    for value in values:
        with torch.no_grad():
            state = graft.body(graft.frozen(model.preprocess.batch([value])))
            rows.append(pool(state, graft.head.layout)[0].double().numpy())
    return np.stack(rows)


def test_the_nearest_are_those_of_the_largest_cosine_of_standardised_features(model: Model, tmp_path: Path):
    data, new = data_of_maps(40), data_of_maps(7, seed=9)
    examples = held(model, data, tmp_path)
    known, asked_for = (features_by_hand(model, d.inputs) for d in (data, new))
    mean, spread = known.mean(0), known.std(0)
    a, b = (asked_for - mean) / spread, (known - mean) / spread
    cosine = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    predictor = Predictor(model)
    found = examples.nearest(predictor.features(list(new.inputs)))
    for row, near in zip(cosine, found, strict=True):
        best = np.argsort(-row)[:5]
        assert [one.index for one in near] == best.tolist()
        assert [one.similarity for one in near] == pytest.approx(row[best].tolist(), abs=1e-5)
    assert len({one.index for near in found for one in near}) > 5


def test_features_are_those_that_the_head_reads(model: Model):
    values, predictor = list(data_of_maps(9).inputs), Predictor(model)
    logits = predictor.logits(model.preprocess.batch(values))
    with torch.no_grad():
        assert torch.equal(model.graft.head(predictor.features(values)), logits)


def test_of_a_text_in_windows_they_are_the_mean_over_these(tmp_path: Path):
    tiny_bert(tmp_path)
    plain = graft_model(load(f"hf/{tmp_path}"), 2, 1)
    model = replace(
        plain,
        preprocess=replace(plain.preprocess, max_length=6),
        description={**plain.description, "windows": 3},
    )
    text = "a good film bad a good long film a bad film"
    pieces = model.preprocess.windows(text, 3)
    assert len(pieces) == 3
    found = Predictor(model).features([text, "bad"])
    each = Predictor(replace(model, description=plain.description)).features([*pieces, "bad"])
    torch.testing.assert_close(found[0], each[:3].mean(0))
    torch.testing.assert_close(found[1], each[3])


def test_an_example_itself_is_its_own_nearest_and_features_that_never_vary_do_not_count(
    model: Model, tmp_path: Path
):
    data = data_of_maps(20)
    examples = held(model, data, tmp_path)
    features = Predictor(model).features(list(data.inputs))
    for i, near in enumerate(examples.nearest(features)):
        assert (near[0].index, near[0].similarity) == (i, pytest.approx(1.0, abs=1e-4))
    same = read((np.stack([data.inputs[3]] * 4), list("abab")))
    alike = held(model, same, tmp_path)
    assert float(alike.scale.abs().max()) == 0
    (near,) = alike.nearest(features[:1])
    assert [(one.index, one.similarity) for one in near] == [(i, 0.0) for i in range(4)]


def test_what_is_stored_is_not_run_again_and_another_model_does_not_read_it(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, ran = data_of_maps(40), []
    features = Predictor.features
    monkeypatch.setattr(Predictor, "features", lambda p, some: ran.append(len(some)) or features(p, some))
    first = held(model, data.subset(range(30)), tmp_path)
    assert sum(ran) == 30
    second = held(model, data, tmp_path)
    assert sum(ran) == 40
    assert torch.equal(second.mean, held(model, data, tmp_path / "other").mean)
    other = graft_model(backbone_of(maps(seed=5), example_maps()), 4, 2)
    assert not torch.equal(held(other, data.subset(range(30)), tmp_path).mean, first.mean)
    assert sum(ran) == 110


def test_more_than_the_memory_is_refused_before_anything_is_run(model: Model, tmp_path: Path):
    width = model.graft.head.linear.in_features
    memory = 4 * width * 40 - 1
    with pytest.raises(TopgraftError, match=r"held of 40 examples would take .* about 39 fit"):
        held(model, data_of_maps(40), tmp_path, memory=memory)
    assert not list(tmp_path.iterdir())
    assert held(model, data_of_maps(40), tmp_path, memory=memory + 1).held == memory + 1


@pytest.fixture(scope="module")
def photos_served(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Model]]:
    model = graft_model(load("timm/test_efficientnet", weights="none", seed=4), 4, 3)
    store = tmp_path_factory.mktemp("store")
    with in_thread(model, examples=lambda p: examples_of(p, read(photos), Store(store))) as address:
        yield address, model


def test_pictures_are_shown_small_and_by_their_number_only(photos_served: tuple[str, Model], photos: Path):
    address, _ = photos_served
    path = sorted((photos / "food").iterdir())[3]
    bad = ("bad.png", b"no picture")
    row, error = asked(address, "POST", "/nearest", form([("new.webp", path.read_bytes()), bad]), FORM).json
    assert list(row) == ["input", "nearest", "error"]
    assert (row["input"], row["error"]) == ("new.webp", None)
    assert all(list(one) == SHOWN for one in row["nearest"])
    first = row["nearest"][0]
    assert first["name"] == f"food/{path.name}"  # where the folder lies is nobody's business
    assert (first["label"], first["similarity"]) == ("food", pytest.approx(1, abs=1e-3))
    similar = [one["similarity"] for one in row["nearest"]]
    assert len(similar) == 5
    assert similar == sorted(similar, reverse=True)
    assert error == {
        "input": "bad.png",
        "nearest": [],
        "error": "not a picture in a format that Pillow reads",
    }
    reply = asked(address, "GET", f"/{first['picture']}")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/webp")
    small = np.asarray(Image.open(io.BytesIO(reply.body)).convert("RGB"), dtype=float)
    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    whole.thumbnail((SIDE, SIDE))
    assert small.shape == np.asarray(whole).shape
    assert np.abs(small - np.asarray(whole, dtype=float)).mean() < 12


@pytest.mark.parametrize("index", ["36", "-1", "0.0", "x", "..%2f..%2fetc%2fpasswd", "9" * 400, "²"])
def test_a_number_that_is_none_finds_nothing(photos_served: tuple[str, Model], index: str):
    from urllib.parse import quote

    reply = asked(photos_served[0], "GET", f"/examples/{quote(index, safe='%')}")
    assert (reply.status, list(reply.json)) == (404, ["error"])


def test_what_is_held_is_told_and_described_and_counted(photos_served: tuple[str, Model]):
    address, model = photos_served
    assert asked(address, "GET", "/model").json["examples"] == 36
    paths = asked(address, "GET", "/openapi.json").json["paths"]
    assert set(paths) == {"/predict", "/nearest", "/looked", "/health", "/metrics", "/model"}
    row = paths["/nearest"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["items"]
    assert row["properties"]["nearest"]["items"]["required"] == SHOWN
    counts = asked(address, "GET", "/metrics").body.decode()
    assert 'path="/examples",status="404"' in counts
    assert 'path="/nearest",status="200"' in counts
    looked = asked(
        address, "POST", "/looked", form([("a.png", pictures_of("food", 0, 1)[0].read_bytes())]), FORM
    )
    assert looked.status == 200
    assert model.graft.keep == 4


def test_where_it_looked_is_told_with_the_frame_of_the_picture(photos_served: tuple[str, Model]):
    from topgraft.looking import Looker

    address, model = photos_served
    path = pictures_of("tools", 1, 1)[0]
    with Image.open(path) as opened:
        wide = opened.convert("RGB").resize((300, 150))
    written = io.BytesIO()
    wide.save(written, "PNG")
    row, error = asked(
        address, "POST", "/looked", form([("wide.png", written.getvalue()), ("no.png", b"")]), FORM
    ).json
    (looked,) = Looker(model).look([wide])
    assert list(row) == ["input", "of", "map", "seen", "where", "error"]
    assert row["of"] == looked.of
    assert row["map"] == looked.shares.round(4).tolist()
    assert (row["where"], row["error"]) == (looked.where, None)
    seen = row["seen"]
    assert 0.2 < seen["left"] < seen["right"] < 0.8
    assert (seen["left"] + seen["right"]) / 2 == pytest.approx(0.5, abs=0.01)
    nothing = {"of": None, "map": [], "seen": None, "where": None}
    assert error == {"input": "no.png", **nothing, "error": "an empty file (0 bytes)"}


def test_without_examples_and_for_other_inputs_it_is_said_why(model: Model):
    with in_thread(model) as address:
        nearest = posted(address, {"arrays": [[1]]}, "/nearest")
        looked = posted(address, {"arrays": [[1]]}, "/looked")
        told = asked(address, "GET", "/model").json
        picture = asked(address, "GET", "/examples/0")
    assert nearest.status == looked.status == picture.status == 404
    assert "topgraft serve MODEL --examples DATA" in nearest.json["error"]
    assert (
        looked.json["error"]
        == told["not_looked"]
        == "Where it looked is for pictures; this model reads arrays."
    )
    assert told["examples"] == 0
    assert "0 are held" in picture.json["error"]


def test_rows_are_shown_by_their_cells(tmp_path: Path):
    frame = table(50, seed=2).drop(columns="spent")
    model = graft_model(rows_backbone(), 7, 0)
    data = read(frame, label="bought", columns="all", modality="row")
    with in_thread(model, examples=lambda p: examples_of(p, data, Store(tmp_path))) as address:
        sent = json.loads(frame.drop(columns="bought").to_json(orient="records"))
        found = posted(address, {"rows": [sent[7], [1]]}, "/nearest").json
    first = found[0]["nearest"][0]
    assert (first["index"], first["name"], first["label"]) == (7, data.names[7], frame["bought"][7])
    assert {n: c for n, c in first["row"].items() if c is not None} == {
        n: c for n, c in sent[7].items() if c is not None
    }
    assert found[1]["nearest"] == []
    assert "a list, not an object" in found[1]["error"]


def test_sounds_are_shown_by_their_names(tmp_path: Path):
    for name in ("bell", "organ"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "data" / name / f"{i}.wav").write_bytes(wav(name, i))
    model = graft_model(load("sound/resemblyzer", weights="none", seed=3), 2, 1)
    data = read(tmp_path / "data")
    with in_thread(model, examples=lambda p: examples_of(p, data, Store(tmp_path / "s"))) as address:
        (row,) = asked(address, "POST", "/nearest", form([("x.wav", wav("organ", 1))]), FORM).json
    assert len(row["nearest"]) == 5
    first = row["nearest"][0]
    assert (first["name"], first["label"]) == ("organ/1.wav", "organ")
    assert (first["text"], first["row"], first["picture"]) == (None, None, None)


def test_serve_reads_the_examples_with_the_columns_of_the_fit(glosses: Path, tmp_path: Path, cache: Path):
    """The command itself, on real weights: texts with their labels, told and held."""
    folder = saved_graft(
        load("hf/all-MiniLM-L6-v2"), tmp_path / "model", 2, 2, classes=("animal", "food", "person")
    )
    with serving(folder, "--examples", str(glosses)) as served:
        assert served.told["model"]["examples"] == 60
        text, label = list(glosses_of(("animal", "food", "person"), 20))[31]
        (row,) = posted(served.address, {"texts": [text]}, "/nearest").json
    first = row["nearest"][0]
    assert (first["index"], first["text"], first["label"]) == (31, text, label)
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert len({one["text"] for one in row["nearest"]}) == 5
    assert list((cache / "features-1").iterdir())


def test_examples_that_do_not_fit_the_model_are_refused(photos: Path, tmp_path: Path):
    folder = saved_graft(load("timm/test_efficientnet", weights="none"), tmp_path / "model", 3, 3)
    for given, said in ((photos, "buildings"), (tmp_path / "none", "none")):
        outcome = called("serve", folder, "--port", "0", "--examples", given)
        assert outcome.status == 2
        assert said in outcome.err
