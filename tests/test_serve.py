"""``topgraft serve`` in a process of its own, on real weights: its rows are those of ``topgraft predict``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import called, done
from packaged_data import glosses_of, pictures_of, write_table
from serve_load import load as load_of
from served import CLASSES, Served, asked, assert_same, saved_graft, serving
from test_serve_inputs import bomb

from topgraft.backbones import load
from topgraft.data.unlabelled import Row
from topgraft.saved import open_model


@pytest.fixture(scope="module")
def texts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_graft(load("hf/all-MiniLM-L6-v2"), tmp_path_factory.mktemp("texts") / "model", 3, 2)


@pytest.fixture(scope="module")
def pictures_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = load("timm/tf_efficientnet_lite0")
    return saved_graft(backbone, tmp_path_factory.mktemp("pictures") / "model", 8, 6)


@pytest.fixture(scope="module")
def texts(texts_model: Path) -> Iterator[Served]:
    with serving(texts_model, "--max-body", "0.5") as served:
        yield served


@pytest.fixture(scope="module")
def pictures(pictures_model: Path) -> Iterator[Served]:
    with serving(pictures_model, "--max-inputs", "8") as served:
        yield served


def test_fifty_clients_at_once_get_the_rows_of_predict(texts: Served, texts_model: Path, tmp_path: Path):
    some = [text for text, _ in glosses_of(("animal", "food", "person"), 17)][:50]
    table = write_table(tmp_path / "some.csv", [("text",), *((text,) for text in some)])
    expected = done("predict", texts_model, table, "--json").json
    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda text: texts.predict_texts([text]), some))
    assert [reply.status for reply in replies] == [200] * 50
    found = [{**reply.json[0], "input": str(i)} for i, reply in enumerate(replies)]
    assert_same(found, expected)
    assert len({row["confidence"] for row in found}) > 40


def test_several_texts_of_one_request_and_their_errors(texts: Served, texts_model: Path, tmp_path: Path):
    some = ["a film", " ", "good " * 600, "äöü €", "<script>alert(1)</script>"]
    table = write_table(tmp_path / "some.csv", [("text",), *((text,) for text in some)])
    expected = done("predict", texts_model, table, "--json").json
    found = texts.predict_texts(some).json
    assert_same(found, expected)
    assert [row["error"] for row in found] == [None, "an empty text", None, None, None]
    assert list(found[0]) == ["input", "label", "confidence", *(f"p_{name}" for name in CLASSES), "error"]


def test_a_body_over_the_limit_that_was_given_is_refused(texts: Served):
    assert texts.told["model"]["limits"]["body"] == 500_000
    reply = texts.predict_texts(["x" * 500_000])
    assert (reply.status, "500,000 bytes" in reply.json["error"]) == (413, True)


def test_pictures_get_the_rows_of_predict(pictures: Served, pictures_model: Path, tmp_path: Path):
    paths = [*pictures_of("food", 0, 3), *pictures_of("tools", 0, 3), tmp_path / "cut.webp"]
    paths[-1].write_bytes(paths[0].read_bytes()[:500])
    (tmp_path / "no.png").write_bytes(b"no picture")
    paths.append(tmp_path / "no.png")
    expected = done("predict", pictures_model, *paths, "--json").json
    reply = pictures.predict_files([(str(path), path.read_bytes()) for path in paths])
    assert reply.status == 200
    assert_same(reply.json, expected)
    assert [row["error"] is None for row in reply.json] == [True] * 6 + [False] * 2
    assert reply.json[6]["error"] == "truncated after 500 bytes"


def test_names_of_files_are_only_names_and_pixels_are_limited(pictures: Served):
    whole = pictures_of("food", 0, 1)[0].read_bytes()
    names = ["../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "-", "<img src=x>"]
    rows = pictures.predict_files([(names[0], b""), *((n, whole) for n in names[1:])]).json
    assert [row["input"] for row in rows] == names
    assert rows[0]["error"] == "an empty file (0 bytes)"
    assert len({row["confidence"] for row in rows[1:]}) == 1
    (row,) = pictures.predict_files([("bomb.png", bomb(20_000, 20_000))]).json
    assert "over the limit of 89,478,485" in row["error"]


def test_forms_that_are_no_pictures_are_refused(pictures: Served):
    whole = pictures_of("food", 0, 1)[0].read_bytes()
    boundary = {"content-type": "multipart/form-data"}
    cases = [
        (pictures.predict_files([]), 422, "holds no input"),
        (pictures.predict_files([("a", whole)] * 19), 413, "Maximum number of files is 8"),
        (pictures.predict_files([(None, b"text")]), 422, "a field without a file"),
        (asked(pictures.address, "POST", "/predict", b"--x", boundary), 400, "boundary"),
        (pictures.predict_texts(["a"]), 415, 'takes multipart/form-data with files in the field "files"'),
    ]
    for reply, status, said in cases:
        assert reply.status == status, reply
        assert said in reply.json["error"]


def test_an_interrupt_ends_it_and_what_is_under_way_is_answered(texts_model: Path):
    some = ["good " * 100] * 48
    with serving(texts_model, "--batch", "4") as served, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.predict_texts, some)
        until = time.monotonic() + 60
        while not (waiting := asked(served.address, "GET", "/health").json["waiting"]):
            assert time.monotonic() < until
        served.process.send_signal(signal.SIGINT)
        reply = answer.result(120)
        assert waiting > 0
        assert (reply.status, len(reply.json)) == (200, 48)
        assert all(row["error"] is None for row in reply.json)
        assert served.process.wait(60) == 0


@pytest.mark.filterwarnings("default::topgraft.errors.TopgraftWarning")
def test_a_host_that_others_reach_is_said(tmp_path: Path):
    outcome = called("serve", tmp_path / "none", "--host", "0.0.0.0", "--port", "0")
    assert (
        "Warning   0.0.0.0 can be reached from other machines, and there is no authentication" in outcome.err
    )
    assert outcome.err.splitlines()[-1].startswith("Error: ")
    assert "is not there" in outcome.err
    assert "Warning" not in called("serve", tmp_path / "none", "--port", "0").err


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = called("serve", tmp_path / "none", "--port", port)
    assert outcome.status == 2
    assert f"Port {port} of 127.0.0.1 can't be had" in outcome.err
    assert "--port 0" in outcome.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "65536"), "--port 65536 is out of range"),
        (("--port", "-1"), "--port -1 is out of range"),
        (("--host", "no.such.host.invalid"), "--host no.such.host.invalid is no address"),
        (("--max-body", "0"), "--max-body 0 is out of range"),
        (("--max-body", "nan"), "--max-body nan is out of range"),
        (("--max-seconds", "0"), "seconds 0 is out of range"),
        (("--batch", "0"), "batch 0 is out of range"),
        (("--max-inputs", "0"), "inputs 0 is out of range"),
        (("--max-inputs", "9", "--max-waiting", "8"), "waiting 8 is less than inputs 9"),
    ],
)
def test_what_can_not_be_meant_is_refused(tmp_path: Path, options: tuple[str, ...], said: str):
    outcome = called("serve", tmp_path / "none", *options)
    assert outcome.status == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_where_the_extra_is_missing_it_is_named(missing: str):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom topgraft.cli import main\nmain(['serve', 'none'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == (
        f"Error: `topgraft serve` needs {missing}, of an optional extra: pip install 'topgraft[serve]'.\n"
    )


@pytest.mark.exhaustive
def test_two_hundred_clients_lose_nothing_and_get_the_rows_of_predict(texts: Served, texts_model: Path):
    some = [
        Row(str(i), text)
        for i, (text, _) in enumerate(glosses_of(("animal", "food", "person", "artifact"), 50))
    ]
    found = load_of(open_model(texts_model), texts.address, some, clients=200, each=3)
    assert found.failures == ()
    assert found.requests == len(found.latencies) == 600
    assert 0 < found.latency(0.5) <= found.latency(0.95) <= max(found.latencies)
    assert found.apart <= 1e-6
