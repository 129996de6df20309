"""Models to serve, made in seconds, a service in a process of its own, and a client that needs no library."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import soundfile
from made_rows import as_read, table
from made_sounds import tone
from small_networks import graft_of

from topgraft.backbones import RowPreprocess, load
from topgraft.backbones.types import Backbone
from topgraft.data.columns import Rows
from topgraft.predict import Predictor
from topgraft.saved import Model, describe, save
from topgraft.serve.examples import Examples
from topgraft.serve.limits import Limits
from topgraft.serve.running import LOOPBACK, server_of, service_of

CLASSES = ("cat", "dog", '<b>épée</b> & "sword"')
SCORE = {"metric": "accuracy", "value": 0.875, "low": 0.8, "high": 0.9, "n": 64}
BOUNDARY = "a-line-that-no-picture-holds"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A service under way."""

    address: str
    told: dict[str, Any]
    process: subprocess.Popen[str]

    def predict_texts(self, texts: Any) -> Reply:
        return posted(self.address, {"texts": texts})

    def predict_files(self, files: Sequence[tuple[str | None, bytes]]) -> Reply:
        return asked(self.address, "POST", "/predict", form(files), FORM)


JSON = {"content-type": "application/json"}
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def asked(
    address: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request on a connection of its own."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())
    finally:
        connection.close()


def posted(address: str, document: Any, path: str = "/predict") -> Reply:
    """A request of JSON, for predictions or for more."""
    return asked(address, "POST", path, json.dumps(document), JSON)


def form(files: Sequence[tuple[str | None, bytes]], field: str = "files") -> bytes:
    """Files as a form sends them; one without a name is a plain field."""
    parts = []
    for name, content in files:
        told = "" if name is None else f'; filename="{name}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{told}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def rows_backbone() -> Backbone:
    """A network for the rows of ``made_rows``, of random values."""
    known = RowPreprocess.of(Rows.of(as_read(table(60).drop(columns=["bought", "spent"]))))
    return load("rows", preprocess=known)


def wav(instrument: str, number: int, **options: float) -> bytes:
    """A made sound as a file."""
    written = io.BytesIO()
    soundfile.write(written, tone(instrument, number, **options), 16_000, format="WAV")
    return written.getvalue()


def graft_model(backbone: Backbone, keep: int, freeze: int, classes: tuple[str, str, str] = CLASSES) -> Model:
    """A model in memory, its head of random weights."""
    graft = graft_of(backbone.chain, keep, freeze)
    told = describe(graft, backbone, classes=classes, columns={}, precision="fp32")
    return Model(graft, backbone.preprocess, classes, backbone.modality, {}, "torch", "fp32", told)


def pairs_model(backbone: Backbone) -> Model:
    """A model of pairs of texts."""
    model = graft_model(backbone, 2, 1)
    return replace(model, description={**model.description, "pairs": True})


def saved_graft(
    backbone: Backbone, folder: Path, keep: int, freeze: int, classes: tuple[str, str, str] = CLASSES
) -> Path:
    """The same as a fit saves it, with its score."""
    model = graft_model(backbone, keep, freeze, classes)
    folder.mkdir(parents=True)
    save(folder, model.graft, model.preprocess, model.description)
    (folder / "result.json").write_text(json.dumps({"score": SCORE}))
    return folder


@contextmanager
def in_thread(
    model: Model,
    limits: Limits | None = None,
    *,
    workers: int = 2,
    hosts: frozenset[str] | None = LOOPBACK,
    examples: Callable[[Predictor], Examples] | None = None,
) -> Iterator[str]:
    """The address of a service in a thread of this process; it must end when it is told to."""
    predictor = Predictor(model)
    service = service_of(
        predictor,
        name="small.topgraft",
        score=SCORE,
        limits=limits or Limits(),
        hosts=hosts,
        workers=workers,
        examples=None if examples is None else examples(predictor),
    )
    server = server_of(service)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
        assert not thread.is_alive()


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Served]:
    """``topgraft serve`` in a process of its own, which must end well when it is told to."""
    command = [sys.executable, "-m", "topgraft", "serve", str(model), "--port", "0", "--json"]
    command += ["--max-seconds", "300", *options]  # cores may be busy with other tests
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            told = json.loads(line)
            yield Served(told["address"], told, process)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            rest, said = process.communicate(timeout=60)
            assert (process.returncode, rest) == (0, ""), said
            assert "Traceback" not in said, said
            assert "Ended" in said
        finally:
            process.kill()


def assert_same(
    found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]], apart: float = 1e-6
) -> None:
    """The same columns in the same order with the same texts, and numbers that differ by no more."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            assert one[name] == (pytest.approx(value, abs=apart) if isinstance(value, float) else value)
