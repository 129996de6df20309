"""The figures of a comparison: what pretraining gained, learning curves over examples and time, and gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from topgraft.console import duration, percent
from topgraft.curves import BASELINE, MAJORITY, PRETRAINED, RANDOM, SCRATCH
from topgraft.report.comparison import said_of
from topgraft.report.ink import (
    HEIGHT,
    Document,
    Drawn,
    Ink,
    axes_of,
    interval,
    logarithmic,
    name_rows,
    rows_high,
    short,
)
from topgraft.report.page import seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    PRETRAINED: ("accent", "o", "-"),
    SCRATCH: ("second", "s", "-"),
    BASELINE: ("text", "^", "--"),
    RANDOM: ("faint", "D", ":"),
}
"""Colour, mark and line of each arm; the majority class is a dotted line across."""
LEAST = 1e-3
"""Seconds that are still told apart in a figure."""
SPREAD = 1.04
"""By how much arms of the same size are set apart, so that their intervals can be seen."""


def comparison_figures(document: Document) -> list[Drawn]:
    """In the order of the page."""
    found = document["comparison"]
    return [differences(found), over_examples(found), over_seconds(found), gaps(found)]


def differences(found: Document) -> Drawn:
    """By how much the pretrained network is better than each other way, paired."""
    others = {a["name"]: found["differences"][a["name"]] for a in found["arms"] if a["name"] != PRETRAINED}
    better = [arm for arm, d in others.items() if d["low"] > 0]
    worse = [arm for arm, d in others.items() if d["high"] < 0]
    title = f"The pretrained network is better for sure than {len(better)} of {len(others)} other ways"
    if worse:
        title += f", and worse for sure than {', '.join(map(said_of, worse))}"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "pretrained minus the other (points)", "", height=rows_high(len(others)))
        axes.axvline(0, color=ink.second, linestyle="--", linewidth=1)
        for place, one in enumerate(others.values()):
            interval(axes, ink.accent, place, [100 * one[k] for k in ("low", "value", "high")])
        name_rows(axes, [short(arm) for arm in others])
        return figure

    told = (
        f"Differences in accuracy on the same {found['untouched']:,} untouched examples, all trained on "
        "everything, with paired 95 % intervals: "
        + "; ".join(f"{said_of(arm)} {_points(one)}" for arm, one in others.items())
        + ". Right of the dashed line pretraining is better."
    )
    rows = [(arm, one["value"], one["low"], one["high"]) for arm, one in others.items()]
    return Drawn("differences", title, told, draw, ("other way", "pretrained − other", "low", "high"), rows)


def over_examples(found: Document) -> Drawn:
    """Learning curves over the number of examples."""
    title = _labels_title(found)
    sizes = sorted({point["examples"] for arm in found["arms"] for point in arm["curve"]})

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "examples trained on", "accuracy (%)", height=HEIGHT + 0.5)
        _curves(axes, ink, found, "examples", spread=SPREAD)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
        _legend(figure, ink)
        return figure

    told = (
        "Accuracy on untouched examples by the number of examples trained on, means over draws with 95 % "
        f"intervals: {_in_words(found, 'examples')}."
    )
    return Drawn("examples", title, told, draw, *_table(found))


def over_seconds(found: Document) -> Drawn:
    """The same over the seconds that each took."""
    by_name = {arm["name"]: arm for arm in found["arms"]}
    ours = by_name[PRETRAINED]
    title = f"The pretrained network took {duration(ours['seconds'])} for {percent(ours['score'], 1)}"
    if SCRATCH in by_name:
        scratch = by_name[SCRATCH]
        title += f"; training from scratch {duration(scratch['seconds'])} for {percent(scratch['score'], 1)}"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "seconds", "accuracy (%)", height=HEIGHT + 0.5)
        _curves(axes, ink, found, "seconds")
        shown = [arm for arm in found["arms"] if arm["name"] in LOOKS]
        logarithmic(axes, [max(p["seconds"], LEAST) for arm in shown for p in arm["curve"]])
        _legend(figure, ink)
        return figure

    told = (
        "Accuracy on untouched examples by seconds from the examples to the model, a pass over the data "
        f"included, one mark for each size: {_in_words(found, 'seconds')}."
    )
    return Drawn("seconds", title, told, draw, *_table(found))


def gaps(found: Document) -> Drawn:
    """Score on what was trained on and on untouched examples."""
    arms = [arm for arm in found["arms"] if arm["name"] != MAJORITY]
    widest = max(arms, key=lambda arm: arm["gap"])
    title = (
        f"{_capital(said_of(widest['name']))} falls furthest from what it was trained on to untouched "
        f"examples: by {100 * widest['gap']:.1f} points"
    )
    ours = next(arm for arm in arms if arm["name"] == PRETRAINED)
    if widest is not ours:
        title += f"; the pretrained network by {100 * ours['gap']:.1f}"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "accuracy (%)", "", height=rows_high(len(arms)))
        for place, arm in enumerate(arms):
            seen, untouched = 100 * (arm["score"] + arm["gap"]), 100 * arm["score"]
            axes.plot([untouched, seen], [place, place], color=ink.faint, linewidth=1.5)
            axes.plot([untouched], [place], "o", color=ink.accent, markersize=6)
            axes.plot([seen], [place], "o", color=ink.second, markersize=8, fillstyle="none")
        name_rows(axes, [short(arm["name"]) for arm in arms])
        return figure

    told = (
        "Rings: accuracy on the examples that were trained on, all of them; spots: on untouched ones. The "
        "generalisation gap between the two, in points: "
        + "; ".join(f"{said_of(arm['name'])} {100 * arm['gap']:.1f}" for arm in arms)
        + ". A gap is no fault by itself: what counts is the untouched score."
    )
    rows = [(arm["name"], arm["score"] + arm["gap"], arm["score"], arm["gap"]) for arm in arms]
    return Drawn("gaps", title, told, draw, ("arm", "score where trained", "untouched score", "gap"), rows)


def _labels_title(found: Document) -> str:
    """What the learning curve says of labels, against the better of scratch and the simple baseline."""
    saved, scores = found["labels_saved"], {arm["name"]: arm["score"] for arm in found["arms"]}
    if not saved:
        return "Learning curves: accuracy by the number of examples"
    other = max(saved, key=lambda arm: scores[arm])
    if saved[other] is None:
        return f"With all labels the pretrained network is not yet as good as {said_of(other)}"
    curve = next(arm["curve"] for arm in found["arms"] if arm["name"] == PRETRAINED)
    at_least = "At least " if saved[other]["value"] >= 1 - curve[0]["share"] - 1e-9 else ""
    return (
        f"{at_least}{percent(saved[other]['value'])} of the labels can be spared: with the rest the "
        f"pretrained network is as good as {said_of(other)} with all"
    )


def _curves(axes: Axes, ink: Ink, found: Document, across: str, *, spread: float = 1.0) -> None:
    """Each arm's scores with intervals over examples or seconds, on a logarithmic scale."""
    shown = [arm for arm in found["arms"] if arm["name"] in LOOKS]
    middle = (len(shown) - 1) / 2
    for number, arm in enumerate(shown):
        colour, mark, line = LOOKS[arm["name"]]
        ink_of = getattr(ink, colour)
        places = [max(p[across], LEAST) * spread ** (number - middle) for p in arm["curve"]]
        for place, point in zip(places, arm["curve"], strict=True):
            axes.plot([place] * 2, [100 * point["low"], 100 * point["high"]], color=ink_of, linewidth=1)
        values = [100 * point["value"] for point in arm["curve"]]
        axes.plot(places, values, marker=mark, linestyle=line, color=ink_of, markersize=5, label=arm["name"])
    for arm in found["arms"]:
        if arm["name"] == MAJORITY:
            axes.axhline(100 * arm["score"], color=ink.faint, linestyle=(0, (1, 3)), label=arm["name"])
    axes.set_xscale("log")


