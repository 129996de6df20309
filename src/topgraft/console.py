"""What a person sees: labelled lines, aligned tables and a progress bar; results and progress kept apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

LABEL = 10
"""Columns that a label takes."""


class Console:
    """Writes results to one stream and progress to another.

    Parameters
    ----------
    results
        Where lines and tables go; nowhere when ``None`` (from Python, unless asked).
    progress
        Where progress goes; nowhere when ``None``.
    """

    def __init__(self, results: TextIO | None = None, progress: TextIO | None = None) -> None:
        self.results, self.progress_to = results, progress

    @classmethod
    def for_command(cls, *, json: bool, quiet: bool = False) -> Console:
        """For the command line: with ``--json``, what is meant for people goes to standard error."""
        if quiet:
            return cls(None, None)
        return cls(sys.stderr if json else sys.stdout, sys.stderr)

    def text(self, text: str = "") -> None:
        """One line as it is."""
        if self.results is not None:
            print(text, file=self.results, flush=True)

    def line(self, label: str, *texts: str) -> None:
        """A label and a sentence; further sentences stand below the first."""
        for position, text in enumerate(texts):
            self.text(f"{label if position == 0 else '':<{LABEL}}{text}")

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()
    ) -> None:
        """An aligned table; numbers to the right, columns in ``left`` to the left."""
        for line in aligned(header, rows, left=left):
            self.text(line)

    @contextmanager
    def progress(
        self, label: str, total: int | None, unit: str = "examples"
    ) -> Iterator[Callable[[int], None]]:
        """A bar that the given function advances; with no total known, a count."""
        if self.progress_to is None or total == 0:
            yield lambda _done: None
            return
        from rich.console import Console as Screen
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn(f"{label:<{LABEL - 1}}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        # Rich would else send what is printed meanwhile, results included, to the progress's stream.
        # A notebook is no terminal, yet redraws a line after \r; rich's own way there needs ipywidgets.
        redraws = type(self.progress_to).__module__.startswith("ipykernel.") or None
        screen = Screen(file=self.progress_to, force_jupyter=False, force_terminal=redraws)
        often = 2 if redraws else 10
        with Progress(
            *columns,
            console=screen,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=often,
        ) as bars:
            task = bars.add_task(label, total=total)
            yield lambda done: bars.advance(task, done)

    def reading(self, kind: str, count: int) -> AbstractContextManager[Callable[[int], None]]:
        """The bar of examples of a kind (``picture``) that are decoded as data are read."""
        return self.progress("Reading", count, f"{kind}s")


def say_json(document: Any) -> None:
    """The one document on standard output that other programs read."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()) -> list[str]:
    """Lines of a table whose columns line up.

    Examples
    --------
    >>> for line in aligned(["keep", "block"], [["1", "stem"], ["12", "b"]], left=[1]):
    ...     print(line)
     keep  block
        1  stem
       12  b
    """
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            f"{cell:<{size}}" if i in left else f"{cell:>{size}}"
            for i, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " + "  ".join(cells)).rstrip())
    return lines


def percent(share: float, decimals: int = 0) -> str:
    """A share as a percentage.

    Examples
    --------
    >>> percent(0.413), percent(0.7741, 1)
    ('41 %', '77.4 %')
    """
    return f"{100 * share:.{decimals}f} %"


def bar(share: float, width: int = 10) -> str:
    """A bar of eighths of a character.

    Examples
    --------
    >>> bar(0.74)
    '███████▍'
    """
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("" if eighths % 8 == 0 else "▏▎▍▌▋▊▉"[eighths % 8 - 1])


def counted(number: int, noun: str) -> str:
    """A number of things.

    Examples
    --------
    >>> counted(1, "step"), counted(1200, "example")
    ('1 step', '1,200 examples')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    Examples
    --------
    >>> duration(4.2), duration(95), duration(150), duration(180), duration(660), duration(9000)
    ('4 s', '95 s', '2.5 min', '3 min', '11 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f}".removesuffix(".0") + " min"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(number: float) -> str:
    """Bytes in the unit that suits them.

    Examples
    --------
    >>> size(512), size(3_400_000), size(4e9)
    ('512 B', '3.4 MB', '4.0 GB')
    """
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= step:
            return f"{number / step:.1f} {unit}"
    return f"{number:.0f} B"
