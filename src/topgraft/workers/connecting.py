"""A Ray cluster joined, or started on this machine; needs the extra ``topgraft[ray]``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch

from topgraft.errors import RunningError, TopgraftError
from topgraft.workers.leading import RayWorkers

SECONDS = 10.0
"""That an address has to answer in."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[RayWorkers]:
    """The workers of a cluster; a connection that the program has already is used, and left as it is.

    Parameters
    ----------
    address
        As :func:`topgraft.workers.address_of` gives it. ``None``: that in ``$RAY_ADDRESS``, or else a cluster
        of this machine alone, which ends with the block.

    Raises
    ------
    TopgraftError
        If Ray is not installed, or no cluster answers at the address.
    """
    if find_spec("ray") is None or find_spec("grpc") is None:
        raise TopgraftError("--on ray needs Ray, an optional extra: pip install 'topgraft[ray]'.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    import ray

    ours = not ray.is_initialized()
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    if ours:
        _connect(place)
    workers = None
    try:
        workers = RayWorkers(place)
        yield workers
    finally:
        if workers is not None:
            workers.end()
        if ours:
            ray.shutdown()


def _connect(place: str) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if place == "local":
        options |= {"num_cpus": torch.get_num_threads(), "include_dashboard": False}
    else:
        _must_answer(place)
    try:
        ray.init(address=place, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise _unreachable(place, (str(error).strip().splitlines() or [repr(error)])[0]) from error
    except Exception as error:
        if type(error) is not Exception:  # Ray raises just that where a node can't start
            raise
        raise _unreachable(place, str(error)) from error


def _must_answer(place: str) -> None:
    """Refuse soon an address where no such server is: Ray itself would try for many minutes.

    Any answer of the protocol that Ray speaks will do, also one that says no.
    """
    import grpc

    target = place.removeprefix("ray://")
    if not target.rpartition(":")[2].isdecimal() or os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # "auto", say: Ray finds it, or says why not
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            check(b"", timeout=SECONDS)
        except grpc.RpcError as error:
            silent = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
            if error.code() in silent:
                raise _unreachable(place, str(error.details()).rpartition(": ")[2].rstrip("]")) from error


def _unreachable(place: str, reason: str) -> RunningError:
    if place == "local":
        return RunningError(f"No Ray cluster could be started on this machine: {reason}")
    return RunningError(
        f"There is no Ray cluster at {place}: {reason}\n"
        "Give --on HOST:PORT as `ray start --head` told it (6379 by default), on a machine that joined it "
        "by `ray start --address=HOST:PORT`; from another machine --on ray://HOST:PORT (10001 by default)."
    )
