"""Models to serve, made in seconds, a service in a process of its own, and a client that needs no library."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from small_networks import graft_of

from topgraft.backbones.types import Backbone
from topgraft.saved import describe, save

CLASSES = ("cat", "dog", '<b>épée</b> & "sword"')
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

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return asked(self.address, method, path, body, headers)

    def predict_texts(self, texts: Any) -> Reply:
        return self.ask("POST", "/predict", json.dumps({"texts": texts}), JSON)

    def predict_files(self, files: Sequence[tuple[str | None, bytes]], field: str = "files") -> Reply:
        return self.ask("POST", "/predict", form(files, field), FORM)


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


def form(files: Sequence[tuple[str | None, bytes]], field: str = "files") -> bytes:
    """Files as a form sends them; one without a name is a plain field."""
    parts = []
    for name, content in files:
        told = "" if name is None else f'; filename="{name}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{told}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def saved_graft(
    backbone: Backbone, folder: Path, keep: int, freeze: int, classes: Sequence[str] = CLASSES
) -> Path:
    """A graft of real weights with a head of random ones, as a fit saves it."""
    graft = graft_of(backbone.chain, keep, freeze)
    folder.mkdir(parents=True)
    described = describe(graft, backbone, classes=classes, columns={}, precision="fp32")
    save(folder, graft, backbone.preprocess, described)
    score = {"metric": "accuracy", "value": 0.875, "low": 0.8, "high": 0.9, "n": 64}
    (folder / "result.json").write_text(json.dumps({"score": score}))
    return folder


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Served]:
    """``topgraft serve`` in a process of its own, which must end well when it is told to."""
    command = [sys.executable, "-m", "topgraft", "serve", str(model), "--port", "0", "--json", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            while lines[-1] not in ("}\n", ""):
                lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read() if process.stderr else ""
            told = json.loads("".join(lines))
            yield Served(told["address"], told, process)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            rest, said = process.communicate(timeout=60)
            assert (process.returncode, rest) == (0, ""), said
            assert "Traceback" not in said, said
            assert "Ended" in said
        finally:
            process.kill()
