"""The documentation as a site: built without a warning, its links lead somewhere, everybody can read it."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from chromium import VIEWS, opened, scrolls_sideways, violations

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ("index.html", "commands.html", "python.html", "evidence.html", "search.html")


def built(out: Path, *, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "site" / "build.py", "--out", out],
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "site"
    done = built(out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as one:
        yield one


def test_every_link_inside_leads_to_a_page_and_a_place_in_it(site: Path):
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    places = {name: set(re.findall(r'id="([^"]+)"', text)) for name, text in pages.items()}
    wrong = []
    for name, text in pages.items():
        for link in re.findall(r'href="([^"]+)"', text):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, place = unquote(re.sub(r"\?[^#]*", "", link)).partition("#")
            there = target == "" or (site / target).exists()
            if not there or (place and place not in places.get(target or name, {place})):
                wrong.append((name, link))
    assert wrong == []


def test_a_page_without_a_place_is_an_error_that_says_where_to_put_it(tmp_path: Path):
    for folder in ("site", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs" / "new-page.md").write_text("# New\n")
    done = built(tmp_path / "out", root=tmp_path)
    assert done.returncode == 1
    assert "docs/new-page.md has no place in site/build.py: name it in PAGES." in done.stderr


@pytest.mark.parametrize(("width", "scheme"), [VIEWS[0], VIEWS[-1]])
def test_nothing_scrolls_sideways_or_keeps_anybody_out(address: str, browser: Any, width: int, scheme: str):
    looked_at(browser, address, width, scheme, SAMPLE)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_so_it_is_on_every_page(site: Path, address: str, browser: Any, width: int, scheme: str):
    looked_at(browser, address, width, scheme, sorted(page.name for page in site.glob("*.html")))


def looked_at(
    browser: Any, address: str, width: int, scheme: str, names: tuple[str, ...] | list[str]
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in names:
        page.goto(f"{address}/{name}")
        assert not scrolls_sideways(page), name
        assert violations(page) == [], name
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    context.close()


def test_a_word_is_found_by_keyboard_alone(address: str, browser: Any):
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{address}/index.html")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.name") == "q":
            break
    page.keyboard.type("cutmix")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results ul.search li a")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("() => !!document.activeElement.closest('#search-results')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("article")
    assert "cutmix" in page.inner_text("article").lower()
    assert "search.html" not in page.url
    page.close()
