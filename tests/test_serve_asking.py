"""Rows and sounds over HTTP, on small networks: what is sent, what is answered, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_cache import tiny_bert
from made_rows import table
from served import (
    FORM,
    JSON,
    asked,
    assert_same,
    form,
    graft_model,
    in_thread,
    pairs_model,
    posted,
    rows_backbone,
    wav,
)

from topgraft.backbones import load
from topgraft.predict import predict
from topgraft.saved import Model
from topgraft.serve.limits import Limits

SENT = json.loads(table(12, seed=3).drop(columns=["bought", "spent"]).to_json(orient="records"))
NOTES = "topgraft-notes"


@pytest.fixture(scope="module")
def rows_model() -> Model:
    return graft_model(rows_backbone(), 7, 0)


@pytest.fixture(scope="module")
def rows(rows_model: Model) -> Iterator[str]:
    with in_thread(rows_model, Limits(inputs=40)) as at:
        yield at


@pytest.fixture(scope="module")
def sounds_model() -> Model:
    return graft_model(load("sound/resemblyzer", weights="none", seed=3), 2, 1)


@pytest.fixture(scope="module")
def sounds(sounds_model: Model) -> Iterator[str]:
    with in_thread(sounds_model) as at:
        yield at


def wanted(model: Model, sent: list[Any]) -> list[dict[str, Any]]:
    return [p.row(model.classes) for p in predict(model, sent)]


def test_rows_get_the_rows_of_predict_by_the_names_of_their_columns(rows: str, rows_model: Model):
    turned = [dict(reversed(list(row.items()))) for row in SENT]
    for sent in (SENT, turned):
        reply = posted(rows, {"rows": sent})
        assert reply.status == 200
        assert NOTES not in reply.headers
        assert_same(reply.json, wanted(rows_model, SENT))
    assert len({row["p_cat"] for row in reply.json}) == 12


def test_columns_that_are_missing_or_not_known_are_told_as_predict_tells_them(rows: str, rows_model: Model):
    sent = [{"agee": 3, "ü\n": 1, **{n: c for n, c in row.items() if n != "income"}} for row in SENT]
    reply = posted(rows, {"rows": sent})
    assert_same(reply.json, wanted(rows_model, [{**row, "income": None} for row in SENT]))
    said = json.loads(reply.headers[NOTES])
    assert said[0] == "3 of 4 columns were found by name."
    assert said[1] == "the request lacks income: missing in every row."
    assert said[2] == "Not known to the network, and left out: agee, ü\n."


def test_columns_none_of_which_is_known_are_refused(rows: str):
    for sent in ([{"agee": 3}], [{}], [{"\ud800": 1}, {}]):
        reply = posted(rows, {"rows": sent})
        assert reply.status == 422
        assert "the request has none of the columns" in reply.json["error"]
    assert "Nearest: agee" in posted(rows, {"rows": [{"agee": 3}]}).json["error"]


def test_a_bad_cell_or_row_is_the_error_of_its_row_and_changes_no_other(rows: str, rows_model: Model):
    bad = [{"age": "old"}, {"age": [3]}, {"town": {"a": 1}}, {"age": True}, [1], None, {"age": 10**400}]
    found = posted(rows, {"rows": [SENT[0], *bad, SENT[1]]}).json
    assert_same([{**found[0], "input": "0"}, {**found[-1], "input": "1"}], wanted(rows_model, SENT[:2]))
    said = [row["error"] for row in found[1:-1]]
    assert said[0] == "column \"age\" holds numbers, and 'old' is none"
    assert said[2] == 'column "town" can\'t hold a dict'
    assert said[4] == "a list, not an object with cells by the names of their columns"
    assert all(said)


def test_what_is_no_list_of_rows_is_refused(rows: str):
    for body, headers, status, said in (
        (b'{"row": [{}]}', JSON, 422, "Nearest: rows."),
        (b'{"rows": {"age": 1}}', JSON, 422, "a list, got an object"),
        (b'{"rows": [' + b"{}," * 40 + b"{}]}", JSON, 413, "Expected at most 40"),
        (form([("a", b"")]), FORM, 415, 'takes application/json with {"rows": [...]}'),
    ):
        reply = asked(rows, "POST", "/predict", body, headers)
        assert (reply.status, said in reply.json["error"]) == (status, True), reply


def test_the_columns_of_rows_are_told_and_described(rows: str):
    columns = {column["name"]: column for column in asked(rows, "GET", "/model").json["columns"]}
    assert list(columns) == ["age", "income", "kids", "town"]
    assert columns["town"]["names"] == ["Lyon", "Oslo", "Rom", "Ulm"]
    assert columns["town"]["mean"] is None
    assert 30 < columns["age"]["mean"] < 50
    predict = asked(rows, "GET", "/openapi.json").json["paths"]["/predict"]["post"]
    item = predict["requestBody"]["content"]["application/json"]["schema"]["properties"]["rows"]["items"]
    assert item["properties"]["town"] == {"type": ["string", "number", "boolean", "null"]}
    assert NOTES in predict["responses"]["200"]["headers"]


def test_pairs_of_texts_get_the_rows_of_predict(tmp_path: Path):
    tiny_bert(tmp_path)
    model = pairs_model(load(f"hf/{tmp_path}"))
    sent = [["a good film", "bad"], ["bad", "a good film"]]
    with in_thread(model) as address:
        found = posted(address, {"texts": [*sent, "bad", ["bad", ""]]}).json
        told = asked(address, "GET", "/model").json
        document = asked(address, "GET", "/openapi.json").json["paths"]["/predict"]["post"]
    assert_same(found[:2], wanted(model, sent))
    assert found[0]["p_cat"] != found[1]["p_cat"]
    assert [row["error"] for row in found[2:]] == [
        "one text; this model was fitted on pairs of texts",
        "an empty text",
    ]
    assert told["pairs"] is True
    texts = document["requestBody"]["content"]["application/json"]["schema"]["properties"]["texts"]
    assert texts["items"] == {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}


def test_sounds_get_the_rows_of_predict_and_bad_ones_an_error(sounds: str, sounds_model: Model):
    files = [("bell.wav", wav("bell", 1)), ("../x.wav", wav("organ", 2)), ("c.wav", wav("pluck", 3)[:999])]
    files += [("text.wav", b"no sound at all"), ("empty.wav", b"")]
    reply = asked(sounds, "POST", "/predict", form(files), FORM)
    expected = wanted(sounds_model, [content for _, content in files])
    assert_same(
        reply.json, [{**row, "input": name} for row, (name, _) in zip(expected, files, strict=True)], 1e-5
    )
    assert [row["error"] for row in reply.json] == [
        None,
        None,
        "truncated after 999 bytes",
        "not a sound in a format that libsndfile reads",
        "an empty file (0 bytes)",
    ]
    assert reply.json[0]["p_cat"] != reply.json[1]["p_cat"]


def test_a_sound_that_is_too_long_is_an_error_before_it_is_decoded(sounds: str):
    whole = bytearray(wav("bell", 1, seconds=0.1))
    whole[24:28] = (1_000).to_bytes(4, "little")  # samples a second
    long = bytes(whole[:44]) + b"\0" * 1_300_000
    long = long[:40] + (1_300_000).to_bytes(4, "little") + long[44:]
    (row,) = asked(sounds, "POST", "/predict", form([("long.wav", long)]), FORM).json
    assert row["error"] == "650.0 s, over the limit of 600 s"


def test_a_body_that_holds_no_sounds_is_refused(sounds: str):
    reply = posted(sounds, {"texts": ["a"]})
    assert (reply.status, "takes multipart/form-data" in reply.json["error"]) == (415, True)
    reply = asked(sounds, "POST", "/predict", form([(None, b"text")]), FORM)
    assert (reply.status, "Expected sounds as files" in reply.json["error"]) == (422, True)
