"""What every figure of a report shares: colours, axes, and how it is written."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

Document = Mapping[str, Any]
WIDTH, HEIGHT = 4.4, 3.0
"""Inches: about as wide as a phone, so that letters keep their size there."""


@dataclass(frozen=True)
class Ink:
    """Colours by what they are for."""

    text: str
    faint: str
    accent: str
    second: str
    low: str
    high: str


PAPER = Ink("#1b1f24", "#6b737d", "#1f6fb2", "#b4540a", "#ffffff", "#1f6fb2")
"""For files of their own, on white."""
PAGE = Ink("#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
"""For a page: each stands for a variable of its style, so that dark mode changes it."""
VARIABLES = {
    PAGE.text: "var(--text)",
    PAGE.faint: "var(--faint)",
    PAGE.accent: "var(--accent)",
    PAGE.second: "var(--second)",
}


@dataclass(frozen=True)
class Drawn:
    """A figure before it is written.

    Parameters
    ----------
    name
        Of its files and its place in the page.
    title
        What to conclude, a sentence.
    told
        The same in words, for whoever can't see it.
    draw
        Draws it in the colours given.
    header, rows
        Its numbers as a table.
    """

    name: str
    title: str
    told: str
    draw: Callable[[Ink], Figure]
    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def to_svg(drawn: Drawn) -> str:
    """As SVG for a page, its colours being variables of the page's style."""
    text = _written(drawn, PAGE, "svg").decode()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def to_file(drawn: Drawn, form: str) -> bytes:
    """As a file of its own, ``png`` or ``svg``, on white."""
    return _written(drawn, PAPER, form)


def _written(drawn: Drawn, ink: Ink, form: str) -> bytes:
    """The same bytes for the same numbers; letters stay letters."""
    from matplotlib import rc_context

    written = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": drawn.name, "font.size": 9}):
        figure = drawn.draw(ink)
        figure.savefig(written, format=form, dpi=200, transparent=ink is PAGE, metadata=metadata)
    return written.getvalue()


def axes_of(ink: Ink, across: str, up: str, *, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """One pair of axes in the colours given, drawn without a screen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    dress(axes, ink)
    axes.set_xlabel(across, color=ink.text)
    axes.set_ylabel(up, color=ink.text)
    return figure, axes


def stacked(ink: Ink, many: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """Several pairs of axes one below the other, on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    every = list(figure.subplots(many, sharex=True, sharey=True, squeeze=False)[:, 0])
    for axes in every:
        dress(axes, ink)
    return figure, every


def dress(axes: Axes, ink: Ink) -> None:
    """Axes in the colours given: lines on the left and below only."""
    for side, spine in axes.spines.items():
        spine.set_color(ink.faint)
        spine.set_visible(side in ("left", "bottom"))
    axes.tick_params(colors=ink.text)


def rows_high(rows: int) -> float:
    """Inches of a figure with so many rows of names."""
    return 0.9 + 0.3 * max(rows, 1)


def interval(axes: Axes, colour: str, place: float, points: Sequence[float]) -> None:
    """A spot with its interval, lying: low, middle and high."""
    low, middle, high = points
    axes.plot([low, high], [place, place], color=colour, linewidth=1.5)
    axes.plot([middle], [place], "o", color=colour, markersize=5)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the rows, the first one on top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """The axis below by powers, its ticks as plain numbers, enough of them for these values."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    steps = (1.0,) if max(values) > 100 * min(values) else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def few_numbers() -> Locator:
    """At most five ticks, so that numbers with many digits have room."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def whole_numbers() -> Locator:
    """Ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def labels(names: list[str], *, most: int) -> tuple[list[int], list[str]]:
    """Places and names of at most so many of them, evenly spread."""
    step = -(-len(names) // most)
    places = list(range(0, len(names), max(1, step)))
    return places, [names[i] for i in places]


def short(name: str, most: int = 16) -> str:
    """The end of a long name, with no sign that would be taken for a formula."""
    shown = name if len(name) <= most else f"…{name[1 - most :]}"
    return shown.replace("$", r"\$")
