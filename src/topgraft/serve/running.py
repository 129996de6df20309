"""Opening a port and serving until somebody ends it."""

from __future__ import annotations

import ipaddress
import json
import math
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from topgraft.console import Console, percent
from topgraft.errors import RunningError, TopgraftError, TopgraftWarning
from topgraft.serve.limits import Limits

if TYPE_CHECKING:
    from uvicorn import Server

    from topgraft.predict import Predictor
    from topgraft.saved import Model
    from topgraft.serve.app import Service

SERVED = ("picture", "text", "array")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
BACKLOG = 1024
"""Connections that may wait to be taken, and connections at the same time."""
GRACE = 5
"""Seconds beyond a request's own limit that the end waits for requests under way."""


def run_serve(
    folder: Path, *, host: str, port: int, limits: Limits, trust_code: bool, as_json: bool, console: Console
) -> None:
    """Serve a saved model until the process is interrupted or told to end.

    Parameters
    ----------
    folder
        What ``fit -o`` wrote.
    host, port
        Where to listen; port 0 takes one that is free.
    limits
        What is refused.
    trust_code
        Whether the function that made one's own network may be run.
    as_json
        Whether the address and the model are told as one line of JSON, once the service answers.
    console
        Where people read it.

    Raises
    ------
    TopgraftError
        If the extra ``serve`` is not installed, the model can't be opened or takes sounds, or the port can't
        be had.
    """
    _must_be_installed()
    from topgraft.predict import Predictor
    from topgraft.saved import open_model
    from topgraft.serve.described import described
    from topgraft.side_by_side import single_threaded

    with _listening(host, port) as listener:
        model = open_model(folder, trust_code=trust_code)
        if model.modality not in SERVED:
            raise TopgraftError(
                f"{folder} takes {model.modality}s; served are pictures, texts and arrays so far. "
                f"`topgraft predict {folder} ...` takes {model.modality}s."
            )
        predictor = Predictor(model)
        warm_up(predictor)
        name, score = folder.resolve().name, score_of(folder)
        with single_threaded() as cores:
            service = service_of(
                predictor, name=name, score=score, limits=limits, hosts=hosts_of(host), workers=cores
            )
            server = server_of(service)
            listener.listen(BACKLOG)
            at = address(listener)
            if as_json:
                told = asdict(described(predictor.model, name, score, limits))
                line = json.dumps({"address": at, "model": told}, ensure_ascii=False, allow_nan=False)
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
            _say(console, predictor.model, name, score, at)
            with _ending(server):
                server.run(sockets=[listener])
    if not server.started:
        raise RunningError("The service could not be started.")
    how = "at once, whatever was under way" if server.force_exit else "requests under way were answered"
    console.line("Ended", how)


def service_of(
    predictor: Predictor,
    *,
    name: str,
    score: dict[str, Any] | None,
    limits: Limits,
    hosts: frozenset[str] | None,
    workers: int,
) -> Service:
    """A model with the threads that run it."""
    from topgraft.serve.app import Service
    from topgraft.serve.batching import Batcher
    from topgraft.serve.metrics import Metrics

    metrics = Metrics()
    batcher = Batcher(
        predictor.batch,
        workers=workers,
        most=limits.batch,
        heaviest=limits.pixels,
        waiting=limits.waiting,
        seen=metrics.batches.observe,
    )
    return Service(predictor.model, name, score, batcher, limits, metrics, hosts)


def server_of(service: Service) -> Server:
    """What speaks HTTP; it answers requests under way before it ends."""
    from uvicorn import Config, Server

    from topgraft.serve.app import app_of

    config = Config(
        app_of(service),
        log_level="warning",
        access_log=False,
        lifespan="on",
        backlog=BACKLOG,
        limit_concurrency=BACKLOG,
        timeout_graceful_shutdown=math.ceil(2 * service.limits.seconds) + GRACE,
        server_header=False,
    )
    return Server(config)


def score_of(folder: Path) -> dict[str, Any] | None:
    """The score that the fit wrote beside the model, or nothing."""
    from topgraft.files import read_json

    place = folder / "result.json"
    found = read_json(place) if place.is_file() else None
    score = found.get("score") if isinstance(found, dict) else None
    return score if isinstance(score, dict) and {"metric", "value", "n"} <= score.keys() else None


def hosts_of(host: str) -> frozenset[str] | None:
    """Names by which the service may be asked: on one's own machine only those of this machine.

    Examples
    --------
    >>> sorted(hosts_of("127.0.0.1")), hosts_of("0.0.0.0")
    (['127.0.0.1', '::1', 'localhost'], None)
    """
    return LOOPBACK | {host.lower()} if is_loopback(host) else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def address(listener: socket.socket) -> str:
    """Where a browser finds what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warm_up(predictor: Predictor) -> None:
    """Run one input, so that nobody waits for the conversion of a network; arrays have no usual shape."""
    from PIL import Image

    from topgraft.data.pairs import pair_of
    from topgraft.data.unlabelled import Row

    text = pair_of("a text", "another") if predictor.model.takes_pairs else "a text"
    first = {"text": text, "picture": Image.new("RGB", (64, 64))}.get(predictor.model.modality)
    if first is not None:
        predictor.batch([Row("0", first)])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A port that is taken; nothing is listened to yet."""
    if not 0 <= port <= 65_535:
        raise TopgraftError(f"--port {port} is out of range: give 1 to 65535, or 0 for one that is free.")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise TopgraftError(
            f"--host {host} is no address of this machine ({getattr(error, 'strerror', None) or error}). "
            "Expected 127.0.0.1, or the address of one of its networks."
        ) from None
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except OSError as error:
            raise TopgraftError(
                f"Port {port} of {host} can't be had ({error.strerror}). "
                "Give another (--port), or --port 0 for one that is free."
            ) from None
        if not is_loopback(host):
            warnings.warn(
                f"{host} can be reached from other machines, and there is no authentication: whoever reaches "
                "it can use the model. Without --host only this machine can.",
                TopgraftWarning,
                stacklevel=3,
            )
        yield listener


@contextmanager
def _ending(server: Server) -> Iterator[None]:
    """An interrupt or a request to end is no failure: the server answers what is under way and ends."""

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(console: Console, model: Model, name: str, score: dict[str, Any] | None, at: str) -> None:
    classes = ", ".join(model.classes[:8]) + (", …" if len(model.classes) > 8 else "")
    kind = "with" if model.separator else "in"
    what = "labels" if model.separator else "classes"
    does = f"{model.modality}s {kind} {len(model.classes):,} {what} ({classes})"
    if model.outputs:
        does = f"{', '.join(model.outputs)} of {model.modality}s"
    told = [f"{name}: {does}"]
    if score is not None:
        told.append(f"{score['metric']} {percent(score['value'], 1)} on {score['n']} held-out examples")
    console.line("Model", *told)
    console.line("Serving", f"{at} (Ctrl-C ends it)")


def _must_be_installed() -> None:
    """Refuse early where the extra is missing.

    Raises
    ------
    TopgraftError
        If it is.
    """
    try:
        import_module("fastapi")
        import_module("prometheus_client")
        import_module("python_multipart")
        import_module("uvicorn")
    except ModuleNotFoundError as error:
        raise TopgraftError(
            f"`topgraft serve` needs {error.name}, of an optional extra: pip install 'topgraft[serve]'."
        ) from None
