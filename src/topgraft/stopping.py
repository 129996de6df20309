"""Ctrl-C: what is under way is finished and kept first; a second one stops at once.

A program that wants this says so by :func:`gently`; stages say by :func:`finishing` what is worth being
finished. Elsewhere, and in programs that say nothing, Ctrl-C is what Python makes of it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SAID = "Stopping after the step under way, which is kept; Ctrl-C again stops at once."
STATUS = 130
"""What a program that was stopped ends with: 128 and the number of the signal, as shells have it."""


class _Asked:
    """What Ctrl-C meets: how many steps are under way, whether it was heard before, and the last words."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.under_way = 0
        self.heard = False
        self.last_words = ""

    def count(self, change: int) -> None:
        with self.lock:
            self.under_way += change

    def hear(self, _number: int, _frame: object) -> None:
        if self.heard:
            if self.last_words:
                _say(self.last_words)
            # no exception: native code on the way may not bear it. Files are written whole or not at all
            os._exit(STATUS)
        self.heard = True
        if not self.under_way:
            raise KeyboardInterrupt
        _say(f"\n{SAID}")


def _say(text: str) -> None:
    with suppress(OSError):  # not by print, which may be under way itself
        os.write(2, f"{text}\n".encode())


_ASKED = _Asked()


@contextmanager
def gently(last_words: str = "Stopped.") -> Iterator[None]:
    """In the block Ctrl-C first asks what is under way to finish its step, and says so on standard error.

    A second one ends the process at once with the status :data:`STATUS`, and with ``last_words`` unless they
    were :func:`said`. Nothing changes outside the main thread, and where somebody else handles Ctrl-C or it
    is ignored.
    """
    of_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not of_python:
        yield
        return
    _ASKED.heard, _ASKED.last_words = False, last_words
    signal.signal(signal.SIGINT, _ASKED.hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _ASKED.heard = False


def said() -> None:
    """The last words are out."""
    _ASKED.last_words = ""


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """In the block something is done step by step; gives what tells whether to stop after this step.

    At its end the block stops the program, if that was asked for.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block.

    Examples
    --------
    >>> with finishing() as is_stopping:
    ...     is_stopping()
    False
    """
    _ASKED.count(1)
    try:
        yield lambda: _ASKED.heard
    finally:
        _ASKED.count(-1)
    if _ASKED.heard:
        raise KeyboardInterrupt
