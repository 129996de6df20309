"""A report as one HTML page that needs no network, and its figures and numbers as files."""

from __future__ import annotations

import csv
import io
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from topgraft.console import duration, percent, size
from topgraft.files import told, write_whole
from topgraft.report.ink import Drawn, to_file, to_svg

SHOWN = 8
"""Names of a list that are written out."""


def write_page(
    place: Path, page: str, document: dict[str, Any], drawn: list[Drawn], figures_to: Path | None
) -> None:
    """Write a page, and its figures and numbers where a folder is given.

    Raises
    ------
    TopgraftError
        If nothing can be written there.
    """
    write_whole(place, page.encode())
    if figures_to is not None:
        with told(figures_to):
            figures_to.mkdir(parents=True, exist_ok=True)
        write_whole(figures_to / "numbers.json", as_json(document).encode())
        for one in drawn:
            for form in ("png", "svg"):
                write_whole(figures_to / f"{one.name}.{form}", to_file(one, form))
            write_whole(figures_to / f"{one.name}.csv", as_csv(one).encode())


def html(template: str, document: dict[str, Any], drawn: list[Drawn], **more: Any) -> str:
    """The page; whatever the data holds is text in it, never markup.

    Parameters
    ----------
    template
        Its name, such as ``page.html``.
    document
        All numbers and sentences; the page holds them as JSON, too.
    drawn
        Its figures, in their order.
    **more
        What else the template shows.
    """
    import jinja2

    folder = files("topgraft.report")
    loader = jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)
    environment.filters |= {
        "number": number,
        "amount": amount,
        "few": few,
        "share": share,
        "milliseconds": milliseconds,
    }
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
    return environment.get_template(template).render(
        document=document,
        figures=shown,
        numbers=as_json(document).replace("<", "\\u003c"),  # so that nothing can end the element
        **more,
    )


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
    return json.dumps(plain(document), ensure_ascii=False, allow_nan=False)


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


def seconds(value: float) -> str:
    """A time, with a decimal where it is short.

    Examples
    --------
    >>> seconds(0.26), seconds(12.3), seconds(600)
    ('0.3 s', '12 s', '10 min')
    """
    return duration(value) if value >= 10 else f"{value:.1f} s"


def share(value: float | None) -> str:
    """A share as a percentage.

    Examples
    --------
    >>> share(0.1234), share(None)
    ('12.3 %', '–')
    """
    return "–" if value is None else percent(value, 1)


def milliseconds(value: float | None) -> str:
    """Seconds, as few as they are.

    Examples
    --------
    >>> milliseconds(0.0334), milliseconds(0.0021), milliseconds(None)
    ('33 ms', '2.1 ms', '–')
    """
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value >= 0.01 else f"{1000 * value:.1f} ms"


def plain(value: Any) -> Any:
    """The same without pictures, and with ``None`` for what is not a number."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "picture"}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
