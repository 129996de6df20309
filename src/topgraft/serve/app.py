"""The application: what is asked for, and what is answered."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

import topgraft
from topgraft.data.unlabelled import Row
from topgraft.looking import Looked
from topgraft.predict import Prediction
from topgraft.saved import Model
from topgraft.serve.asking import Given, answers, given
from topgraft.serve.batching import Batcher
from topgraft.serve.described import (
    NOTES,
    Health,
    ServedModel,
    described,
    looked_schema,
    nearest_schema,
    predict_schema,
)
from topgraft.serve.examples import ADVICE, Examples, Near
from topgraft.serve.guard import Guard
from topgraft.serve.inputs import Refused
from topgraft.serve.limits import Limits
from topgraft.serve.looks import told
from topgraft.serve.metrics import Counting, Metrics

PARTS = {
    "page.css": "text/css",
    **dict.fromkeys(("answers.js", "inputs.js", "more.js", "page.js"), "text/javascript"),
}
"""Of the page, beside ``page.html``."""


@dataclass(frozen=True)
class Service:
    """A model that is served.

    Parameters
    ----------
    model
        The opened graft.
    name
        Of the model, as people see it.
    score
        What the fit said of it, if it is known.
    batcher
        Where rows wait for their predictions.
    limits, metrics
        What is refused, and what is counted.
    hosts
        Names by which it may be asked, or nothing for any.
    examples, nearest
        What inputs are compared with, and where they wait for it; nothing where there are no examples.
    looked
        Where pictures wait to be told where the model looked; nothing where it can't be told.
    not_looked
        Why not.
    """

    model: Model
    name: str
    score: dict[str, Any] | None
    batcher: Batcher[Row, Prediction]
    limits: Limits
    metrics: Metrics
    hosts: frozenset[str] | None = None
    examples: Examples | None = None
    nearest: Batcher[Row, list[Near] | str] | None = None
    looked: Batcher[Row, Looked | str] | None = None
    not_looked: str = ""

    @property
    def batchers(self) -> list[Batcher[Row, Any]]:
        """All that inputs may wait in."""
        return [one for one in (self.batcher, self.nearest, self.looked) if one is not None]

    @property
    def waiting(self) -> int:
        """Inputs that wait."""
        return sum(map(len, self.batchers))


def app_of(service: Service) -> FastAPI:
    """The application; it closes the service's batchers when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for batcher in service.batchers:
            await run_in_threadpool(batcher.close)

    app = FastAPI(
        title=f"Topgraft: {service.name}",
        version=topgraft.__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load their programs from elsewhere
        redoc_url=None,
        exception_handlers={Refused: _refused, 500: _failed, **dict.fromkeys((400, 404, 405), _said)},
    )
    app.add_middleware(Guard, limits=service.limits, hosts=service.hosts)
    app.add_middleware(Counting, metrics=service.metrics)
    service.metrics.watch(lambda: service.waiting)
    _add_page(app)
    _add_told(app, service)
    one_at_a_time = asyncio.Lock()
    _add_nearest(app, service, one_at_a_time)
    _add_looked(app, service, one_at_a_time)

    @app.post("/predict", openapi_extra=predict_schema(service.model, service.limits))
    async def predict(request: Request) -> Response:
        """Label and probabilities, or numbers, of each input in order: the rows of `predict --json`."""
        sent = await given(request, service.model, service.limits, one_at_a_time)
        answered = await answers(service.batcher, sent.rows, service.model, service.limits)
        found = [_prediction(row, one) for row, one in zip(sent.rows, answered, strict=True)]
        return _rows([p.row(service.model.classes, service.model.outputs) for p in found], sent, service)

    return app


def _add_nearest(app: FastAPI, service: Service, one_at_a_time: asyncio.Lock) -> None:
    """The examples that are nearest to an input, where there are some."""
    examples, batcher = service.examples, service.nearest
    schema = nearest_schema(service.model, service.limits)

    @app.post("/nearest", openapi_extra=schema, include_in_schema=batcher is not None)
    async def nearest(request: Request) -> Response:
        """The nearest examples of the training data of each input, in order, nearest first."""
        if examples is None or batcher is None:
            raise Refused(404, ADVICE)
        sent = await given(request, service.model, service.limits, one_at_a_time)
        found = await answers(batcher, sent.rows, service.model, service.limits)
        rows = [_near_row(row, near, examples) for row, near in zip(sent.rows, found, strict=True)]
        return _rows(rows, sent, service)

    @app.get("/examples/{index}", include_in_schema=False)
    async def example(index: str) -> Response:
        """A small picture, by its number: no file is looked up."""
        pictures = examples.pictures if examples is not None else ()
        at = int(index) if index.isascii() and index.isdecimal() and len(index) < 10 else len(pictures)
        if at >= len(pictures):
            raise Refused(404, f"There is no picture {index:.20}; {len(pictures):,} are held.")
        return Response(pictures[at], media_type="image/webp")


