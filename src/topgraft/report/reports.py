"""Which report is meant: of a run, of several side by side, or of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topgraft.errors import TopgraftError
from topgraft.report.comparison import gather_comparison
from topgraft.report.comparison_figures import comparison_figures
from topgraft.report.damage import drawing, told_damaged
from topgraft.report.figures import figures
from topgraft.report.ink import Drawn
from topgraft.report.numbers import gather
from topgraft.report.page import html, plain, write_page
from topgraft.report.runs import gather_runs
from topgraft.report.runs_figures import runs_figures

PAGE = "report.html"


def write_report(
    places: Path | Sequence[Path], out: Path | None = None, figures_to: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write the report of a finished run, of several side by side, or of a comparison.

    Parameters
    ----------
    places
        The folder of a run, several of them, or the file of a comparison.
    out
        The page. When not given: ``report.html`` in the folder of the run; ``A-beside-B.html`` in the
        current one for several; a file beside that of a comparison.
    figures_to
        A folder for each figure as PNG and SVG, its numbers as CSV, and all numbers as ``numbers.json``.

    Returns
    -------
    page, numbers
        Where the page is, and all that it shows as JSON.

    Raises
    ------
    TopgraftError
        If there is no finished run or comparison, if it is damaged, or nothing can be written there.
    """
    several = [places] if isinstance(places, Path) else list(places)
    files = [place for place in several if place.is_file()]
    if files and len(several) > 1:
        raise TopgraftError(
            f"{files[0]} is a file, and several runs are folders: report a comparison by itself."
        )
    with told_damaged(several):
        if files:
            usual, document, drawn, page = _of_comparison(files[0])
        elif len(several) > 1:
            usual, document, drawn, page = _of_runs(several)
        else:
            usual, document, drawn, page = _of_run(several[0])
    place = out or usual
    write_page(place, page, document, drawn, figures_to)
    return place, dict(plain(document))


def _of_run(folder: Path) -> tuple[Path, dict[str, Any], list[Drawn], str]:
    document = gather(folder)
    drawn = figures(document)
    chain = folder / "chain.svg"
    picture = drawing(chain) if chain.is_file() else ""
    title = weights_title(document["weights"])
    page = html("page.html", document, drawn, chain=picture, weights_title=title)
    return folder / PAGE, document, drawn, page


def _of_runs(folders: Sequence[Path]) -> tuple[Path, dict[str, Any], list[Drawn], str]:
    document = gather_runs(folders)
    drawn = runs_figures(document)
    name = "-beside-".join(folder.resolve().stem for folder in folders)
    return Path(f"{name}.html"), document, drawn, html("runs.html", document, drawn)


def _of_comparison(file: Path) -> tuple[Path, dict[str, Any], list[Drawn], str]:
    document = gather_comparison(file)
    drawn = comparison_figures(document)
    return file.with_suffix(".html"), document, drawn, html("comparison.html", document, drawn)


def weights_title(weights: dict[str, Any]) -> str:
    """What to conclude from the load report."""
    if weights["matched"] == "random":
        return "Random values: no pretrained weights were loaded"
    whole = weights["arrived"] == weights["tensors"]
    return "All pretrained weights arrived" if whole else "Not all pretrained weights arrived"
