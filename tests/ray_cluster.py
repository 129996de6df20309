"""A real cluster of two nodes on this machine, in a program of its own, which ends with the test.

Run as a program it starts the head and another node, one core each, says the address, and does what it is
told on its standard input, line by line: ``kill`` the other node, ``add`` another; at its end, end all.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

MEMORY = 100 * 2**20
"""Of each node's object store."""
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}
"""So that a node that was killed is missed within seconds."""


def is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


@dataclass
class TwoNodes:
    """The cluster as a test knows it."""

    program: subprocess.Popen[str]
    address: str
    second: str

    def tell(self, what: str) -> Any:
        """Have the program do something, and wait until it has."""
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(f"{what}\n")
        self.program.stdin.flush()
        return _answer(self.program)

    def kill_second(self) -> None:
        """The whole second node is gone at once."""
        self.tell("kill")

    def add(self) -> None:
        """A second node anew."""
        self.second = self.tell("add")


def _answer(program: subprocess.Popen[str]) -> Any:
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("{"):
            return json.loads(line)["said"]
    raise AssertionError(f"the cluster ended with {program.wait()}")


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """The cluster, for as long as the block lasts."""
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
        "PYTHONWARNINGS": "ignore",
    }
    program = subprocess.Popen(
        [sys.executable, __file__],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | quiet,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        address, second = _answer(program)
        yield TwoNodes(program, address, second)
    finally:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.close()
        try:
            program.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            program.stdout.close()


@contextlib.contextmanager
def watched(mark: str) -> Iterator[set[psutil.Process]]:
    """All that this process's child with ``mark`` in its command line starts in the block, seen by looking.

    Its own: what Ray's processes are called says nothing of whose they are, and other tests run beside this.
    """
    seen: set[psutil.Process] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if any(mark in word for word in child.cmdline()):
                        seen.update(child.children(recursive=True))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()


def _serve() -> None:
    from ray.cluster_utils import Cluster

    def say(what: Any) -> None:
        sys.__stdout__.write(json.dumps({"said": what}) + "\n")
        sys.__stdout__.flush()

    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        say([cluster.address, second.node_id])
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(second, allow_graceful=False)
                say("killed")
            elif line.strip() == "add":
                second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
                say(second.node_id)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    _serve()
