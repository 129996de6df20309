"""The figures of a run: one function each, from numbers to a drawing whose title says what to conclude."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topgraft.console import counted, percent
from topgraft.health import HEALTHY, VANISHED
from topgraft.report.ink import (
    HEIGHT,
    PAPER,
    Document,
    Drawn,
    Ink,
    axes_of,
    few_numbers,
    labels,
    name_rows,
    rows_high,
    short,
    whole_numbers,
)
from topgraft.show import constant_answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_LABELLED = 12
"""Classes (or blocks) from which on not every one can have its own label."""


def figures(document: Document) -> list[Drawn]:
    """Those for which the run has numbers, in the order of the page."""
    found = [depth(document), trade_off(document)]
    if document["search"]:
        found.append(short_trainings(document))
    if document["training"]:
        found.append(training(document))
    if document["health"]:
        found.append(health(document))
    outputs = document["untouched"].get("outputs", ())
    if outputs:
        return [*found, *(predicted(document, place) for place in range(len(outputs)))]
    if "labels" in document["untouched"]:
        return [*found, each_label(document), calibration(document)]
    return [*found, confusion(document), calibration(document)]


def depth(document: Document) -> Drawn:
    """Score against the number of blocks kept, with intervals."""
    found = document["depth"]
    cuts, keep, advised = found["cuts"], found["keep"], found["advised"]
    inside = [c["keep"] for c in cuts if c["in_set"]]
    title = f"Keep {advised} of {len(cuts)}: {found['reason']}"
    if keep != advised:
        title = f"Keep {keep}: {found['why_kept']}; the probes advise {advised}: {found['reason']}"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "blocks kept", f"{document['metric']}, {found['folds']} folds (%)")
        for row in cuts:
            colour = ink.accent if row["in_set"] else ink.faint
            low, middle, high = (100 * row[k] for k in ("low", "score", "high"))
            axes.plot([row["keep"]] * 2, [low, high], color=colour, linewidth=1.5)
            axes.plot([row["keep"]], [middle], "o", color=colour, markersize=5 if row["in_set"] else 3.5)
        axes.axhline(100 * found["chance"], color=ink.faint, linestyle=":", linewidth=1)
        axes.axvline(keep + 0.0, color=ink.second, linestyle="--", linewidth=1)
        axes.xaxis.set_major_locator(whole_numbers())
        return figure

    told = (
        f"{document['metric'].capitalize()} of a probe at each of {len(cuts)} depths, from "
        f"{percent(cuts[0]['score'], 1)} with one block to {percent(cuts[-1]['score'], 1)} with all. Depths "
        f"that can't be told from the best: {', '.join(map(str, inside))}. The dashed line stands at the "
        f"{keep} that were kept, the dotted one at {constant_answer(document['metric'])} "
        f"({percent(found['chance'], 1)})."
    )
    header = ("keep", "block", "score", "low", "high", "in set", "chance of being best")
    rows = [(c["keep"], c["block"], c["score"], c["low"], c["high"], c["in_set"], c["p_best"]) for c in cuts]
    return Drawn("depth", title, told, draw, header, rows)


def trade_off(document: Document) -> Drawn:
    """Score against the share of the work that a prediction takes."""
    found = document["depth"]
    cuts, front = found["cuts"], found["pareto"]
    kept = next(c for c in cuts if c["keep"] == found["keep"])
    best = max(cuts, key=lambda c: c["score"])
    title = (
        f"With {percent(kept['work'])} of the network's work the probe reaches {percent(kept['score'], 1)}; "
        f"the best depth reaches {percent(best['score'], 1)} with {percent(best['work'])}"
    )

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "share of the network's work (%)", f"{document['metric']} (%)")
        for row, is_front in zip(cuts, front, strict=True):
            colour = ink.accent if is_front else ink.faint
            size = 5 if is_front else 3.5
            axes.plot([100 * row["work"]], [100 * row["score"]], "o", color=colour, markersize=size)
        line = sorted((100 * c["work"], 100 * c["score"]) for c, f in zip(cuts, front, strict=True) if f)
        axes.plot(*zip(*line, strict=True), color=ink.accent, linewidth=1)
        axes.plot(
            [100 * kept["work"]],
            [100 * kept["score"]],
            "o",
            color=ink.second,
            markersize=9,
            fillstyle="none",
        )
        return figure

    keeps = ", ".join(str(c["keep"]) for c, f in zip(cuts, front, strict=True) if f)
    told = f"Depths that no other beats in both score and work: {keeps}. The ring marks what was kept."
    header = ("keep", "share of work", "share of parameters", "score", "no other is better in both")
    rows = [(c["keep"], c["work"], c["parameters"], c["score"], f) for c, f in zip(cuts, front, strict=True)]
    return Drawn("trade-off", title, told, draw, header, rows)


def short_trainings(document: Document) -> Drawn:
    """Loss of each short training of the search, a row a choice of keep and freeze, the winner's on top."""
    found = document["search"]
    tried, winner = found["tried"], (found["keep"], found["freeze"])
    of: dict[tuple[int, int], list[Document]] = {}
    for one in tried:
        of.setdefault((one["keep"], one["freeze"]), []).append(one)
    longest = {pair: max(one["epochs"] for one in every) for pair, every in of.items()}
    last = {
        pair: float(np.mean([one["loss"] for one in every if one["epochs"] == longest[pair]]))
        for pair, every in of.items()
    }
    order = sorted(of, key=lambda pair: (pair != winner, -longest[pair], last[pair], pair))
    most = max(longest.values())
    title = (
        f"Of {counted(len(of), 'choice')}, keep {winner[0]} with {winner[1]} frozen won: {found['reason']}"
    )
    if not found["taken"]:
        was = "no better than all frozen" if document["training"] else "not trained for want of time"
        title += f", and then it was {was}"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "loss on the validation part", "", height=rows_high(len(of)))
        for row, pair in enumerate(order):
            colour = ink.accent if longest[pair] == most else ink.faint
            for one in of[pair]:
                size = 3 + 5 * one["epochs"] / most
                axes.plot([one["loss"]], [row], "o", color=colour, markersize=size, fillstyle="none")
            axes.plot([last[pair]], [row], "|", color=ink.second, markersize=12)
        name_rows(axes, [f"keep {keep}, freeze {freeze}" for keep, freeze in order])
        axes.xaxis.set_major_locator(few_numbers())
        axes.margins(x=0.15)
        return figure

    told = (
        "Each ring is a short training, the larger the more epochs it had; the bar stands at the mean of "
        "those with the most. Further left is better. By choice: "
        + ", ".join(f"keep {k} freeze {m} {last[k, m]:.3f}" for k, m in order)
        + "."
    )
    header = ("keep", "freeze", "epochs", "seed", "loss", "score", "seconds")
    rows = [
        (*(one[key] for key in header[:3]), 1 + one["seed"], *(one[key] for key in header[4:]))
        for one in tried
    ]
    return Drawn("search", title, told, draw, header, rows)


