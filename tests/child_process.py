"""A piece of a test in a process of its own: to be killed, limited, or without an administrator's rights."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """In the block Ctrl-C is what Python makes of it, as in a program of its own; for the main thread.

    Not in a child: one that is forked from a process with torch's threads may crash where it computes.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
