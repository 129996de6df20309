"""How results show themselves in a notebook: tables and figures, in which whatever the data holds is text.

Each class whose results these are has a method ``_repr_html_``, which Jupyter asks for.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.console import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from topgraft.advise import DepthAdvice
    from topgraft.backbones.types import Backbone, LoadReport
    from topgraft.chain import Chain
    from topgraft.data.types import Data
    from topgraft.evidence import Evidence
    from topgraft.fit import Run
    from topgraft.history import History
    from topgraft.plan import Plan
    from topgraft.report.ink import Ink
    from topgraft.score import Score

MOST_ROWS = 60
"""Rows of a table that are shown; it then says how many there are."""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "", left: Any = ()) -> str:
    """A table, every cell of it text; numbers to the right, columns in ``left`` to the left.

    Examples
    --------
    >>> table(["name"], [["<b>"]], caption="a & b")
    '<table><caption>a &amp; b</caption><thead><tr><th scope="col" ...name</th></tr></thead>...&lt;b&gt;...'
    """
    places = ["text-align:left" if i in left else "text-align:right" for i in range(len(header))]
    every = list(rows)
    cells = [
        "".join(f'<td style="{p}">{html.escape(str(c))}</td>' for p, c in zip(places, row, strict=True))
        for row in every[:MOST_ROWS]
    ]
    heads = "".join(
        f'<th scope="col" style="{p}">{html.escape(n)}</th>' for p, n in zip(places, header, strict=True)
    )
    if len(every) > MOST_ROWS:
        cells.append(f'<td colspan="{len(header)}">{MOST_ROWS} of {len(every):,} rows</td>')
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{said}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def sentences(*texts: str) -> str:
    """Sentences below one another."""
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts if text)


def picture(svg: str | bytes, told: str) -> str:
    """An SVG document as an image, so that neither its style nor its names meet those of others."""
    code = base64.b64encode(svg.encode() if isinstance(svg, str) else svg).decode()
    return f'<img alt="{html.escape(told)}" src="data:image/svg+xml;base64,{code}">'


def _drawn(name: str, told: str, draw: Any) -> str:
    from topgraft.report.ink import Drawn, to_file

    return picture(to_file(Drawn(name, told, told, draw, (), []), "svg"), told)


def data(found: Data) -> str:
    """Examples by class, and what was decided and left out."""
    rows = [[name, f"{count:,}"] for name, count in found.counts.items()]
    counts = table(["class", "examples"], rows, left=(0,)) if rows else ""
    left_out = table(["left out", "reason"], [[o.name, o.reason] for o in found.left_out], left=(0, 1))
    return sentences(repr(found), *found.notes) + counts + (left_out if found.left_out else "")


def report(found: LoadReport) -> str:
    """Which weights arrived, and what did not."""
    rows = [
        [what, f"{len(names):,}", ", ".join(names[:5]) + (", …" if len(names) > 5 else "")]
        for what, names in (
            ("did not arrive", found.missing),
            ("belong nowhere", found.left_over),
            ("of the old output layer", found.not_needed),
            ("left out on purpose", found.beside),
        )
        if names
    ]
    return sentences(*found.lines()) + (
        table(["tensors", "number", "names"], rows, left=(0, 2)) if rows else ""
    )


def backbone(found: Backbone) -> str:
    """Its load report and its chain."""
    licence = f"Licence of the weights: {found.licence}." if found.licence else ""
    return report(found.report) + sentences(*found.preprocess.lines(), licence) + chain(found.chain)


def chain(found: Chain) -> str:
    """Its blocks as a table and as a picture."""
    from topgraft.drawing import svg

    parameters, work = np.cumsum(found.share_of_parameters()), np.cumsum(found.share_of_work())
    rows = [
        [
            block.index,
            block.name,
            block.kind,
            " + ".join(
                "×".join("n" if size == -1 else str(size) for size in shape) for shape in block.shapes
            ),
            f"{block.parameters:,}",
            percent(parameters[block.index - 1]),
            percent(work[block.index - 1]),
        ]
        for block in found
    ]
    header = ["keep", "block", "kind", "output", "parameters", "up to here", "work"]
    told = f"The chain of {len(found)} blocks as a picture, input side at the top"
    return table(header, rows, left=(1, 2, 3)) + picture(svg(found.blocks), told)


def evidence(found: Evidence) -> str:
    """The score at every cut with its interval, as a table and as a figure."""
    best, folds = found.best.keep, len(np.unique(found.fold_of))
    rows = [
        [
            cut.keep,
            percent(cut.score, 1),
            f"{percent(cut.low, 1)} to {percent(cut.high, 1)}",
            f"{cut.loss:.3f}",
            "best" if cut.keep == best else "",
        ]
        for cut in found.cuts
    ]
    said = f"A probe at each of {len(found.cuts)} depths, {folds} folds, {len(found.targets):,} examples"

    def draw(ink: Ink) -> Figure:
        from topgraft.report.ink import axes_of, whole_numbers

        figure, axes = axes_of(ink, "blocks kept", f"score, {folds} folds (%)")
        for cut in found.cuts:
            colour = ink.accent if cut.keep == best else ink.faint
            axes.plot([cut.keep] * 2, [100 * cut.low, 100 * cut.high], color=colour, linewidth=1.5)
            axes.plot([cut.keep], [100 * cut.score], "o", color=colour, markersize=4)
        axes.xaxis.set_major_locator(whole_numbers())
        return figure

    told = f"Score with its interval against the number of blocks kept; the highest is at {best}."
    shown = table(["keep", "score", "95 % interval", "loss", ""], rows, caption=said, left=(4,))
    return shown + _drawn("evidence", told, draw) + sentences(*found.notes)


def advice(found: DepthAdvice) -> str:
    """The advice, its reason, and how likely each depth is to be the best."""
    rows = [
        [
            keep,
            percent(share),
            "yes" if keep in found.in_set else "no",
            "advised" if keep == found.keep else "",
        ]
        for keep, share in found.p_best.items()
    ]
    header = ["keep", "chance of being best", "can't be told from the best", ""]
    said = f"These data can show differences of {found.smallest_difference:.1f} points or more."
    return sentences(f"keep {found.keep}: {found.reason}", said) + table(header, rows, left=(2, 3))


def plan(found: Plan) -> str:
    """Every decision with its reason."""
    rows = [[name, str(d["value"]), d["reason"]] for name, d in found.decisions.items()]
    return table(["decision", "value", "reason"], rows, left=(0, 1, 2))


def scores(*found: Score) -> str:
    """Scores with their intervals."""
    from topgraft.show import in_unit, is_share

    def shown(score: Score, value: float) -> str:
        if math.isnan(value):
            return "–"
        return percent(value, 1) if is_share(score.metric) else in_unit(value)

    rows = [
        [s.metric, shown(s, s.value), f"{shown(s, s.low)} to {shown(s, s.high)}", f"{s.n:,}"] for s in found
    ]
    return table(["score", "", "95 % interval", "examples"], rows, left=(0,))


def history(found: History) -> str:
    """Each epoch as a row, and its losses as a figure."""

    def cell(value: float, form: str) -> str:
        return "–" if math.isnan(value) else format(value, form)

    rows = [
        [
            epoch.number,
            cell(epoch.loss, ".3f"),
            cell(epoch.validation_loss, ".3f"),
            "–" if math.isnan(epoch.validation_score) else percent(epoch.validation_score, 1),
            cell(epoch.rate, ".2g"),
            f"{epoch.seconds:.1f}",
            "kept" if epoch.number == found.best else "",
        ]
        for epoch in found.epochs
    ]
    header = ["epoch", "loss", "validation loss", "validation score", "rate", "seconds", ""]

    def draw(ink: Ink) -> Figure:
        from topgraft.report.ink import axes_of, whole_numbers

        figure, axes = axes_of(ink, "epoch", "loss")
        numbers = [epoch.number for epoch in found.epochs]
        axes.plot(numbers, [e.loss for e in found.epochs], "o-", color=ink.faint, label="training")
        validation = [e.validation_loss for e in found.epochs]
        axes.plot(numbers, validation, "s--", color=ink.accent, label="validation")
        axes.legend(frameon=False, labelcolor=ink.text)
        axes.xaxis.set_major_locator(whole_numbers())
        return figure

    told = f"Loss of the training and the validation part, epoch by epoch; epoch {found.best} was kept."
    figure = _drawn("history", told, draw) if len(found.epochs) > 1 else ""
    return table(header, rows, left=(6,)) + figure + sentences(found.stopped)


def run(found: Run) -> str:
    """What a fit left behind: its scores, what was decided and why, where it is."""
    from topgraft.score import Score

    result = found.result
    kept = result["blocks"]["kept"][-1]
    frozen = result["blocks"]["frozen"][-1:] or ["none"]
    rows = [[name, reason] for name, reason in result["reasons"].items()]
    return (
        sentences(
            f"keep {found.keep} of {len(result['blocks']['all'])} (to {kept}), "
            f"freeze {found.freeze} (to {frozen[0]}) of {result['backbone']}; saved in {found.folder}"
        )
        + scores(*(Score(**score) for score in result["scores"]))
        + table(["decision", "reason"], rows, left=(0, 1))
    )