def training(document: Document) -> Drawn:
    """Score on the validation part, epoch by epoch."""
    epochs, best = document["training"]["epochs"], document["training"]["best"]
    first, kept = epochs[0]["validation_score"], epochs[best]["validation_score"]
    gain = 100 * (kept - first)
    title = (
        f"Training gained {gain:.1f} points on the validation part, best after {counted(best, 'epoch')}"
        if gain > 0
        else "Training gained nothing on the validation part"
    )

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "epoch", f"{document['metric']}, validation part (%)")
        numbers = [e["number"] for e in epochs]
        axes.plot(
            numbers, [100 * e["validation_score"] for e in epochs], "o-", color=ink.accent, markersize=4
        )
        axes.plot([best], [100 * kept], "o", color=ink.second, markersize=9, fillstyle="none")
        axes.xaxis.set_major_locator(whole_numbers())
        return figure

    told = (
        f"From {percent(first, 1)} before the first step to {percent(kept, 1)} after epoch {best} of "
        f"{len(epochs) - 1}, the best one."
    )
    header = ("epoch", "training loss", "validation loss", "validation score", "seconds")
    rows = [
        (e["number"], e["loss"], e["validation_loss"], e["validation_score"], e["seconds"]) for e in epochs
    ]
    return Drawn("training", title, told, draw, header, rows)


