"""The application: what is asked for, and what is answered."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

import topgraft
from topgraft.data.unlabelled import Row
from topgraft.errors import RunningError, TopgraftError
from topgraft.predict import Prediction
from topgraft.saved import Model
from topgraft.serve.batching import Batcher, Closed, Full
from topgraft.serve.described import Health, ServedModel, described, predict_schema
from topgraft.serve.guard import SOON, Guard
from topgraft.serve.inputs import FIELD, KEYS, Refused, picture_row, refuse_count, rows_of_json, weights
from topgraft.serve.limits import Limits
from topgraft.serve.metrics import Counting, Metrics

Result = TypeVar("Result")
SMALL = 65_536
"""Bytes of a body that is read at once, without a thread for it."""
PARTS = {"page.css": "text/css", "page.js": "text/javascript"}
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
    """

    model: Model
    name: str
    score: dict[str, Any] | None
    batcher: Batcher[Row, Prediction]
    limits: Limits
    metrics: Metrics
    hosts: frozenset[str] | None = None


def app_of(service: Service) -> FastAPI:
    """The application; it closes the service's batcher when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.batcher.close)

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
    service.metrics.watch(lambda: len(service.batcher))
    _add_page(app)
    _add_told(app, service)
    one_at_a_time = asyncio.Lock()

    @app.post("/predict", openapi_extra=predict_schema(service.model, service.limits))
    async def predict(request: Request) -> Response:
        """Label and probabilities, or numbers, of each input in order: the rows of `predict --json`."""
        limits = service.limits
        rows = await _within(
            limits.seconds,
            _rows(request, service.model.modality, limits, one_at_a_time),
            Refused(408, f"The request was not read within {limits.seconds:g} s."),
        )
        found = await _predictions(service, rows)
        failed = sum(p.error is not None for p in found)
        service.metrics.answered(ok=len(found) - failed, failed=failed)
        return JSONResponse([p.row(service.model.classes, service.model.outputs) for p in found])

    return app


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
        return Health(status="ok", waiting=len(service.batcher))

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Requests, inputs and batches, in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model")
    async def model() -> ServedModel:
        """What the model tells apart, and how it was made."""
        return described(service.model, service.name, service.score, service.limits)


async def _rows(request: Request, modality: str, limits: Limits, one_at_a_time: asyncio.Lock) -> list[Row]:
    """What is to be predicted, from the body."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    expected = "multipart/form-data" if modality == "picture" else "application/json"
    if given != expected:
        how = f'files in the field "{FIELD}"' if modality == "picture" else f'{{"{KEYS[modality]}": [...]}}'
        raise Refused(415, f"This model takes {expected} with {how}, not {given or 'a body without a type'}.")
    if modality == "picture":
        return await _pictures(request, limits)
    body = await request.body()
    if len(body) <= SMALL:
        return rows_of_json(body, modality, most=limits.inputs)
    async with one_at_a_time:  # lists of JSON take many times the memory of their text
        return await run_in_threadpool(rows_of_json, body, modality, most=limits.inputs)


async def _pictures(request: Request, limits: Limits) -> list[Row]:
    async with request.form(max_files=limits.inputs, max_fields=1) as form:
        parts = form.multi_items()
        for field, part in parts:
            if field != FIELD or isinstance(part, str):
                what = "a field without a file" if isinstance(part, str) else "a file in the field"
                raise Refused(422, f'Expected files in the field "{FIELD}", got {what} "{field:.80}".')
        refuse_count(len(parts), limits.inputs)
        return [
            picture_row(part.filename, await part.read(), i)
            for i, (_, part) in enumerate(parts)
            if not isinstance(part, str)
        ]


async def _predictions(service: Service, rows: Sequence[Row]) -> list[Prediction]:
    """What the model says of each row, as soon as its turn has come."""
    limits = service.limits
    busy = Refused(503, "Too many inputs wait already. Try again.", retry_after=SOON)
    known = await run_in_threadpool(weights, rows) if service.model.modality == "picture" else weights(rows)
    try:
        answers = service.batcher.submit(known)
    except Full:
        raise busy from None
    except Closed:
        raise Refused(503, "The service is ending.", retry_after=SOON) from None
    late = Refused(504, f"There was no answer within {limits.seconds:g} s.", retry_after=SOON)
    found = await _within(limits.seconds, _all(answers), late)
    return [_prediction(row, one, service.model.modality) for row, one in zip(rows, found, strict=True)]


async def _all(answers: Sequence[Future[Prediction]]) -> list[Prediction | BaseException]:
    return await asyncio.gather(*map(asyncio.wrap_future, answers), return_exceptions=True)


def _prediction(row: Row, found: Prediction | BaseException, modality: str) -> Prediction:
    """A prediction, or the error of an input on which the model can't be run; else the failure is raised."""
    if isinstance(found, Prediction):
        if not all(math.isfinite(number) for number in (*found.probabilities, *found.values)):
            return Prediction(row.name, None, None, (), "the network gives something that is not a number")
        return found
    # Which shapes of arrays a network takes only the network knows, and it says so in many ways.
    of_input = (TopgraftError, ValueError, RuntimeError) if modality == "array" else TopgraftError
    if isinstance(found, of_input) and not isinstance(found, RunningError):
        said = " ".join(str(found).split())
        return Prediction(row.name, None, None, (), f"can't be run: {said:.200}")
    raise found


async def _within(seconds: float, work: Awaitable[Result], otherwise: Refused) -> Result:
    """The result of ``work``, if it comes in time."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        raise otherwise from None


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"error": error.message}, error.status, headers)


async def _said(request: Request, error: Exception) -> Response:
    """What the framework refused, in the form of our own refusals."""
    status, detail = getattr(error, "status_code", 400), getattr(error, "detail", str(error))
    if status in (404, 405):
        known = "GET /, /model, /health, /metrics, /openapi.json; POST /predict"
        detail = f"{request.method} {request.url.path:.80} is not there. Expected one of: {known}."
    if str(detail).startswith("Too many files"):
        status = 413
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": detail}, status, dict(headers or {}))


async def _failed(_: Request, __: Exception) -> Response:
    """Nothing that the sender can mend; the service's own output has the traceback."""
    return JSONResponse({"error": "The service failed at this request; its own output says more."}, 500)
