"""`topgraft serve` under many clients at once, beside `predict` on the same inputs.

    python benchmarks/serve_load.py MODEL INPUTS [--clients 200] [--each 5]

INPUTS is what `topgraft predict` takes: pictures, a folder of them, or a table of texts. Each client asks for
one input after another on a connection of its own. Every reply is compared with predict's row for that input.
The clients run on the same machine, so that their own work is part of what the service seems to cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topgraft.data.unlabelled import Row, rows
from topgraft.predict import Predictor
from topgraft.saved import Model, open_model

BOUNDARY = "a-line-that-no-picture-holds"
BATCHES = (32, 7)
"""Predict's batch, and another: how far its own rows are apart is what a reply's may be, twice."""


@dataclass(frozen=True)
class Load:
    """What was measured."""

    requests: int
    predict_seconds: float
    serve_seconds: float
    latencies: tuple[float, ...]
    failures: tuple[str, ...]
    apart: float
    own: float

    @property
    def share(self) -> float:
        """Throughput of the service over that of predict."""
        return self.predict_seconds / self.serve_seconds

    def latency(self, share: float) -> float:
        """Seconds within which so large a share of the requests was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def lines(self) -> list[str]:
        """All of it in words."""
        before, after = (self.requests / seconds for seconds in (self.predict_seconds, self.serve_seconds))
        median, late = self.latency(0.5), self.latency(0.95)
        return [
            f"{self.requests} requests, {len(self.failures)} failed or unequal",
            f"probabilities differ from predict's by at most {self.apart:.1e}",
            f"predict's own differ by {self.own:.1e} between batches of {BATCHES[0]} and of {BATCHES[1]}",
            f"inputs a second: predict {before:.1f}, serve {after:.1f} ({self.share:.2f} of it)",
            f"time to an answer: median {median:.2f} s, 95th percentile {late:.2f} s",
            *self.failures[:5],
        ]


def load(model: Model, address: str, inputs: Sequence[Row], *, clients: int, each: int) -> Load:
    """Predict so many inputs, then let the clients ask for the same."""
    asked = [inputs[i % len(inputs)] for i in range(clients * each)]
    predictor = Predictor(model)
    list(predictor.predict(asked[:64]))
    began = time.monotonic()
    known = [p.row(model.classes) for p in predictor.predict(asked, batch_size=BATCHES[0])]
    predict_seconds = time.monotonic() - began
    again = [p.row(model.classes) for p in predictor.predict(inputs, batch_size=BATCHES[1])]
    own = max(apart_by(one, two) for one, two in zip(known, again, strict=False))
    requests = [request(row, model.modality) for row in asked]
    began = time.monotonic()
    replies = asyncio.run(everybody(address, requests, clients))
    serve_seconds = time.monotonic() - began
    failures, apart = [], 0.0
    for (_, body), wanted in zip(replies, known, strict=True):
        problem, gap = compared(body, wanted, max(1e-6, 2 * own))
        apart = max(apart, gap)
        failures += [problem] if problem else []
    return Load(
        len(asked), predict_seconds, serve_seconds, tuple(s for s, _ in replies), tuple(failures), apart, own
    )


def apart_by(one: dict[str, Any], two: dict[str, Any]) -> float:
    """By how much two rows differ in a number at most."""
    return max(abs(one[name] - value) for name, value in two.items() if isinstance(value, float))


def compared(body: str, wanted: dict[str, Any], most: float) -> tuple[str, float]:
    """What is wrong with a reply, and how far its numbers are off."""
    try:
        (row,) = json.loads(body)
    except ValueError:
        return body[:200], 0.0
    if not isinstance(row, dict) or list(row) != list(wanted):
        return body[:200], 0.0
    gap = apart_by(row, wanted)
    texts = [n for n, v in wanted.items() if not isinstance(v, float) and n != "input"]
    wrong = gap > most or any(row[n] != wanted[n] for n in texts)
    return (f"{wanted['input']}: {body[:200]}" if wrong else ""), gap


def request(row: Row, modality: str) -> bytes:
    """The bytes of a request for one input."""
    if modality == "picture":
        content = row.value if isinstance(row.value, bytes) else Path(str(row.value)).read_bytes()
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{row.name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    else:
        body, kind = json.dumps({"texts": [row.value]}).encode(), "application/json"
    told = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{told}".encode() + body


async def everybody(address: str, requests: Sequence[bytes], clients: int) -> list[tuple[float, str]]:
    """Seconds and body of each reply, in the order of the requests."""
    replies: list[tuple[float, str]] = [(0.0, "no answer")] * len(requests)
    place = urlsplit(address)

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for i in range(number, len(requests), clients):
            began = time.monotonic()
            writer.write(requests[i])
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].split()[0])
            body = (await reader.readexactly(length)).decode()
            replies[i] = (time.monotonic() - began, body)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return replies


def main() -> None:
    """Start the service, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--each", type=int, default=5)
    given = parser.parse_args()
    model = open_model(given.model)
    modality: Any = model.modality
    inputs = [row for row in rows(given.inputs, modality=modality) if row.error is None]
    command = [sys.executable, "-m", "topgraft", "serve", str(given.model), "--port", "0", "--json", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            address = json.loads(service.stdout.readline())["address"]
            print("\n".join(load(model, address, inputs, clients=given.clients, each=given.each).lines()))
        finally:
            service.terminate()


if __name__ == "__main__":
    main()
