from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import example_maps, maps

from topgraft.chain import Block, Chain
from topgraft.drawing import DARK, LIGHT, MEANINGS, svg
from topgraft.errors import TopgraftError

SVG = "{http://www.w3.org/2000/svg}"
SIZE = 12
WIDEST = 0.6021 * SIZE  # the advance of DejaVu Sans Mono, the widest of the fonts that are asked for
ROOM = 5  # what must be free between two things side by side
BLOCKS = Chain.of(maps(depth=5), example_maps()).blocks


@dataclass(frozen=True)
class Box:
    """What an element covers, in the picture's units."""

    left: float
    top: float
    right: float
    bottom: float
    what: str

    def overlaps(self, other: Box) -> bool:
        apart = self.right + ROOM <= other.left or other.right + ROOM <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def width(text: str) -> float:
    return WIDEST * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def texts(root: ET.Element) -> list[Box]:
    """Where texts stand, from 0.93 above the line to 0.24 below it, as that font draws them."""
    found = []
    for element in root.iter(f"{SVG}text"):
        x, y, text = float(element.attrib["x"]), float(element.attrib["y"]), element.text or ""
        left = x - width(text) if "end" in element.attrib["class"].split() else x
        found.append(Box(left, y - 0.93 * SIZE, left + width(text), y + 0.24 * SIZE, text))
    return found


def rects(root: ET.Element, kind: str) -> list[Box]:
    found = []
    for element in root.iter(f"{SVG}rect"):
        if kind in element.attrib["class"].split():
            x, y, wide, high = (float(element.attrib[n]) for n in ("x", "y", "width", "height"))
            found.append(Box(x, y, x + wide, y + high, element.attrib["class"]))
    return found


def rows(root: ET.Element) -> list[ET.Element]:
    return [g for g in root.iter(f"{SVG}g") if g.attrib["class"] == "row"]


def title_of(row: ET.Element) -> str:
    return row.findtext(f"{SVG}title") or ""


def block(index: int, name: str, parameters: int, macs: int) -> Block:
    return Block(index, name, "Linear", (4,), "vector", parameters, macs, verified=True, difference=0.0)


@st.composite
def chains(draw: st.DrawFn, alphabet: st.SearchStrategy[str]) -> tuple[list[Block], int | None, int | None]:
    """Any names and sizes, with keep and freeze, or with keep alone, or with neither."""
    count = draw(st.integers(1, 12))
    names = st.text(alphabet, max_size=70)
    sizes = st.one_of(st.just(0), st.integers(1, 10**12))
    blocks = [block(i, draw(names), draw(sizes), draw(sizes)) for i in range(1, count + 1)]
    keep = draw(st.none() | st.integers(1, count))
    return blocks, keep, None if keep is None else draw(st.none() | st.integers(0, keep))


@given(chain=chains(st.sampled_from("abz019._-<>&\"' 层ä")), title=st.text("ab/.&层", max_size=80))
@settings(max_examples=150, deadline=None)
def test_nothing_overlaps_and_nothing_leaves_the_picture(
    chain: tuple[list[Block], int | None, int | None], title: str
) -> None:
    root = ET.fromstring(svg(*chain, title=title))
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    shown = texts(root)
    bars = [*rects(root, "bar"), *(b for part in MEANINGS for b in rects(root, part))]
    for box in [*shown, *bars, *rects(root, "head")]:
        assert box.left >= 0, box
        assert box.top >= 0, box
        assert box.right <= wide, box
        assert box.bottom <= high, box
    for one, other in itertools.combinations(shown, 2):
        assert not one.overlaps(other), (one, other)
    for one, other in itertools.product(shown, bars):
        assert not one.overlaps(other), (one, other)


@given(chain=chains(st.characters()), title=st.text(st.characters()))
@settings(deadline=None)
def test_any_name_gives_xml_that_can_be_read(
    chain: tuple[list[Block], int | None, int | None], title: str
) -> None:
    picture = svg(*chain, title=title)
    assert picture.encode()
    assert len(rows(ET.fromstring(picture))) == len(chain[0]) + (chain[1] is not None)


@given(chain=chains(st.sampled_from("ab.")))
@settings(deadline=None)
def test_bars_are_as_long_as_the_shares(chain: tuple[list[Block], int | None, int | None]) -> None:
    blocks = chain[0]
    found = rects(ET.fromstring(svg(*chain)), "bar")
    shares = []
    for b in blocks:
        shares += [b.parameters / (sum(o.parameters for o in blocks) or 1)]
        shares += [b.macs / (sum(o.macs for o in blocks) or 1)]
    longest = max(shares) or 1
    assert [bar.right - bar.left for bar in found] == pytest.approx(
        [120 * s / longest for s in shares], abs=0.02
    )


