"""The report in a real browser: nothing overflows or overlaps, and axe finds nothing to object to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from command_line import done
from packaged_data import pictures_of
from playwright.sync_api import sync_playwright

from topgraft.report.numbers import gather
from topgraft.report.page import write_report

pytestmark = pytest.mark.slow
VIEWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
TEXTS = """
() => [...document.querySelectorAll('figure svg text')].map(t => {
  const b = t.getBoundingClientRect();
  return {figure: t.closest('figure').id, text: t.textContent, x: b.x, y: b.y, w: b.width, h: b.height};
}).filter(t => t.w > 0 && t.text.trim())
"""


def chromium() -> str:
    """Where Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        assert os.environ.get("TOPGRAFT_BROWSER") != "required", "Chromium is gone that was there"
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fit on pictures that trained two blocks."""
    place = tmp_path_factory.mktemp("browser")
    for name in ("animals", "buildings", "food"):
        (place / "photos" / name).mkdir(parents=True)
        for picture in pictures_of(name, 0, 16):
            shutil.copy(picture, place / "photos" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "store"))
        network = ("--backbone", "timm/test_efficientnet", "--weights", "none")
        trained = ("--keep", "4", "--freeze", "2", "--epochs", "2")
        done("fit", place / "photos", "-o", place / "photos.topgraft", *network, *trained)
        write_report(place / "photos.topgraft")
        yield place / "photos.topgraft"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_scrolls_sideways_overlaps_or_keeps_anybody_out(
    run: Path, browser: Any, width: int, scheme: str
):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((run / "report.html").as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    wide = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    texts = page.evaluate(TEXTS)
    assert len({t["figure"] for t in texts}) >= 6
    assert overlapping(texts) == []
    assert min(t["h"] for t in texts if t["figure"] != "chain") >= 9, "letters are too small to read"
    violations = Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in violations] == []
    context.close()


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


def test_the_tables_of_the_figures_hold_the_numbers_of_the_json(run: Path, browser: Any):
    page = browser.new_page()
    page.goto((run / "report.html").as_uri())
    numbers = json.loads(page.evaluate("() => document.getElementById('numbers').textContent"))
    assert numbers["depth"] == json.loads(json.dumps(gather(run)["depth"]))
    rows = page.evaluate(
        "() => [...document.querySelectorAll('#depth ~ details tbody tr')]"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    shown = [(int(r[0]), r[1], float(r[2])) for r in rows]
    wanted = [(c["keep"], c["block"], float(f"{c['score']:.3g}")) for c in numbers["depth"]["cuts"]]
    assert shown == wanted
    page.close()