def _legend(figure: Figure, ink: Ink) -> None:
    figure.legend(
        loc="outside lower center", ncols=2, frameon=False, labelcolor=ink.text, handlelength=3, numpoints=1
    )


def _table(found: Document) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    header = ("arm", "share of the labels", "examples", "draws", "score", "low", "high", "seconds", "gap")
    names = ("share", "examples", "seeds", "value", "low", "high", "seconds", "gap")
    return header, [(arm["name"], *(p[n] for n in names)) for arm in found["arms"] for p in arm["curve"]]


def _in_words(found: Document, across: str) -> str:
    """First and last point of each curve."""
    said = []
    for arm in found["arms"]:
        if arm["name"] == MAJORITY:
            said.append(f"{said_of(arm['name'])} {percent(arm['score'], 1)}")
            continue
        ends = [arm["curve"][i] for i in sorted({0, len(arm["curve"]) - 1})]
        said.append(f"{said_of(arm['name'])} " + ", ".join(_point(p, across) for p in ends))
    return "; ".join(said)


def _point(point: Mapping[str, Any], across: str) -> str:
    with_what = f"{point['examples']:,}" if across == "examples" else seconds(point["seconds"])
    return f"{percent(point['value'], 1)} with {with_what}"


def _points(one: Mapping[str, float]) -> str:
    return f"{100 * one['value']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
