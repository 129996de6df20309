"""The figures of several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topgraft.console import duration, percent
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
    stacked,
    whole_numbers,
)
from topgraft.report.page import seconds
from topgraft.report.runs import in_words, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.01
"""Seconds that are still told apart in a figure."""


def runs_figures(document: Document) -> list[Drawn]:
    """Those for which the runs have numbers, in the order of the page."""
    found = [scores(document)]
    if document["pairs"]:
        found.append(difference(document))
    return [*found, depths(document), costs(document)]


def scores(document: Document) -> Drawn:
    """Each run's score with the interval that it has by itself."""
    runs = document["runs"]
    said = ", ".join(f"{run['letter']} {percent(run['score']['value'], 1)}" for run in runs)
    title = f"Accuracy on untouched examples: {said}"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "accuracy, untouched examples (%)", "", height=rows_high(len(runs)))
        for place, run in enumerate(runs):
            score = run["score"]
            interval(axes, ink.accent, place, [100 * score[k] for k in ("low", "value", "high")])
            axes.plot([100 * run["majority"]], [place], "x", color=ink.faint, markersize=6)
        name_rows(axes, [f"{run['letter']}  {_name(run)}" for run in runs])
        return figure

    told = (
        "Each run's score with the 95 % interval that it has by itself; the cross is what always naming the "
        "most frequent class gives. Two such intervals may overlap although one run is better for sure: that "
        "is seen only where both are paired."
    )
    header = ("run", "metric", "score", "low", "high", "examples", "most frequent class")
    rows = [
        (run["letter"], s["metric"], s["value"], s["low"], s["high"], s["n"], run["majority"])
        for run in runs
        for s in run["scores"]
    ]
    return Drawn("scores", title, told, draw, header, rows)


def difference(document: Document) -> Drawn:
    """Paired differences of those that were judged on the same examples."""
    pairs = document["pairs"]
    title = verdicts(document["runs"], pairs)[0].partition(":")[0].rstrip(".")

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "difference in accuracy (points)", "", height=rows_high(len(pairs)))
        axes.axvline(0, color=ink.second, linestyle="--", linewidth=1)
        for place, pair in enumerate(pairs):
            interval(axes, ink.accent, place, [100 * pair[k] for k in ("low", "gain", "high")])
        name_rows(axes, [f"{pair['second']} − {pair['first']}" for pair in pairs])
        return figure

    together = "; all intervals hold together" if len(pairs) > 1 else ""
    told = f"Paired on the same untouched examples, with 95 % intervals{together}. " + " ".join(
        in_words(pair) for pair in pairs
    )
    header = ("first", "second", "second − first", "low", "high", "examples")
    more = ("right by first alone", "by second alone", "by both", "by neither")
    names = ("first", "second", "gain", "low", "high", "n", "only_first", "only_second", "both", "neither")
    rows = [tuple(pair[name] for name in names) for pair in pairs]
    return Drawn("difference", title, told, draw, (*header, *more), rows)


def depths(document: Document) -> Drawn:
    """The depth curve of each run, one below the other, on one scale."""
    runs = document["runs"]
    said = []
    for run in runs:
        best = max(run["depth"]["cuts"], key=lambda c: c["score"])
        of = len(run["depth"]["cuts"])
        said.append(
            f"{run['letter']} keeps {run['depth']['keep']} of {of} blocks, its best depth is {best['keep']} "
            f"({percent(best['score'], 1)})"
        )
    title = "; ".join(said)

    def draw(ink: Ink) -> Figure:
        figure, all_axes = stacked(ink, len(runs), height=0.6 + (HEIGHT - 0.9) * len(runs))
        for run, axes in zip(runs, all_axes, strict=True):
            found = run["depth"]
            for row in found["cuts"]:
                colour = ink.accent if row["in_set"] else ink.faint
                axes.plot(
                    [row["keep"]] * 2, [100 * row["low"], 100 * row["high"]], color=colour, linewidth=1.5
                )
                size = 5 if row["in_set"] else 3.5
                axes.plot([row["keep"]], [100 * row["score"]], "o", color=colour, markersize=size)
            axes.axhline(100 * found["chance"], color=ink.faint, linestyle=":", linewidth=1)
            axes.axvline(found["keep"], color=ink.second, linestyle="--", linewidth=1)
            axes.set_ylabel(f"{run['letter']}: accuracy (%)", color=ink.text)
            axes.xaxis.set_major_locator(whole_numbers())
        all_axes[-1].set_xlabel("blocks kept", color=ink.text)
        return figure

    told = (
        "Accuracy of a probe at each depth, out of fold, with 95 % intervals: "
        + "; ".join(_depth_in_words(run) for run in runs)
        + ". Larger spots can't be told from the best; the dashed line stands at what was kept, the dotted "
        "one at the most frequent class."
    )
    header = ("run", "keep", "block", "score", "low", "high", "in set", "kept")
    rows = [
        (
            *(run["letter"], c["keep"], c["block"], c["score"], c["low"], c["high"], c["in_set"]),
            c["keep"] == run["depth"]["keep"],
        )
        for run in runs
        for c in run["depth"]["cuts"]
    ]
    return Drawn("depths", title, told, draw, header, rows)


def costs(document: Document) -> Drawn:
    """Seconds of each stage, told beforehand and measured."""
    runs = document["runs"]
    stages = [row for row in document["costs"] if row["amount"] == "seconds"]
    title = ", ".join(f"{run['letter']} took {duration(run['seconds'])}" for run in runs)
    lines = [
        (row["stage"], run["letter"], told, was)
        for row in stages
        for run, told, was in zip(runs, row["told"], row["was"], strict=True)
        if was is not None
    ]

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "seconds", "", height=rows_high(len(lines)))
        for place, (_, _, told, was) in enumerate(lines):
            axes.plot([max(was, LEAST)], [place], "o", color=ink.accent, markersize=5)
            if told:
                axes.plot([max(told, LEAST)], [place], "o", color=ink.second, markersize=8, fillstyle="none")
        logarithmic(axes, [max(was, LEAST) for _, _, _, was in lines])
        name_rows(axes, [f"{_brief(stage)}, {letter}" for stage, letter, _, _ in lines])
        return figure

    told = "Spots: seconds as measured; rings: as told before the stage began. Measured (told): " + "; ".join(
        f"{stage}, {letter} {seconds(was)}" + ("" if told is None else f" ({seconds(told)})")
        for stage, letter, told, was in lines
    )
    return Drawn("costs", f"{title} in all", f"{told}.", draw, ("stage", "run", "told", "was"), lines)


def _depth_in_words(run: Document) -> str:
    cuts = run["depth"]["cuts"]
    return (
        f"{run['letter']} from {percent(cuts[0]['score'], 1)} with one block to "
        f"{percent(cuts[-1]['score'], 1)} with all {len(cuts)}"
    )


def _name(run: Document) -> str:
    """As much of a run's name as the margin holds."""
    return short(str(run["name"]).removesuffix(".topgraft"), 14)


def _brief(stage: str) -> str:
    """The first words of a stage's title, for the margin of a figure."""
    known = {"one pass over the data": "pass", "how pictures are resized": "resizing"}
    return known.get(stage, stage.partition(" ")[0])
