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
    """What Ctrl-C meets: how many steps are under way, and whether it was heard before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.under_way = 0
        self.heard = False
        self.is_gentle = False
        self.last_words = ""

    def count(self, change: int) -> None:
        with self.lock:
            self.under_way += change

    def leave(self, _number: int, _frame: object) -> None:
        if self.last_words:
            with suppress(OSError):
                os.write(2, f"{self.last_words}\n".encode())
        os._exit(STATUS)  # every file is written whole or not at all; threads may be in the middle of a batch

    def hear(self, _number: int, _frame: object) -> None:
        if self.heard or not self.under_way:
            raise KeyboardInterrupt
        self.heard = True
        with suppress(OSError):  # not by print, which may be under way itself
            os.write(2, f"\n{SAID}\n".encode())


_ASKED = _Asked()


@contextmanager
def gently() -> Iterator[None]:
    """In the block, Ctrl-C first asks what is under way to finish its step, and says so on standard error.

    Nothing changes outside the main thread, and where somebody else handles Ctrl-C or it is ignored.
    """
    of_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not of_python:
        yield
        return
    _ASKED.heard = False
    _ASKED.is_gentle = True
    signal.signal(signal.SIGINT, _ASKED.hear)
    try:
        yield
    finally:
        if _ASKED.is_gentle:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _ASKED.heard = _ASKED.is_gentle = False


def leaving(last_words: str) -> None:
    """The program ends: Ctrl-C ends it at once from now on, with ``last_words`` until they are :func:`said`.

    Else a second Ctrl-C would meet Python while it takes itself apart. Only where :func:`gently` is in force,
    and for good.
    """
    if _ASKED.is_gentle:
        _ASKED.last_words, _ASKED.is_gentle = last_words, False
        signal.signal(signal.SIGINT, _ASKED.leave)


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
