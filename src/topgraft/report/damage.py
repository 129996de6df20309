"""What a report is made from may come from anywhere: what can't be used is an error that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from topgraft.errors import TopgraftError
from topgraft.files import DamagedFile
from topgraft.regular import read_regular

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = frozenset(
    (
        "svg",
        "g",
        "rect",
        "circle",
        "line",
        "path",
        "polygon",
        "polyline",
        "text",
        "tspan",
        "title",
        "desc",
        "style",
    )
)
"""Of a drawing that is put into the page as it is."""


@contextmanager
def told_damaged(places: Path | Sequence[Path]) -> Iterator[None]:
    """Turn what goes wrong with numbers that a fit or a comparison never wrote into an error that says so.

    Raises
    ------
    TopgraftError
        If something in the block can't use what it was given.
    """
    import jinja2

    wrong = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
    try:
        yield
    except (*wrong, jinja2.TemplateError) as error:
        several = [places] if isinstance(places, Path) else places
        raise TopgraftError(
            f"{', '.join(map(str, several))}: no report can be made of it, since it is damaged or of another "
            f"version ({error!r:.200}).\nExpected what `topgraft fit -o` or `topgraft compare -o` wrote."
        ) from error


def drawing(path: Path) -> str:
    """A drawing in SVG that a page can hold as it is: it has shapes and texts, and nothing that acts.

    Raises
    ------
    DamagedFile
        If it is something else.
    """
    try:
        text = read_regular(path).decode("utf-8")
        text = text[text.index("<svg") :]
        if "<!" in text or "<?" in text:  # read in one way as XML and in another as HTML
            raise ValueError("a comment, a declaration or raw text")
        for element in ET.fromstring(text).iter():  # noqa: S314 (no declarations, so no entities)
            name = str(element.tag)
            if not name.startswith(SVG) or name.removeprefix(SVG) not in ELEMENTS:
                raise ValueError(f"an element {name.removeprefix(SVG)}")
            if odd := [a for a in element.attrib if re.match(r"on|.*(href|src)$", a, re.IGNORECASE)]:
                raise ValueError(f"an attribute {odd[0]}")
    except (OSError, ValueError, ET.ParseError) as error:
        raise DamagedFile(path, f"it is not the drawing of a chain ({error!s:.100})") from error
    return text
