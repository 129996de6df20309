from __future__ import annotations

import io
import sys

import pytest

from topgraft.console import Console


def test_results_and_progress_go_apart(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console.for_command(json=False)
    with console.progress("Pass", 3) as advance:
        advance(3)
    console.line("Score", "90 %")
    out, err = capsys.readouterr()
    assert out == "Score     90 %\n"
    assert "3/3 examples" in err


def test_with_json_what_is_for_people_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Console.for_command(json=True).line("Score", "90 %")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Score     90 %\n")


@pytest.mark.parametrize("console", [Console(), Console.for_command(json=False, quiet=True)])
def test_a_console_without_streams_says_nothing(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("Pass", 3) as advance:
        advance(3)
    console.line("Score", "90 %")
    console.table(["a"], [["1"]])
    assert capsys.readouterr() == ("", "")


def test_further_sentences_stand_below_the_first() -> None:
    out = io.StringIO()
    Console(out).line("Advice", "keep 3", "as you decided")
    assert out.getvalue() == "Advice    keep 3\n          as you decided\n"


def test_columns_of_a_table_line_up_and_no_line_ends_in_spaces() -> None:
    out = io.StringIO()
    Console(out).table(["keep", "block", "note"], [["1", "stem", ""], ["12", "b", "best"]], left=[1, 2])
    lines = out.getvalue().splitlines()
    assert lines == [" keep  block  note", "    1  stem", "   12  b      best"]


def test_a_count_is_shown_where_no_total_is_known() -> None:
    err = io.StringIO()
    with Console(None, err).progress("Reading", None, "rows") as advance:
        for _ in range(4):
            advance(1)
    assert "4/?" in err.getvalue()


def test_nothing_to_do_shows_no_bar() -> None:
    err = io.StringIO()
    with Console(None, err).progress("Reading", 0) as advance:
        advance(0)
    assert err.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_printed_meanwhile_stays_on_its_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    out, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    with Console(None, terminal).progress("Reading", 2) as advance:
        print("a row")
        advance(2)
    assert out.getvalue() == "a row\n"
    assert "a row" not in terminal.getvalue()
