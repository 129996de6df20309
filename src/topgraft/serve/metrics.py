"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from topgraft.serve.guard import App, Message, Receive, Scope, Send

PATHS = (
    "/",
    "/page.css",
    "/answers.js",
    "/inputs.js",
    "/more.js",
    "/page.js",
    "/predict",
    "/nearest",
    "/looked",
    "/examples",
    "/health",
    "/metrics",
    "/model",
    "/openapi.json",
)
"""Told apart; all others are counted together, so that nobody can make up new ones."""
METHODS = ("GET", "POST", "HEAD", "OPTIONS")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Requests, inputs and batches.

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.answered(ok=3, failed=1)
    >>> [line for line in metrics.text().decode().splitlines() if line.startswith("topgraft_inputs_total")]
    ['topgraft_inputs_total{outcome="predicted"} 3.0', 'topgraft_inputs_total{outcome="error"} 1.0']
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "topgraft_requests",
            "Requests that were answered.",
            ("path", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "topgraft_request_seconds",
            "From the first byte of a request to its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.inputs = Counter(
            "topgraft_inputs", "Inputs that were answered.", ("outcome",), registry=self.registry
        )
        self.batches = Histogram(
            "topgraft_batch_inputs",
            "Inputs that were run as one batch.",
            buckets=SIZES,
            registry=self.registry,
        )
        self.waiting = Gauge("topgraft_waiting_inputs", "Inputs that wait.", registry=self.registry)

    def watch(self, waiting: Callable[[], float]) -> None:
        """Ask how many wait whenever somebody wants to know."""
        self.waiting.set_function(waiting)

    def answered(self, *, ok: int, failed: int) -> None:
        """Count the rows of a reply."""
        self.inputs.labels("predicted").inc(ok)
        self.inputs.labels("error").inc(failed)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class Counting:
    """Counts each request with the status of its answer.

    Parameters
    ----------
    app
        What answers.
    metrics
        Where it is counted.
    """

    def __init__(self, app: App, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        asked = "/examples" if scope["path"].startswith("/examples/") else scope["path"]
        path = asked if asked in PATHS else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        try:
            await self.app(scope, receive, sending)
        finally:
            self.metrics.requests.labels(path, method, status).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - began)