def health(document: Document) -> Drawn:
    """Relative gradient of each block in some steps, as a heat map."""
    found = document["health"]
    verdicts, steps = found["verdicts"], found["steps"]
    sick = [v for v in verdicts if v["verdict"] != HEALTHY]
    parts = f"all {len(verdicts)} parts" if len(verdicts) > 1 else "the one part"
    title = f"Gradients were healthy in {parts} that trained"
    if sick:
        named = ", ".join(f"{v['name']} ({v['verdict']})" for v in sick[:3])
        title = (
            f"{len(sick)} of {len(verdicts)} parts were not healthy: {named}{'…' if len(sick) > 3 else ''}"
        )
    table = np.array([[np.nan if x is None else x for x in row] for row in found["relative"]], dtype=float)

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "step", "block", height=max(HEIGHT, 1.2 + 0.22 * len(verdicts)))
        image = axes.imshow(
            np.log10(np.clip(table, 1e-12, 1e4)),
            aspect="auto",
            cmap="viridis",
            vmin=np.log10(VANISHED) - 3,
            vmax=1,
            interpolation="nearest",
        )
        axes.set_xticks(*labels([str(s) for s in steps], most=6))
        axes.set_yticks(*labels([short(v["name"]) for v in verdicts], most=20))
        bar = figure.colorbar(image, ax=axes)
        bar.set_label("log10 of gradient / weights", color=ink.text)
        bar.ax.tick_params(colors=ink.text)
        bar.outline.set_edgecolor(ink.faint)
        return figure

    told = (
        f"Norm of the gradient over norm of the weights, for {len(verdicts)} parts in {len(steps)} steps. "
        + " ".join(f"{v['name']}: {v['verdict']}{': ' + v['why'] if v['why'] else ''}." for v in sick)
        + f" {percent(found['clipped'])} of the steps were clipped."
    )
    header = ("block", "verdict", *(f"step {s}" for s in steps))
    rows = [(v["name"], v["verdict"], *row) for v, row in zip(verdicts, found["relative"], strict=True)]
    return Drawn("health", title, told, draw, header, rows)


def confusion(document: Document) -> Drawn:
    """True class against predicted class on the untouched part."""
    found = document["untouched"]
    classes, matrix = found["classes"], np.array(found["confusion"])
    off = matrix - np.diag(np.diag(matrix))
    title = f"{int(off.sum())} of {int(matrix.sum())} untouched examples were mistaken"
    if off.any():
        true, said = np.unravel_index(off.argmax(), off.shape)
        title += f", most often {classes[true]} for {classes[said]} ({off.max()})"

    def draw(ink: Ink) -> Figure:
        side = max(HEIGHT, 1.6 + 0.26 * min(len(classes), 24))
        figure, axes = axes_of(ink, "predicted", "true", height=side)
        share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        colours = "Blues" if ink is PAPER else "cividis"
        axes.imshow(share, cmap=colours, vmin=0, vmax=1, aspect="auto")
        names = [short(name) for name in classes]
        axes.set_xticks(*labels(names, most=LARGEST_LABELLED), rotation=90)
        axes.set_yticks(*labels(names, most=24))
        if len(classes) <= LARGEST_LABELLED:
            for (i, j), count in np.ndenumerate(matrix):
                dark = share[i, j] > 0.5 if ink is PAPER else share[i, j] < 0.5
                axes.text(j, i, str(count), ha="center", va="center", color="#ffffff" if dark else "#000000")
        return figure

    told = "; ".join(
        f"{name}: {matrix[i, i]} of {matrix[i].sum()} right" for i, name in enumerate(classes[:40])
    )
    rows = [(name, *row) for name, row in zip(classes, matrix.tolist(), strict=True)]
    return Drawn("confusion", title, f"{told}.", draw, ("true class", *classes), rows)