@pytest.mark.parametrize(
    ("keep", "freeze", "fates", "regions"),
    [
        (None, None, ["block"] * 6, []),
        (
            4,
            None,
            ["kept"] * 4 + ["dropped"] * 2,
            ["kept: blocks 1 to 4 and the new head", "dropped: blocks 5 to 6"],
        ),
        (
            5,
            2,
            ["frozen"] * 2 + ["trained"] * 3 + ["dropped"],
            ["frozen: blocks 1 to 2", "trained: blocks 3 to 5 and the new head", "dropped: block 6"],
        ),
        (
            3,
            0,
            ["trained"] * 3 + ["dropped"] * 3,
            ["trained: blocks 1 to 3 and the new head", "dropped: blocks 4 to 6"],
        ),
        (6, 6, ["frozen"] * 6, ["frozen: blocks 1 to 6", "trained: only the new head"]),
    ],
)
def test_what_is_frozen_trained_and_dropped_is_told_in_words_and_by_place(keep, freeze, fates, regions):
    root = ET.fromstring(svg(BLOCKS, keep, freeze, title="own/maps"))
    shown = texts(root)
    found = [box for box in shown if re.match(r"(frozen|trained|kept|dropped): (block|only)", box.what)]
    assert [box.what for box in found] == regions
    in_words = [row for row in rows(root) if "new head" not in title_of(row)]
    bars = [row.find(f"{SVG}rect") for row in in_words]
    assert [bar.attrib["class"] for bar in bars if bar is not None] == [f"bar {fate}" for fate in fates]
    for region, box in zip(regions, found, strict=True):  # each stands within the heights of its own rows
        part = region.split(":")[0]
        own = [b for b in rects(root, part) if "bar" in b.what]
        own += rects(root, "head") if "head" in region else []
        assert min(b.top for b in own) - 5 <= box.top
        assert box.bottom <= max(b.bottom for b in own) + 5
    legend = [meaning for meaning in MEANINGS.values() if meaning in {box.what for box in shown}]
    assert [text.split(":")[0].split(",")[0] for text in legend] == [r.split(":")[0] for r in regions]


def test_the_new_head_stands_right_after_the_kept_blocks() -> None:
    root = ET.fromstring(svg(BLOCKS, 4, 2))
    order = [title_of(row).split(" ")[0] for row in rows(root)]
    names = [b.name for b in BLOCKS]
    assert order == [*names[:4], "new", *names[4:]]
    tops = [box.top for box in sorted(rects(root, "bar") + rects(root, "head"), key=lambda b: b.top)]
    assert tops.index(rects(root, "head")[0].top) == 2 * 4


def test_who_cannot_see_it_is_told_all_that_it_shows() -> None:
    root = ET.fromstring(svg(BLOCKS, 4, 2, title="own/maps"))
    by_id = {e.attrib["id"]: e.text or "" for e in root if "id" in e.attrib}
    assert root.attrib["role"] == "img"
    assert by_id[root.attrib["aria-labelledby"]] == "own/maps: 6 blocks, input side first"
    told = by_id[root.attrib["aria-describedby"]]
    assert told.startswith("keep 4 of 6 (to blocks.2), freeze 2 of 4 (to blocks.0). frozen: blocks 1 to 2. ")
    for b, fate in zip(BLOCKS, ["frozen"] * 2 + ["trained"] * 2 + ["dropped"] * 2, strict=True):
        assert re.search(
            rf"\b{b.index} {re.escape(b.name)} \({b.kind}, .*?{b.parameters:,} param.*?, {fate}\.", told
        )


def test_a_long_name_is_shortened_where_it_is_shown_and_whole_where_it_is_told() -> None:
    name = "encoder." + "very." * 20 + "deep"
    root = ET.fromstring(svg([block(1, name, 1, 1)], 1, 1))
    row = rows(root)[0]
    shown = [t.text or "" for t in row.iter(f"{SVG}text")][1]
    assert len(shown) < 50
    start, end = shown.split("…")
    assert name.startswith(start)
    assert name.endswith(end)
    assert title_of(row).startswith(f"{name} (")


def test_several_activations_are_told_with_their_shapes() -> None:
    one = Block(
        1, "a", "Both", (4, 6, 6), "map+tokens", 5, 5, verified=True, difference=0.0, others=((-1, 8),)
    )
    assert "gives 4×6×6 + n×8" in svg([one])


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_texts_and_bars_stand_out_in_light_and_in_dark(colours: dict[str, str]) -> None:
    """WCAG 2.2: texts at least 4.5 to 1 against the page, graphics at least 3 to 1."""
    page = luminance(colours["page"])
    for part, colour in colours.items():
        if part != "page":
            low, high = sorted((page, luminance(colour)))
            assert (high + 0.05) / (low + 0.05) >= (4.5 if part in ("text", "faint") else 3), part


def test_the_style_has_the_dark_colours_for_the_dark_only() -> None:
    light, dark = (ET.fromstring(svg(BLOCKS)).findtext(f"{SVG}style") or "").split(
        "@media(prefers-color-scheme:dark)"
    )
    assert {c for c in LIGHT.values() if c in light} == set(LIGHT.values())
    assert {c for c in DARK.values() if c in dark} == set(DARK.values())
    assert not any(c in light for c in set(DARK.values()) - set(LIGHT.values()))


@pytest.mark.parametrize(
    ("keep", "freeze", "says"),
    [
        (0, None, "keep=0 is out of range for 6 blocks: give 1 to 6"),
        (7, 1, "keep=7 is out of range for 6 blocks"),
        (3, 4, "freeze=4 is out of range for keep=3: give 0 to 3"),
        (3, -1, "freeze=-1 is out of range"),
        (None, 2, "freeze=2 was given without keep"),
    ],
)
def test_what_cannot_be_drawn_is_refused(keep, freeze, says):
    with pytest.raises(TopgraftError, match=re.escape(says)):
        svg(BLOCKS, keep, freeze)
