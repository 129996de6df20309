"""A real browser: pages are looked at in Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

VIEWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
"""Widths in pixels, and schemes of colours."""


def chromium() -> str:
    """Where Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        assert os.environ.get("TOPGRAFT_BROWSER") != "required", "Chromium is gone that was there"
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    return found


@contextmanager
def opened() -> Iterator[Any]:
    """The browser, closed at the end."""
    path = chromium()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def scrolls_sideways(page: Any) -> bool:
    """Whether a page is wider than the window."""
    wide = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return bool(wide[0] > wide[1])


def violations(page: Any) -> list[tuple[str, list[Any]]]:
    """What axe objects to, and where."""
    found = Axe().run(page).response["violations"]
    return [(v["id"], [n["target"] for n in v["nodes"]]) for v in found]