def each_label(document: Document) -> Drawn:
    """Precision and recall of each label on the untouched part."""
    names, table = document["untouched"]["labels"], document["untouched"]["table"]
    seen = [(one["f1"], name) for name, one in zip(names, table, strict=True) if one["support"]]
    low = min(seen) if seen else (0.0, "")
    title = (
        f"The label told worst is {low[1]}, with an F1 of {percent(low[0], 1)}" if seen else "No label occurs"
    )
    order = sorted(range(len(names)), key=lambda i: (table[i]["f1"], names[i]))[: 2 * LARGEST_LABELLED]

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "%", "", height=max(HEIGHT, 1.6 + 0.26 * len(order)))
        for row, i in enumerate(order):
            ends = [100 * table[i]["precision"], 100 * table[i]["recall"]]
            axes.plot(ends, [row, row], color=ink.faint, linewidth=1.5)
            axes.plot(
                ends[:1], [row], "o", color=ink.accent, markersize=5, label="precision" if not row else None
            )
            axes.plot(
                ends[1:], [row], "s", color=ink.second, markersize=5, label="recall" if not row else None
            )
        axes.set_yticks(range(len(order)), [short(names[i]) for i in order])
        axes.set_xlim(-3, 103)
        axes.legend(labelcolor=ink.text, frameon=False)
        return figure

    told = (
        "Round: the share of those that were given the label and have it (precision); square: the share of "
        f"those that have it and were given it (recall). Shown are the {len(order)} of {len(names)} labels "
        "with the lowest F1; a label is given where its probability is above a half."
    )
    keys = ("precision", "recall", "f1", "area", "support")
    rows = [(name, *(one[key] for key in keys)) for name, one in zip(names, table, strict=True)]
    header = ("label", "precision", "recall", "F1", "average precision", "support")
    return Drawn("labels", title, told, draw, header, rows)


def predicted(document: Document, place: int) -> Drawn:
    """Predicted against true numbers of one output on the untouched part."""
    found, intervals = document["untouched"], document["intervals"]
    name = found["outputs"][place]
    true, said = (np.array(found[key])[:, place] for key in ("targets", "predictions"))
    error = float(np.abs(said - true).mean())
    title = f"Predictions of {name} are off by {error:.3g} on average"
    lean = float((said - true).mean())
    if abs(lean) > 0.25 * error:
        title += f", by {abs(lean):.3g} too {'high' if lean > 0 else 'low'} on the whole"
    half = intervals["half_widths"][place] if intervals["half_widths"] else None

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, f"true {short(name)}", f"predicted {short(name)}")
        ends = np.array([min(true.min(), said.min()), max(true.max(), said.max())])
        axes.plot(ends, ends, color=ink.faint, linestyle=":", linewidth=1)
        if half is not None:
            axes.fill_between(ends, ends - half, ends + half, color=ink.faint, alpha=0.2, linewidth=0)
        axes.plot(true, said, "o", color=ink.accent, markersize=3.5)
        return figure

    told = f"On the dotted line predictions are right; {len(true)} untouched examples."
    if half is not None:
        told += (
            f" The band of ± {half:.3g} shall hold {percent(intervals['coverage'])} of new targets, and "
            f"holds {percent(intervals['measured'], 1)} of these (of several numbers all of an example's at "
            "once)."
        )
    rows = list(zip(found["names"], true.tolist(), said.tolist(), strict=True))
    key = "predicted" if len(found["outputs"]) == 1 else f"predicted-{place + 1}"
    return Drawn(key, title, told, draw, ("input", f"true {name}", f"predicted {name}"), rows)


def calibration(document: Document) -> Drawn:
    """Confidence against accuracy."""
    found = document["calibration"]
    bins = [b for b in found["bins"] if b["count"]]
    over = sum(b["count"] * (b["confidence"] - b["accuracy"]) for b in bins) / sum(b["count"] for b in bins)
    way = "too sure" if over > 0 else "too careful"
    title = f"Probabilities are off by {100 * found['error']:.1f} points on average, on the whole {way}"
    if found["error"] < 0.05:
        title = f"Probabilities mean what they say, to {100 * found['error']:.1f} points on average"

    def draw(ink: Ink) -> Figure:
        figure, axes = axes_of(ink, "confidence (%)", "accuracy (%)")
        axes.plot([0, 100], [0, 100], color=ink.faint, linestyle=":", linewidth=1)
        total = sum(b["count"] for b in bins)
        for one in bins:
            size = 3 + 14 * (one["count"] / total) ** 0.5
            spot = 100 * one["confidence"], 100 * one["accuracy"]
            axes.plot(*[[n] for n in spot], "o", color=ink.accent, markersize=size)
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 103)
        return figure

    told = (
        f"Calibration error {percent(found['error'], 1)}, {percent(found['error_before'], 1)} before the "
        f"temperature {found['temperature']:.2f} that was fitted on {found['examples']}. Larger spots stand "
        "for more examples; on the dotted line confidence is accuracy."
    )
    header = ("confidence from", "to", "examples", "mean confidence", "accuracy")
    rows = [(b["low"], b["high"], b["count"], b["confidence"], b["accuracy"]) for b in bins]
    return Drawn("calibration", title, told, draw, header, rows)
