"""A chain as a picture (SVG): the blocks, their shares of parameters and work, where keep and freeze fall.

Text is set in a fixed-width font, so that the width of every text is known without a font: places are
computed, nothing overlaps, and the picture is as wide as it needs to be.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from topgraft.chain import Block
from topgraft.choices import fate
from topgraft.console import counted, percent
from topgraft.errors import TopgraftError

SIZE = 12
"""Height of a letter's body, in the picture's units."""
CELL = 0.62 * SIZE
"""The widest advance of a letter in the usual fixed-width fonts."""
ROW, MARGIN, GAP, BAR = 22, 20, 16, 120
LONGEST = 44
"""Cells of the longest name that is shown whole; a pointer resting on a row shows it whole always."""
MEANINGS = {
    "frozen": "frozen: never changes",
    "trained": "trained: changes together with the new head",
    "kept": "kept, with a new head after it",
    "dropped": "dropped: not part of the new model",
}
LIGHT = {
    "page": "#ffffff",
    "text": "#1b1f24",
    "faint": "#57606a",
    "frozen": "#1f6fb2",
    "trained": "#b4540a",
    "kept": "#1f6fb2",
    "dropped": "#7a828c",
    "block": "#1f6fb2",
}
DARK = {
    "page": "#14171c",
    "text": "#e8eaed",
    "faint": "#a4adb8",
    "frozen": "#6cb2ee",
    "trained": "#f2a65e",
    "kept": "#6cb2ee",
    "dropped": "#8b939e",
    "block": "#6cb2ee",
}


@dataclass(frozen=True)
class Row:
    """One line of the picture: a block, or the new head after the kept ones."""

    index: int
    name: str
    part: str
    parameters: float
    work: float
    told: str


@dataclass(frozen=True)
class Region:
    """Rows that share a fate, from the first to the last."""

    part: str
    first: int
    last: int
    told: str


def svg(
    blocks: Sequence[Block], keep: int | None = None, freeze: int | None = None, *, title: str = ""
) -> str:
    """Draw a chain, input side at the top.

    Parameters
    ----------
    blocks
        Of the chain.
    keep
        How many of them are kept; nothing is marked when not given.
    freeze
        How many of the kept ones are frozen; when not given, kept ones are not told apart.
    title
        Name of the network.

    Returns
    -------
    str
        An SVG document with a title, a description of all that it shows, and colours for light and for
        dark surroundings.

    Raises
    ------
    TopgraftError
        If ``keep`` is not 1 to the number of blocks, or ``freeze`` not 0 to ``keep``.

    Examples
    --------
    >>> import torch
    >>> from topgraft.chain import Chain
    >>> layers = [torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)]
    >>> chain = Chain.of(torch.nn.Sequential(*layers), torch.randn(2, 4))
    >>> picture = svg(chain.blocks, keep=2, freeze=1, title="plain layers")
    >>> picture.splitlines()[0][:16], "trained: block 2 and the new head" in picture
    ('<svg xmlns="http', True)
    """
    _check(len(blocks), keep, freeze)
    rows = _rows(blocks, keep, freeze)
    regions = _regions(rows)
    called, count = _legible(title) or "A chain", counted(len(blocks), "block")
    headline = f"{_short(called)}: {count}, input side first"
    depth = _depth(blocks, keep, freeze)

    names = [_short(row.name) for row in rows]
    across = _Columns(
        number=CELL * len(str(len(blocks))),
        name=CELL * max(cells(n) for n in [*names, "block"]),
        share=CELL * len("100.0 %"),
    )
    top = MARGIN + ROW * (1 + bool(depth) + len(regions)) + GAP
    right = max(
        across.region + CELL * max((cells(region.told) for region in regions), default=0),
        MARGIN + CELL * cells(headline),
        MARGIN + CELL * cells(depth),
        MARGIN + SIZE + GAP / 2 + CELL * max((cells(MEANINGS[r.part]) for r in regions), default=0),
    )
    wide, high = right + MARGIN, top + ROW * (1 + len(rows)) + MARGIN
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_n(wide)} {_n(high)}",
            "width": _n(wide),
            "height": _n(high),
            "role": "img",
            "aria-labelledby": "chain-title",
            "aria-describedby": "chain-desc",
        },
    )
    _add(root, "title", f"{called}: {count}, input side first", id="chain-title")
    _add(root, "desc", _described(depth, rows, regions), id="chain-desc")
    _add(root, "style", _style())
    _add(root, "rect", None, "page", x="0", y="0", width="100%", height="100%")
    y = float(MARGIN)
    _text(root, MARGIN, y, headline, "text strong")
    if depth:
        y += ROW
        _text(root, MARGIN, y, depth, "text")
    for region in regions:
        y += ROW
        _box(root, MARGIN, y + (ROW - SIZE) / 2, SIZE, SIZE, region.part)
        _text(root, MARGIN + SIZE + GAP / 2, y, MEANINGS[region.part], "text")
    _table(root, rows, names, across, top)
    for region in regions:
        start, end = top + ROW * (1 + region.first) + 2, top + ROW * (2 + region.last) - 2
        line = across.region - GAP / 2
        path = f"M{_n(line - 5)} {_n(start)}H{_n(line)}V{_n(end)}H{_n(line - 5)}"
        _add(root, "path", None, f"bracket {region.part}", d=path)
        _text(root, across.region, (start + end - ROW) / 2, region.told, "text")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def cells(text: str) -> int:
    """How many letters' widths a text takes in a fixed-width font.

    Examples
    --------
    >>> cells("blocks.5"), cells("层.5")
    (8, 4)
    """
    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return wide - sum(unicodedata.combining(c) > 0 for c in text)


@dataclass(frozen=True)
class _Columns:
    """Where the columns begin, from the widths of those that differ."""

    number: float
    name: float
    share: float

    @property
    def number_end(self) -> float:
        return MARGIN + self.number

    @property
    def name_start(self) -> float:
        return self.number_end + GAP

    @property
    def parameters(self) -> float:
        return self.name_start + self.name + GAP

    @property
    def work(self) -> float:
        return self.parameters + BAR + GAP / 2 + self.share + GAP

    @property
    def region(self) -> float:
        return self.work + BAR + GAP / 2 + self.share + 2 * GAP


def _check(count: int, keep: int | None, freeze: int | None) -> None:
    if keep is not None and not 1 <= keep <= count:
        raise TopgraftError(f"keep={keep} is out of range for {counted(count, 'block')}: give 1 to {count}.")
    if freeze is not None and keep is None:
        raise TopgraftError(f"freeze={freeze} was given without keep: give 1 to {count} for keep too.")
    if freeze is not None and keep is not None and not 0 <= freeze <= keep:
        raise TopgraftError(f"freeze={freeze} is out of range for keep={keep}: give 0 to {keep}.")


def _rows(blocks: Sequence[Block], keep: int | None, freeze: int | None) -> list[Row]:
    parameters = sum(b.parameters for b in blocks) or 1
    work = sum(b.macs for b in blocks) or 1
    rows: list[Row] = []
    for index, block in enumerate(blocks, start=1):
        part = fate(index, keep, freeze) or "block"
        own, done = block.parameters / parameters, block.macs / work
        shapes = " + ".join("×".join("n" if s == -1 else str(s) for s in shape) for shape in block.shapes)
        name = _legible(block.name)
        said = (
            f"{name} ({_legible(block.kind)}, gives {shapes}): {counted(block.parameters, 'parameter')} "
            f"({percent(own, 1)}), {block.macs / 1e6:,.1f} M multiply-adds ({percent(done, 1)})"
        )
        rows.append(Row(index, name, part, own, done, said + (f", {part}" if part in MEANINGS else "")))
        if index == keep:
            rows.append(
                Row(0, "new head", "kept" if freeze is None else "trained", 0, 0, "new head, trained")
            )
    return rows


def _regions(rows: Sequence[Row]) -> list[Region]:
    """What is frozen, what is trained and so on, as far as there is any."""
    found = []
    for part in dict.fromkeys(row.part for row in rows if row.part in MEANINGS):
        places = [i for i, row in enumerate(rows) if row.part == part]
        inside = [rows[i].index for i in places if rows[i].index]
        head = any(not rows[i].index for i in places)
        what = [_span(inside)] if inside else []
        what += [("the new head" if inside else "only the new head")] if head else []
        found.append(Region(part, places[0], places[-1], f"{part}: {' and '.join(what)}"))
    return found


def _span(indices: Sequence[int]) -> str:
    return f"block {indices[0]}" if len(indices) == 1 else f"blocks {indices[0]} to {indices[-1]}"


def _depth(blocks: Sequence[Block], keep: int | None, freeze: int | None) -> str:
    if keep is None:
        return ""

    def of(count: int, whole: int) -> str:
        return f"{count} of {whole}" + (f" (to {_short(_legible(blocks[count - 1].name))})" if count else "")

    return f"keep {of(keep, len(blocks))}" + (f", freeze {of(freeze, keep)}" if freeze is not None else "")


def _described(depth: str, rows: Sequence[Row], regions: Sequence[Region]) -> str:
    start = [f"{depth}." if depth else "", *(f"{region.told}." for region in regions)]
    return " ".join([*filter(None, start), *(f"{row.index or ''} {row.told}.".strip() for row in rows)])


def _table(root: ET.Element, rows: Sequence[Row], names: Sequence[str], across: _Columns, top: float) -> None:
    _text(root, across.name_start, top, "block", "faint")
    _text(root, across.parameters, top, "parameters", "faint")
    _text(root, across.work, top, "work", "faint")
    longest = max(max(row.parameters, row.work) for row in rows) or 1
    for position, (row, name) in enumerate(zip(rows, names, strict=True), start=1):
        y = top + ROW * position
        group = _add(root, "g", None, "row")
        _add(group, "title", row.told)
        if not row.index:
            _box(group, across.name_start - GAP / 2, y + 2, across.name + GAP, ROW - 4, "head")
            _text(group, across.name_start, y, name, "text")
            continue
        _text(group, across.number_end, y, str(row.index), "faint end")
        _text(group, across.name_start, y, name, "faint" if row.part == "dropped" else "text")
        for start, share in ((across.parameters, row.parameters), (across.work, row.work)):
            _box(group, start, y + 5, BAR * share / longest, ROW - 10, f"bar {row.part}")
            _text(group, start + BAR + GAP / 2 + across.share, y, percent(share, 1), "faint end")


def _style() -> str:
    def rules(colours: dict[str, str]) -> str:
        shown = [f".page{{fill:{colours['page']}}}", f".text{{fill:{colours['text']}}}"]
        shown += [f".faint{{fill:{colours['faint']}}}", f".head{{fill:none;stroke:{colours['trained']}}}"]
        for part in (*MEANINGS, "block"):
            fill = "none" if part == "dropped" else colours[part]
            shown.append(f".{part}{{fill:{fill};stroke:{colours[part]}}}")
        return "".join(shown)

    font = f"text{{font:{SIZE}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace}}"
    fixed = f"{font}.strong{{font-weight:bold}}.end{{text-anchor:end}}.head{{stroke-dasharray:4 3}}"
    late = ".bracket{fill:none;stroke-width:2}"  # after the colours, so that a bracket has no filling
    return f"{fixed}{rules(LIGHT)}{late}@media(prefers-color-scheme:dark){{{rules(DARK)}{late}}}"


def _legible(text: str) -> str:
    """The text without signs that XML can't hold or that would break a line."""
    return re.sub(
        r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text
    )


def _short(name: str) -> str:
    """The name with its middle left out where it is too long to show."""
    if cells(name) <= LONGEST:
        return name
    half = LONGEST // 2
    while cells(shorter := f"{name[:half]}…{name[-half:]}") > LONGEST:
        half -= 1
    return shorter


def _add(parent: ET.Element, tag: str, text: str | None, kind: str = "", **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, ({"class": kind} if kind else {}) | attributes)
    element.text = text
    return element


def _text(parent: ET.Element, x: float, y: float, text: str, kind: str) -> None:
    """A line of text in the row that begins at ``y``."""
    _add(parent, "text", text, kind, x=_n(x), y=_n(y + ROW / 2 + 0.35 * SIZE))


def _box(parent: ET.Element, x: float, y: float, width: float, height: float, kind: str) -> None:
    _add(parent, "rect", None, kind, x=_n(x), y=_n(y), width=_n(width), height=_n(height))


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
