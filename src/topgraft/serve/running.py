"""Opening a port and serving until somebody ends it."""

from __future__ import annotations

import ipaddress
import json
import math
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from topgraft.console import Console, counted, percent, size
from topgraft.errors import RunningError, TopgraftError, TopgraftWarning
from topgraft.serve.limits import Limits

if TYPE_CHECKING:
    from uvicorn import Server

    from topgraft.data.unlabelled import Row
    from topgraft.predict import Predictor
    from topgraft.saved import Model
    from topgraft.serve.app import Service
    from topgraft.serve.batching import Batcher
    from topgraft.serve.examples import Examples

Result = TypeVar("Result")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
BACKLOG = 1024
"""Connections that may wait to be taken, and connections at the same time."""
UNREADABLE = 0.05
"""Share of the examples that may be unusable, as for ``fit``."""
GRACE = 5
"""Seconds beyond a request's own limit that the end waits for requests under way."""


def run_serve(
    folder: Path,
    *,
    host: str,
    port: int,
    limits: Limits,
    trust_code: bool,
    as_json: bool,
    console: Console,
    examples: str | None = None,
    columns: Mapping[str, str | None] | None = None,
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
    examples
        Data whose nearest examples are shown, as ``fit`` reads them.
    columns
        Of these data, by ``text``, ``label`` and ``path``, where they are not those of the fit.

    Raises
    ------
    TopgraftError
        If the extra ``serve`` is not installed, the model can't be opened, it takes sounds and their reader
        is not installed, the examples can't be read or held, or the port can't be had.
    """
    _must_be_installed()
    from topgraft.data.sounds import reader
    from topgraft.predict import Predictor
    from topgraft.saved import open_model
    from topgraft.serve.app import told_of
    from topgraft.side_by_side import single_threaded

    with _listening(host, port) as listener:
        model = open_model(folder, trust_code=trust_code)
        if model.modality == "sound":
            reader()
        predictor = Predictor(model)
        held = None if examples is None else _held(predictor, examples, columns or {}, console)
        warm_up(predictor)
        name, score = folder.resolve().name, score_of(folder)
        with single_threaded() as cores:
            service = service_of(
                predictor,
                name=name,
                score=score,
                limits=limits,
                hosts=hosts_of(host),
                workers=cores,
                examples=held,
            )
            server = server_of(service)
            listener.listen(BACKLOG)
            at = address(listener)
            if as_json:
                told = asdict(told_of(service))
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
    examples: Examples | None = None,
) -> Service:
    """A model with the threads that run it: what is more than predictions is done by one thread each."""
    from topgraft.looking import Looker
    from topgraft.serve.app import Service
    from topgraft.serve.batching import Batcher
    from topgraft.serve.examples import Nearest
    from topgraft.serve.looks import MOST, Looks
    from topgraft.serve.metrics import Metrics

    metrics, is_sound = Metrics(), predictor.model.modality == "sound"

    def batcher(
        work: Callable[[list[Row]], Sequence[Result]], threads: int, most: int
    ) -> Batcher[Row, Result]:
        return Batcher(
            work,
            workers=threads,
            most=most,
            heaviest=limits.sound if is_sound else limits.pixels,
            is_padded=is_sound,
            waiting=limits.waiting,
            seen=metrics.batches.observe,
        )

    looked, why = None, ""
    try:
        looks = Looks(predictor, Looker(predictor.model))
        looked = batcher(looks.batch, min(1, workers), min(MOST, limits.batch))
    except TopgraftError as error:
        why = str(error)
    return Service(
        model=predictor.model,
        name=name,
        score=score,
        batcher=batcher(predictor.batch, workers, limits.batch),
        limits=limits,
        metrics=metrics,
        hosts=hosts,
        examples=examples,
        nearest=None
        if examples is None
        else batcher(Nearest(predictor, examples).batch, min(1, workers), limits.batch),
        looked=looked,
        not_looked=why,
    )


def _held(predictor: Predictor, source: str, columns: Mapping[str, str | None], console: Console) -> Examples:
    """Read the examples and hold them, and say so."""
    from topgraft.features.store import Store
    from topgraft.labelled import data_for
    from topgraft.serve.examples import NEAREST, examples_of
    from topgraft.show import data_lines

    data, notes = data_for(predictor.model, source, columns, max_unreadable=UNREADABLE)
    data_lines(console, data)
    for note in notes:
        console.line("Columns", note)
    with console.progress("Examples", len(data)) as advance:
        examples = examples_of(predictor, data, Store(), advance=advance)
    held = f"{counted(len(examples), 'example')} in {size(examples.held)} of memory"
    console.line("Examples", f"{held}; the {NEAREST} nearest of each input are shown")
    return examples


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
    import numpy as np
    from PIL import Image

    from topgraft.data.pairs import pair_of
    from topgraft.data.sounds import Sound
    from topgraft.data.unlabelled import Row

    known: dict[str, Any] = {
        "text": pair_of("a text", "another") if predictor.model.takes_pairs else "a text",
        "picture": Image.new("RGB", (64, 64)),
        "sound": Sound(np.zeros(16_000, dtype=np.float32), 16_000),
        "row": {},
    }
    first = known.get(predictor.model.modality)
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
