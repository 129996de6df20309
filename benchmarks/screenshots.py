"""The pages of a report in a browser, as pictures to look at.

    python benchmarks/screenshots.py            makes what is missing, and all pictures
    python benchmarks/screenshots.py --again    makes runs and comparison anew, too

Three fits and a comparison on a few of the packaged pictures: their pages and that of ``topgraft serve``,
each as wide as a phone and as a desk, light and dark, in ``build/screenshots`` as ``PAGE-WIDTH-SCHEME.png``.
What was fitted is kept in ``build/screenshots/made``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import ROOT

from topgraft import demo

OUT = ROOT / "build" / "screenshots"
MADE = OUT / "made"
KINDS, EACH = ("animals", "buildings", "food", "plants"), 24
WIDTHS, SCHEMES = (390, 1280), ("light", "dark")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", action="store_true", help="make runs and comparison anew")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of the comparison")
    asked = parser.parse_args()
    if asked.again:
        shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TOPGRAFT_CACHE", str(MADE / "store"))
    pages = made(asked.budget)
    with served(MADE / "frozen.topgraft") as address:
        for path in shots({**{name: page.as_uri() for name, page in pages.items()}, "serve": address}):
            print(path.relative_to(ROOT))


def made(budget: float) -> dict[str, Path]:
    """The report pages by name; fits and the comparison only where they are not there yet."""
    data = photos()
    fits = {
        "trained": ("--keep", "14", "--freeze", "12,9", "--epochs", "2"),
        "frozen": ("--keep", "60%", "--freeze", "all"),
        "other-split": ("--freeze", "all", "--seed", "1"),
    }
    for name, options in fits.items():
        if not (MADE / f"{name}.topgraft" / "result.json").is_file():
            topgraft("fit", data, "-o", MADE / f"{name}.topgraft", *options)
    comparison = MADE / "comparison.json"
    if not comparison.is_file() or "result" not in json.loads(comparison.read_text()):
        topgraft("compare", data, "-o", comparison, "--budget", f"{budget:g}")
    runs = [MADE / f"{name}.topgraft" for name in fits]
    given = {"run": runs[:1], "two-runs": runs[:2], "three-runs": runs, "comparison": [comparison]}
    pages = {name: OUT / f"{name}.html" for name in given}
    for name, places in given.items():
        topgraft("report", *places, "-o", pages[name], "--figures", OUT / f"{name}-figures")
    return pages


def photos() -> Path:
    """A folder of some of the packaged pictures."""
    folder = MADE / "photos"
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for picture in sorted((demo.pictures() / kind).iterdir())[:EACH]:
            shutil.copy(picture, folder / kind)
    return Path("photos")  # as a page shows it


def topgraft(*arguments: str | Path) -> None:
    """Run a command beside the pictures; what it says is seen."""
    subprocess.run([sys.executable, "-m", "topgraft", *map(str, arguments)], check=True, cwd=MADE)


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of the page of a saved model, while it is served."""
    command = [sys.executable, "-m", "topgraft", "serve", str(model), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.send_signal(signal.SIGTERM)


def shots(addresses: dict[str, str]) -> Iterator[Path]:
    """A picture of each page at each width in each scheme, all of it from top to bottom."""
    from playwright.sync_api import sync_playwright

    browser_at = next(
        path for n in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(n))
    )
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_at, args=["--no-sandbox", "--disable-gpu"])
        for name, address in addresses.items():
            for width in WIDTHS:
                for scheme in SCHEMES:
                    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
                    page.goto(address)
                    page.wait_for_load_state("networkidle")
                    path = OUT / f"{name}-{width}-{scheme}.png"
                    page.screenshot(path=path, full_page=True)
                    page.close()
                    yield path
        browser.close()


if __name__ == "__main__":
    main()
