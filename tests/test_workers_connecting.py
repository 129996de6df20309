"""Clusters that are there, that are not, and one that a command starts for itself."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from child_process import program
from command_line import Job, tiny_job
from ray_cluster import watched

from topgraft.errors import RunningError
from topgraft.workers import connecting
from topgraft.workers.connecting import connected


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job"))


def run(*arguments: str | Path, store: Path, **environment: str):
    """The command in a program of its own, with a store of its own."""
    code = (
        "import os, sys\n"
        f"os.environ |= {environment | {'TOPGRAFT_CACHE': str(store)}!r}\n"
        "from topgraft.cli import main\n"
        "main(sys.argv[1:])"
    )
    return program(code, *map(str, arguments))


@pytest.mark.slow
def test_a_probe_starts_a_cluster_of_its_own_and_ends_it(job, tmp_path):
    command = ("probe", job.table, "--backbone", job.backbone, "--seed", "1", "--engine", "torch")
    command = (*command, "--precision", "fp32", "--json")
    with watched(str(tmp_path / "b")) as started:
        there = run(*command, "--on", "ray", store=tmp_path / "b", RAY_ADDRESS="")
    assert there.returncode == 0, there.stderr
    # a program, too: what other tests have loaded here may change rounding
    here = run(*command, store=tmp_path / "a")
    assert here.returncode == 0, here.stderr
    one, other = json.loads(here.stdout), json.loads(there.stdout)
    assert other["cuts"] == one["cuts"]
    assert other["on"]["address"] == "local"
    assert other["on"]["pieces"] > 0
    assert len(started) > 3  # Ray's servers and workers
    _, left = psutil.wait_procs(started, timeout=20)
    assert not left


def test_without_ray_the_extra_is_named_before_anything_is_read(tmp_path):
    done = program(
        "import sys\nsys.modules['ray'] = None\nfrom topgraft.cli import main\nmain(sys.argv[1:])",
        *("probe", str(tmp_path / "nothing.csv"), "--on", "ray"),
    )
    assert done.returncode == 2
    assert done.stderr == "Error: --on ray needs Ray, an optional extra: pip install 'topgraft[ray]'.\n"


@pytest.mark.parametrize("on", ["spark", "ray://", "head"])
def test_what_is_no_address_is_refused(on, job, tmp_path):
    outcome = job.fit(tmp_path / "out", "--on", on)
    assert outcome.status == 2
    assert f"--on {on}: give ray, ray://HOST:PORT or HOST:PORT" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_is_of_this_machine(job, tmp_path):
    outcome = job.fit(tmp_path / "out", "--on", "ray", "--dry-run")
    assert outcome.status == 2
    assert "--dry-run measures this machine: leave --on ray away" in outcome.err


def test_a_fit_that_finds_no_cluster_leaves_nothing_behind(job, tmp_path):
    outcome = job.fit(tmp_path / "out", "--on", f"127.0.0.1:{closed_port()}")
    assert outcome.status == 1
    assert "There is no Ray cluster at 127.0.0.1:" in outcome.err
    assert "Connection refused" in outcome.err
    assert "ray start --head" in outcome.err
    assert not (tmp_path / "out").exists()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that takes connections and says nothing."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        taking = threading.Thread(target=take)
        taking.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        taking.join()
    for one in held:
        one.close()


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_something_else_at_an_address_is_told_in_bounded_time(kind, silent, monkeypatch):
    monkeypatch.setattr(connecting, "SECONDS", 1.0)
    with pytest.raises(RunningError, match=r"There is no Ray cluster at .*Deadline Exceeded"):
        connected(f"{kind}127.0.0.1:{silent}").__enter__()


@pytest.mark.parametrize("place", ["no-such-host.invalid:6379", "ray://no-such-host.invalid:10001"])
def test_a_host_that_is_not_known_is_told(place):
    with pytest.raises(RunningError, match=f"There is no Ray cluster at {place}: "):
        connected(place).__enter__()
