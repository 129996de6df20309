"""The service in this process, on a small network of arrays: what it answers and what it refuses."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from served import CLASSES, FORM, JSON, SCORE, Reply, asked, assert_same, form, graft_model, in_thread, posted
from small_networks import backbone_of, data_of_maps, example_maps, maps

import topgraft
from topgraft.estimators.regressor import TransferRegressor
from topgraft.predict import Predictor, rows_of
from topgraft.saved import Model
from topgraft.serve.limits import Limits

SMALL = Limits(body=200_000, inputs=40)


@pytest.fixture(scope="module")
def model() -> Model:
    return graft_model(backbone_of(maps(), example_maps()), 4, 2)


@pytest.fixture(scope="module")
def address(model: Model) -> Iterator[str]:
    with in_thread(model, SMALL) as at:
        yield at


def arrays(count: int) -> list[Any]:
    return [value.tolist() for value in data_of_maps(60).inputs[:count]]


def wanted(model: Model, count: int, batch_size: int = 8) -> list[dict[str, Any]]:
    """What predict says of the same arrays."""
    rows = list(rows_of(data_of_maps(60)))[:count]
    found = Predictor(model).predict(rows, batch_size=batch_size)
    return [{**p.row(model.classes), "input": str(i)} for i, p in enumerate(found)]


def test_rows_are_those_of_predict(model: Model, address: str):
    reply = posted(address, {"arrays": arrays(23)})
    assert reply.status == 200
    assert_same(reply.json, wanted(model, 23))
    assert len({row["p_cat"] for row in reply.json}) == 23


def test_in_batches_of_one_every_bit_is_that_of_predict(model: Model):
    expected = wanted(model, 9, batch_size=1)
    with in_thread(model, Limits(batch=1)) as at, ThreadPoolExecutor(9) as pool:
        found = list(pool.map(lambda array: posted(at, {"arrays": [array]}).json[0], arrays(9)))
    assert [{**row, "input": str(i)} for i, row in enumerate(found)] == expected


def test_concurrent_requests_share_batches_and_get_their_own_rows(model: Model):
    expected, sent = wanted(model, 60), arrays(60)
    with in_thread(model, Limits(batch=16), workers=1) as at:
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(lambda i: posted(at, {"arrays": sent[3 * i : 3 * i + 3]}).json, range(20)))
        counts = metrics(at)
    rows = [{**row, "input": str(i)} for i, row in enumerate(row for some in found for row in some)]
    assert_same(rows, expected)
    assert counts["topgraft_batch_inputs_sum"] == 60
    assert counts["topgraft_batch_inputs_count"] < 20


def test_a_bad_array_is_the_error_of_its_row_and_changes_no_other(model: Model, address: str):
    good, other_shape = arrays(3), [[[1.0, 2.0]]]
    bad = [other_shape, [], "text", [[1, 2], [3]], [[1e39]], None]
    rows = posted(address, {"arrays": [good[0], *bad[:3], good[1], *bad[3:], good[2]]}).json
    assert_same([{**rows[i], "input": str(n)} for n, i in enumerate((0, 4, 8))], wanted(model, 3))
    failed = [rows[i] for i in (1, 2, 3, 5, 6, 7)]
    assert all(row["error"] and row["label"] is None and row["p_cat"] is None for row in failed)
    assert failed[0]["error"].startswith("can't be run: ")
    assert failed[1]["error"] == "no numbers"


def test_numbers_that_overflow_in_the_network_are_an_error_and_no_broken_json(address: str):
    huge = [[[3e38] * 6] * 6] * 2
    (row,) = posted(address, {"arrays": [huge]}).json
    assert row["error"] is None or "not a number" in row["error"] or "can't be run" in row["error"]
    assert row["label"] is None or 0 <= row["confidence"] <= 1


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "said"),
    [
        ("POST", "/predict", b"{", JSON, 400, "can't be read as JSON"),
        ("POST", "/predict", b'{"array": [[1]]}', JSON, 422, "Nearest: arrays."),
        ("POST", "/predict", b'{"arrays": [' + b"[1]," * 40 + b"[1]]}", JSON, 413, "Expected at most 40"),
        ("POST", "/predict", b"x" * 200_001, JSON, 413, "more than 200,000 bytes"),
        ("POST", "/predict", b"{}", {"content-type": "text/plain"}, 415, "takes application/json"),
        ("POST", "/predict", b"{}", {}, 415, "a body without a type"),
        ("POST", "/predict", form([("a", b"")]), FORM, 415, "not multipart/form-data"),
        ("GET", "/predict", None, {}, 405, "GET /predict is not there"),
        ("GET", "/../../etc/passwd", None, {}, 404, "is not there"),
        ("GET", "/page.html", None, {}, 404, "is not there"),
        ("GET", "/docs", None, {}, 404, "is not there"),
        ("GET", "/", None, {"host": "evil.example"}, 421, 'not to "evil.example"'),
        ("POST", "/predict", b"{}", {**JSON, "host": "evil.example:80"}, 421, 'not to "evil.example"'),
    ],
)
def test_what_is_wrong_is_refused_with_its_status_and_reason(
    address: str, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, said: str
):
    reply = asked(address, method, path, body, headers)
    assert (reply.status, list(reply.json)) == (status, ["error"])
    assert said in reply.json["error"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert asked(address, "GET", "/health").json == {"status": "ok", "waiting": 0}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]", "[::1]:8000"])
def test_the_own_names_are_answered(address: str, host: str):
    assert asked(address, "GET", "/health", headers={"host": host}).status == 200


def test_where_others_reach_it_any_name_is_answered(model: Model):
    with in_thread(model, hosts=None) as at:
        assert asked(at, "GET", "/health", headers={"host": "model.example"}).status == 200


def raw(address: str, *parts: bytes, close: bool = False) -> bytes:
    """Bytes as they are, and all that comes back."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        if close:
            return b""
        found = b""
        while more := connection.recv(65_536):
            found += more
            if b"\r\n\r\n" in found and found.endswith((b"}", b"]")):
                break
        return found


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(address: str):
    found = raw(address, HEAD + b"Content-Length: 100000000000\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b"more than 200,000 bytes" in found


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large(address: str):
    chunk = b"%x\r\n%s\r\n" % (150_000, b" " * 150_000)
    found = raw(address, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk)
    assert found.startswith(b"HTTP/1.1 413 ")


def test_who_goes_away_in_the_middle_leaves_nothing_behind(address: str, capfd: pytest.CaptureFixture[str]):
    for _ in range(5):
        raw(address, HEAD + b"Content-Length: 100000\r\n\r\n", b'{"arrays"', close=True)
    assert raw(address, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert posted(address, {"arrays": arrays(1)}).status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_body_that_does_not_come_is_not_waited_for(model: Model):
    with in_thread(model, Limits(seconds=0.5)) as at:
        began = time.monotonic()
        found = raw(at, HEAD + b"Content-Length: 100\r\n\r\n", b'{"arrays": [')
        assert found.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began >= 0.5


def test_what_finds_no_room_or_no_answer_in_time_is_told_when_to_come_again(model: Model):
    sent = {"arrays": arrays(3)}
    few = Limits(seconds=4.0, inputs=6, waiting=6)
    with in_thread(model, few, workers=0) as at, ThreadPoolExecutor(2) as pool:  # nobody works
        late = [pool.submit(posted, at, sent) for _ in range(2)]
        until = time.monotonic() + 60
        while asked(at, "GET", "/health").json["waiting"] < 6 and time.monotonic() < until:
            time.sleep(0.05)
        full = posted(at, sent)
        found: list[Reply] = [f.result() for f in late]
    assert (full.status, full.headers["retry-after"]) == (503, "1")
    assert "wait already" in full.json["error"]
    assert [(r.status, r.headers["retry-after"]) for r in found] == [(504, "1")] * 2
    assert "no answer within 4 s" in found[0].json["error"]


def metrics(address: str) -> dict[str, float]:
    lines = asked(address, "GET", "/metrics").body.decode().splitlines()
    return {name: float(n) for name, _, n in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_requests_inputs_and_batches_are_counted(model: Model):
    with in_thread(model) as at:
        posted(at, {"arrays": [*arrays(4), []]})
        posted(at, {"arrays": "x"})
        asked(at, "GET", "/never/seen")
        asked(at, "BREW", "/health")
        counts = metrics(at)
        kind = asked(at, "GET", "/metrics").headers["content-type"]
    assert kind.startswith("text/plain; version=")
    requests = 'topgraft_requests_total{method="%s",path="%s",status="%d"}'
    assert counts[requests % ("POST", "/predict", 200)] == 1
    assert counts[requests % ("POST", "/predict", 422)] == 1
    assert counts[requests % ("GET", "other", 404)] == 1
    assert counts[requests % ("other", "/health", 405)] == 1
    assert counts['topgraft_inputs_total{outcome="predicted"}'] == 4
    assert counts['topgraft_inputs_total{outcome="error"}'] == 1
    assert counts['topgraft_request_seconds_count{path="/predict"}'] == 2
    assert counts["topgraft_waiting_inputs"] == 0


def test_the_model_tells_what_it_is(model: Model, address: str):
    assert asked(address, "GET", "/model").json == {
        "name": "small.topgraft",
        "modality": "array",
        "pairs": False,
        "columns": [],
        "classes": list(CLASSES),
        "outputs": [],
        "separator": "",
        "backbone": model.description["backbone"]["source"],
        "blocks": len(model.description["blocks"]),
        "keep": 4,
        "freeze": 2,
        "score": SCORE,
        "limits": {
            "body": 200_000,
            "inputs": 40,
            "waiting": 1024,
            "seconds": 30.0,
            "batch": 32,
            "pixels": 100_000_000,
            "sound": 600,
        },
        "examples": 0,
        "not_looked": "Where it looked is for pictures; this model reads arrays.",
    }


def test_openapi_describes_the_body_and_the_columns(address: str):
    document = asked(address, "GET", "/openapi.json").json
    assert document["info"]["version"] == topgraft.__version__
    assert set(document["paths"]) == {"/predict", "/health", "/metrics", "/model"}
    predict = document["paths"]["/predict"]["post"]
    body = predict["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["arrays"]["maxItems"] == 40
    row = predict["responses"]["200"]["content"]["application/json"]["schema"]["items"]
    assert list(row["properties"]) == row["required"] == list(posted(address, {"arrays": arrays(1)}).json[0])
    assert {"408", "413", "415", "422", "503", "504"} <= set(predict["responses"])


def test_the_page_loads_nothing_from_elsewhere_and_looks_like_the_report(address: str):
    page = asked(address, "GET", "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    parts = re.findall(r'(?:src|href)="(\w+\.(?:js|css))"', page.body.decode())
    sources = [page.body.decode(), *(asked(address, "GET", f"/{p}").body.decode() for p in parts)]
    assert len(sources) == 6
    assert not [found for source in sources for found in re.findall(r"(?:https?:)?//[\w.]+\.\w+", source)]
    package = Path(topgraft.__file__).parent
    report = (package / "report" / "base.html").read_text(encoding="utf-8")
    colours = re.compile(r"--[a-z]+: #[0-9a-f]{6}")
    light_and_dark = colours.findall(report.partition("@media print")[0])
    assert len(light_and_dark) == 14
    assert colours.findall(sources[1]) == light_and_dark


def test_a_reply_is_the_document_of_predict_json(address: str):
    reply = posted(address, {"arrays": arrays(1)})
    assert reply.headers["content-type"] == "application/json"
    assert isinstance(json.loads(reply.body), list)


def test_predicted_numbers_are_the_rows_of_predict(tmp_path: Path):
    X = np.asarray(data_of_maps(60).inputs)
    both = np.stack([100 * X.mean((1, 2, 3)), 7 - X[:, 0, 0, 0]], 1)
    backbone = backbone_of(maps(), example_maps(2))
    model = TransferRegressor(backbone, freeze="all", store=tmp_path).fit(X, both).model_
    assert isinstance(model, Model)
    with in_thread(model, SMALL) as at:
        rows = posted(at, {"arrays": arrays(9)}).json
        schema = asked(at, "GET", "/openapi.json").json["paths"]["/predict"]["post"]["responses"]["200"]
        told = asked(at, "GET", "/model").json
        huge = posted(at, {"arrays": [[[[3e38] * 6] * 6] * 2]}).json[0]
    found = list(Predictor(model).predict(list(rows_of(data_of_maps(60)))[:9], batch_size=8))
    for i, (row, prediction) in enumerate(zip(rows, found, strict=True)):
        assert list(row) == ["input", "prediction_y0", "prediction_y1", "error"]
        assert row["input"] == str(i)
        assert [row["prediction_y0"], row["prediction_y1"]] == pytest.approx(prediction.values, rel=1e-5)
    columns = schema["content"]["application/json"]["schema"]["items"]["properties"]
    assert list(columns) == list(rows[0])
    assert told["outputs"] == ["y0", "y1"]
    assert told["classes"] == []
    assert huge["error"] is not None
    assert huge["prediction_y0"] is None