def _add_looked(app: FastAPI, service: Service, one_at_a_time: asyncio.Lock) -> None:
    """Where in a picture the model looked, where that can be told."""
    batcher = service.looked
    schema = looked_schema(service.model, service.limits)

    @app.post("/looked", openapi_extra=schema, include_in_schema=batcher is not None)
    async def looked(request: Request) -> Response:
        """What speaks for the predicted class, as a map over what the network saw of each picture."""
        if batcher is None:
            raise Refused(404, service.not_looked)
        sent = await given(request, service.model, service.limits, one_at_a_time)
        found = await answers(batcher, sent.rows, service.model, service.limits)
        rows = [_looked_row(row, one) for row, one in zip(sent.rows, found, strict=True)]
        return _rows(rows, sent, service)


def _near_row(row: Row, near: list[Near] | str, examples: Examples) -> dict[str, Any]:
    if isinstance(near, str):
        return {"input": row.name, "nearest": [], "error": near}
    return {"input": row.name, "nearest": [examples.shown(one) for one in near], "error": None}


def _looked_row(row: Row, looked: Looked | str) -> dict[str, Any]:
    if isinstance(looked, str):
        return {"input": row.name, "of": None, "map": [], "seen": None, "where": None, "error": looked}
    return {"input": row.name, **told(looked), "error": None}


def _rows(rows: Sequence[Mapping[str, Any]], sent: Given, service: Service) -> Response:
    """The reply; what is to be told of columns stands in a header, since rows are those of ``predict``."""
    failed = sum(row["error"] is not None for row in rows)
    service.metrics.answered(ok=len(rows) - failed, failed=failed)
    return JSONResponse(rows, headers={NOTES: json.dumps(sent.notes)} if sent.notes else None)


def _add_page(app: FastAPI) -> None:
    """The page and its parts, from the package."""
    place = files("topgraft.serve")
    parts = {"": ("page.html", "text/html"), **{name: (name, form) for name, form in PARTS.items()}}
    for path, (name, form) in parts.items():
        part = _part(place.joinpath(name).read_bytes(), form)
        app.add_api_route(f"/{path}", part, methods=["GET"], include_in_schema=False)


def _part(content: bytes, form: str) -> Callable[[], Awaitable[Response]]:
    async def part() -> Response:
        return Response(content, media_type=form)

    return part


def _add_told(app: FastAPI, service: Service) -> None:
    """What the service says of itself."""

    @app.get("/health")
    async def health() -> Health:
        """Whether it answers, and how many inputs wait."""
        return Health(status="ok", waiting=service.waiting)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Requests, inputs and batches, in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model")
    async def model() -> ServedModel:
        """What the model tells apart, and how it was made."""
        return told_of(service)


def _prediction(row: Row, found: Prediction | str) -> Prediction:
    """A prediction, or the error of an input on which the model can't be run."""
    if isinstance(found, str):
        return Prediction(row.name, None, None, (), found)
    if not all(math.isfinite(number) for number in (*found.probabilities, *found.values)):
        return Prediction(row.name, None, None, (), "the network gives something that is not a number")
    return found


def told_of(service: Service) -> ServedModel:
    """What a service tells of its model."""
    return described(
        service.model,
        service.name,
        service.score,
        service.limits,
        examples=len(service.examples) if service.examples is not None else 0,
        not_looked=service.not_looked,
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"error": error.message}, error.status, headers)


async def _said(request: Request, error: Exception) -> Response:
    """What the framework refused, in the form of our own refusals."""
    status, detail = getattr(error, "status_code", 400), getattr(error, "detail", str(error))
    if status in (404, 405):
        known = "GET /, /model, /health, /metrics, /openapi.json; POST /predict, /nearest, /looked"
        detail = f"{request.method} {request.url.path:.80} is not there. Expected one of: {known}."
    if str(detail).startswith("Too many files"):
        status = 413
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": detail}, status, dict(headers or {}))


async def _failed(_: Request, __: Exception) -> Response:
    """Nothing that the sender can mend; the service's own output has the traceback."""
    return JSONResponse({"error": "The service failed at this request; its own output says more."}, 500)
