from __future__ import annotations

import os
import signal
import threading

import pytest
from child_process import in_child, program

from topgraft.stopping import SAID, STATUS, finishing, gently


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def usual() -> None:
    """A background job of a shell starts with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_step_under_way_is_finished_first(capfd: pytest.CaptureFixture[str]) -> None:
    def task() -> list[int]:
        usual()
        steps = []
        try:
            with gently(), finishing() as is_stopping:
                for step in range(9):
                    if is_stopping():
                        break
                    if step == 2:
                        press()
                    steps.append(step)
        except KeyboardInterrupt:
            return steps
        return []

    assert in_child(task) == [0, 1, 2]
    assert SAID in capfd.readouterr().err


@pytest.mark.parametrize("told", [False, True])
def test_where_nothing_is_to_be_finished_it_stops_at_once(told: bool) -> None:
    def task() -> str:
        usual()
        try:
            if told:
                with gently():
                    press()
            else:
                with finishing():
                    press()
        except KeyboardInterrupt:
            return "stopped"
        return "went on"

    assert in_child(task) == "stopped"


def test_what_handles_interrupts_itself_is_left_alone() -> None:
    def task() -> list[int]:
        heard: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
        with gently(), finishing():
            press()
        press()
        return heard

    assert in_child(task) == [signal.SIGINT, signal.SIGINT]


def test_afterwards_and_in_other_threads_it_is_as_before() -> None:
    def task() -> bool:
        usual()
        with gently():
            pass
        seen = []

        def elsewhere() -> None:
            with gently():
                seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return seen == [True] and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    assert in_child(task)


TWICE = """
import os, signal, sys
from topgraft.stopping import finishing, gently, said

with gently("To go on, ..."), finishing():
    if "told" in sys.argv:
        said()
    for step in range(9):
        if step in (2, 5):
            os.kill(os.getpid(), signal.SIGINT)
        print(step, flush=True)
"""


@pytest.mark.parametrize(("told", "words"), [((), ["To go on, ..."]), (("told",), [])])
def test_a_second_time_ends_the_program_at_once(told: tuple[str, ...], words: list[str]) -> None:
    ended = program(TWICE, *told)
    assert (ended.returncode, ended.stdout.split()) == (STATUS, ["0", "1", "2", "3", "4"])
    assert ended.stderr.strip().splitlines() == [SAID, *words]
