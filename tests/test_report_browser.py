"""The pages of reports in a real browser: nothing overflows or overlaps, and axe objects to nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from chromium import VIEWS, opened, scrolls_sideways, violations
from command_line import done
from compared import comparison_file
from packaged_data import pictures_of

from topgraft.curves import MAJORITY, PRETRAINED
from topgraft.report.comparison import gather_comparison
from topgraft.report.numbers import gather
from topgraft.report.page import number
from topgraft.report.reports import write_report
from topgraft.report.runs import gather_runs

pytestmark = pytest.mark.slow
TEXTS = """
() => [...document.querySelectorAll('figure svg text')].map(t => {
  const b = t.getBoundingClientRect();
  return {figure: t.closest('figure').id, text: t.textContent, x: b.x, y: b.y, w: b.width, h: b.height};
}).filter(t => t.w > 0 && t.text.trim())
"""


NETWORK = ("--backbone", "timm/test_efficientnet", "--weights", "none")
FIGURES = {
    "run": ("depth", "chain", "trade-off", "search", "training", "health", "confusion", "calibration"),
    "runs": ("scores", "difference", "depths", "costs"),
    "comparison": ("differences", "examples", "seconds", "gaps"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Path]]]:
    """What each page is of: a fit on pictures that trained two blocks, that beside another, a comparison."""
    place = tmp_path_factory.mktemp("browser")
    for name in ("animals", "buildings", "food"):
        (place / "photos" / name).mkdir(parents=True)
        for picture in pictures_of(name, 0, 16):
            shutil.copy(picture, place / "photos" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "store"))
        trained = ("--keep", "4", "--freeze", "3,2", "--epochs", "2")
        done("fit", place / "photos", "-o", place / "photos.topgraft", *NETWORK, *trained)
        frozen = ("--keep", "2", "--freeze", "all")
        done("fit", place / "photos", "-o", place / "frozen-and-a-long-name.topgraft", *NETWORK, *frozen)
        run = place / "photos.topgraft"
        yield {
            "run": [run],
            "runs": [run, place / "frozen-and-a-long-name.topgraft"],
            "comparison": [comparison_file(place / "comparison.json")],
        }


@pytest.fixture(scope="module")
def pages(made: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page, written."""
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_report(places, folder / f"{name}.html")[0] for name, places in made.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as browser:
        yield browser


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_scrolls_sideways_overlaps_or_keeps_anybody_out(
    pages: dict[str, Path], browser: Any, width: int, scheme: str, name: str
):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert not scrolls_sideways(page)
    texts = page.evaluate(TEXTS)
    assert {t["figure"] for t in texts} == set(FIGURES[name])
    assert overlapping(texts) == []
    assert min(t["h"] for t in texts if t["figure"] != "chain") >= 9, "letters are too small to read"
    assert violations(page) == []
    context.close()


def test_all_texts_of_the_chain_are_of_one_size(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto(pages["run"].as_uri())
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('figure#chain text')].map(t => getComputedStyle(t).fontSize)"
    )
    page.close()
    assert len(sizes) > 10
    assert set(sizes) == {"12px"}


