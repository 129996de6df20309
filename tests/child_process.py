"""A piece of a test in a process of its own: to be killed, limited, or without an administrator's rights."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


def start(task: Callable[[], Any]) -> tuple[int, int]:
    """Fork a child that runs ``task`` and writes its result as JSON; its number, and where to read it."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12: forking beside threads
        child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    status = 1
    try:
        result = task()
        os.write(writer, json.dumps(result).encode())
        status = 0
    except BaseException as error:  # noqa: BLE001 - a child must end here, whatever happened
        os.write(writer, json.dumps(f"{type(error).__name__}: {error}").encode())
    finally:
        os._exit(status)


def finish(child: int, reader: int) -> Any:
    """The result of a child that must end well."""
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}: {text}"
    return json.loads(text)


def in_child(task: Callable[[], Any]) -> Any:
    """The result of ``task``, run in a child that must end well."""
    return finish(*start(task))


def killed(task: Callable[[], Any]) -> None:
    """Run ``task`` in a child, which must be killed by signal 9."""
    child, reader = start(task)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == 9


def program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code in a program of its own that imports as the tests do, and that Ctrl-C stops.

    Not in this process, nor in a child forked from it: what other tests have loaded may have changed how it
    takes signals, and native code that is interrupted there may crash.
    """
    threads = str(torch.get_num_threads())
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=300,
        # a background job of a shell starts with interrupts ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run_in_program(function: Callable[..., Any], *arguments: str | int) -> subprocess.CompletedProcess[str]:
    """A test module's function, called in a program of its own that prints the result as JSON."""
    code = (
        "import json, sys\n"
        f"from {function.__module__} import {function.__name__} as function\n"
        "print(json.dumps(function(*json.loads(sys.argv[1]))))"
    )
    return program(code, json.dumps(arguments))


def in_program(function: Callable[..., Any], *arguments: str | int) -> Any:
    """The result of a test module's function, called in a program of its own that must end well."""
    done = run_in_program(function, *arguments)
    assert done.returncode == 0, f"the program ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def limit_file_size(size: int) -> None:
    """From now on this process can't write files of more than ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def drop_rights() -> None:
    """From now on this process is nobody special, so that permissions count (root passes all of them)."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


@contextlib.contextmanager
def small_disk(place: Path, size: int, *options: str) -> Iterator[Path]:
    """A real, separate disk of ``size`` bytes in memory; the test is skipped where none can be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs an administrator's right to mount a small disk")
    try:
        yield place
    finally:
        # lazily: an open shelf holds a lock on its folder for as long as the object lives
        subprocess.run(["umount", "--lazy", str(place)], check=True)
