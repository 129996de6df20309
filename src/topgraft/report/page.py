"""The report as one HTML page that needs no network, and its figures and numbers as files."""

from __future__ import annotations

import csv
import io
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from topgraft.console import duration, size
from topgraft.files import write_whole
from topgraft.report.figures import Drawn, figures, to_file, to_svg
from topgraft.report.numbers import gather

PAGE = "report.html"
SHOWN = 8
"""Names of a list that are written out."""


def write_report(folder: Path, out: Path | None = None, figures_to: Path | None = None) -> Path:
    """Write the report of a finished run.

    Parameters
    ----------
    folder
        Of the run.
    out
        The page; ``report.html`` in the run's folder when not given.
    figures_to
        A folder for each figure as PNG and SVG, its numbers as CSV, and all numbers as ``numbers.json``.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    TopgraftError
        If there is no finished run, or nothing can be written there.
    """
    document = gather(folder)
    drawn = figures(document)
    chain = folder / "chain.svg"
    page = html(document, drawn, chain.read_text(encoding="utf-8") if chain.is_file() else "")
    place = out or folder / PAGE
    write_whole(place, page.encode())
    if figures_to is not None:
        figures_to.mkdir(parents=True, exist_ok=True)
        write_whole(figures_to / "numbers.json", as_json(document).encode())
        for one in drawn:
            for form in ("png", "svg"):
                write_whole(figures_to / f"{one.name}.{form}", to_file(one, form))
            write_whole(figures_to / f"{one.name}.csv", as_csv(one).encode())
    return place


def html(document: dict[str, Any], drawn: list[Drawn], chain: str) -> str:
    """The page; whatever the data holds is text in it, never markup."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": number, "amount": amount, "few": few}
    template = environment.from_string(files("topgraft.report").joinpath("page.html").read_text("utf-8"))
    shown = [
        {
            "name": one.name,
            "title": one.title,
            "told": one.told,
            "svg": to_svg(one),
            "header": one.header,
            "rows": one.rows,
        }
        for one in drawn
    ]
    return template.render(
        document=document,
        figures=shown,
        chain=chain[chain.index("<svg") :] if chain else "",
        weights_title=weights_title(document["weights"]),
        numbers=as_json(document).replace("<", "\\u003c"),  # so that nothing can end the element
    )


def weights_title(weights: dict[str, Any]) -> str:
    """What to conclude from the load report."""
    if weights["matched"] == "random":
        return "Random values: no pretrained weights were loaded"
    whole = weights["arrived"] == weights["tensors"]
    return "All pretrained weights arrived" if whole else "Not all pretrained weights arrived"


def few(names: list[str]) -> str:
    """The first names of a list, and how many more there are.

    Examples
    --------
    >>> few(list("abcdefghij"))
    'a, b, c, d, e, f, g, h and 2 more'
    """
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{rest}"


def as_json(document: dict[str, Any]) -> str:
    """All numbers of the report, pictures left out."""
    return json.dumps(_plain(document), ensure_ascii=False, allow_nan=False)


def as_csv(drawn: Drawn) -> str:
    """The numbers of one figure."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(drawn.header)
    rows.writerows(drawn.rows)
    return written.getvalue()


def number(value: Any) -> str:
    """A cell of a table: as many digits as tell something.

    Examples
    --------
    >>> [number(v) for v in (3, 0.51234, True, None, "stem", 1.5e-7, 123456.7)]
    ['3', '0.512', 'yes', '', 'stem', '1.5e-07', '123,457']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def amount(value: float | None, unit: str) -> str:
    """An amount of a cost in the unit that suits it.

    Examples
    --------
    >>> amount(3.2, "seconds"), amount(2e9, "memory"), amount(4.0, "epochs"), amount(None, "disk")
    ('3 s', '2.0 GB', '4', '–')
    """
    if value is None:
        return "–"
    if unit == "seconds":
        return duration(value)
    return size(value) if unit in ("memory", "disk") else f"{value:g}"


def _plain(value: Any) -> Any:
    """The same without pictures, and with ``None`` for what is not a number."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k != "picture"}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