def overlapping(texts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of texts of one figure whose boxes have more than a pixel in common."""
    found = []
    for a, b in combinations(texts, 2):
        if a["figure"] == b["figure"]:
            across = min(a["x"] + a["w"], b["x"] + b["w"]) - max(a["x"], b["x"])
            down = min(a["y"] + a["h"], b["y"] + b["h"]) - max(a["y"], b["y"])
            if across > 1 and down > 1:
                found.append((a["text"], b["text"]))
    return found


def test_boxes_that_overlap_are_found():
    box = {"figure": "a", "x": 0, "y": 0, "w": 10, "h": 10}
    one, two, three = ({**box, "text": str(i), "x": 8 * i} for i in range(3))
    assert overlapping([one, two, three]) == [("0", "1"), ("1", "2")]
    assert overlapping([one, {**two, "figure": "b"}]) == []


def cells(page: Any, figure: str) -> list[list[str]]:
    """The table of a figure's numbers, as it is shown."""
    return page.evaluate(
        "id => [...document.querySelectorAll(`#${id} ~ details tbody tr`)]"
        ".map(r => [...r.cells].map(c => c.textContent))",
        figure,
    )


def numbers_in(page: Any) -> Any:
    return json.loads(page.evaluate("() => document.getElementById('numbers').textContent"))


def test_the_tables_of_the_figures_hold_the_numbers_of_the_json(
    made: dict[str, list[Path]], pages: dict[str, Path], browser: Any
):
    page = browser.new_page()
    page.goto(pages["run"].as_uri())
    numbers = numbers_in(page)
    assert numbers["depth"] == json.loads(json.dumps(gather(made["run"][0])["depth"]))
    shown = [(int(r[0]), r[1], float(r[2])) for r in cells(page, "depth")]
    wanted = [(c["keep"], c["block"], float(f"{c['score']:.3g}")) for c in numbers["depth"]["cuts"]]
    assert shown == wanted

    def columns(figure: str, start: int, end: int | None = None) -> list[list[str]]:
        return [row[start:end] for row in cells(page, figure)]

    assert columns("trade-off", 3, 4) == [[number(c["score"])] for c in numbers["depth"]["cuts"]]
    keys: tuple[str, ...] = ("keep", "freeze", "epochs", "loss", "score", "seconds")
    tried = [[number(one[key]) for key in keys] for one in numbers["search"]["tried"]]
    assert [row[:3] + row[4:] for row in cells(page, "search")] == tried
    assert len({tuple(row[:2]) for row in tried}) == 2
    keys = ("number", "loss", "validation_loss", "validation_score", "seconds")
    assert cells(page, "training") == [[number(e[k]) for k in keys] for e in numbers["training"]["epochs"]]
    relative = [[number(x) for x in row] for row in numbers["health"]["relative"]]
    assert columns("health", 2) == relative
    assert columns("confusion", 1) == [[number(x) for x in row] for row in numbers["untouched"]["confusion"]]
    counts = [number(b["count"]) for b in numbers["calibration"]["bins"] if b["count"]]
    assert [row[2] for row in cells(page, "calibration")] == counts
    page.close()


def test_so_they_do_where_runs_stand_side_by_side(
    made: dict[str, list[Path]], pages: dict[str, Path], browser: Any
):
    page = browser.new_page()
    page.goto(pages["runs"].as_uri())
    numbers = numbers_in(page)
    assert numbers == json.loads(json.dumps(gather_runs(made["runs"])))
    (pair,) = numbers["pairs"]
    (row,) = cells(page, "difference")
    assert row[2:5] == [number(pair[name]) for name in ("gain", "low", "high")]
    cuts = [(run["letter"], c) for run in numbers["runs"] for c in run["depth"]["cuts"]]
    assert [(r[0], r[3]) for r in cells(page, "depths")] == [(x, number(c["score"])) for x, c in cuts]
    scores = [(run["letter"], s) for run in numbers["runs"] for s in run["scores"]]
    assert [(r[0], r[2]) for r in cells(page, "scores")] == [(x, number(s["value"])) for x, s in scores]
    seconds = [row for row in numbers["costs"] if row["amount"] == "seconds"]
    measured = [(row["stage"], number(was)) for row in seconds for was in row["was"] if was is not None]
    assert [(r[0], r[3]) for r in cells(page, "costs")] == measured
    first = page.evaluate("() => document.querySelector('.summary p').textContent")
    assert first == numbers["summary"][0]
    heading = page.evaluate("() => document.querySelector('main h2').textContent")
    assert heading == "What differs"
    page.close()


def test_so_they_do_for_a_comparison(made: dict[str, list[Path]], pages: dict[str, Path], browser: Any):
    page = browser.new_page()
    page.goto(pages["comparison"].as_uri())
    numbers = numbers_in(page)
    assert numbers == json.loads(json.dumps(gather_comparison(made["comparison"][0])))
    points = [(a["name"], p) for a in numbers["comparison"]["arms"] for p in a["curve"]]
    for figure in ("examples", "seconds"):
        shown = [(r[0], *r[4:]) for r in cells(page, figure)]
        names = ("value", "low", "high", "seconds", "gap")
        assert shown == [(arm, *(number(p[n]) for n in names)) for arm, p in points]
    found = numbers["comparison"]
    others = [(a["name"], found["differences"][a["name"]]) for a in found["arms"] if a["name"] != PRETRAINED]
    wanted = [[name, *(number(d[key]) for key in ("value", "low", "high"))] for name, d in others]
    assert cells(page, "differences") == wanted
    gaps = [[a["name"], number(a["score"]), number(a["gap"])] for a in found["arms"] if a["name"] != MAJORITY]
    assert [[r[0], *r[2:]] for r in cells(page, "gaps")] == gaps
    assert page.evaluate("() => document.querySelector('b')") is None
    page.close()
