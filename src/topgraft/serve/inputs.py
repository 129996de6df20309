"""From the body of a request to rows to predict; what can't be used is refused or is a row with an error."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from topgraft.data.notes import printable
from topgraft.data.unlabelled import Row, text_row
from topgraft.errors import did_you_mean

FILES = ("picture", "sound")
"""What is sent as files of a form."""
FIELD = "files"
"""Of such a form."""
KEYS = {"text": "texts", "array": "arrays", "row": "rows"}
"""Of a JSON document, by modality."""
STRANGERS = 100
"""Columns that are not known of which names are read, to tell of them."""


class Refused(Exception):
    """A request that gets no rows.

    Parameters
    ----------
    status
        Of HTTP.
    message
        What was given and what was expected.
    retry_after
        Seconds after which it may be tried again.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def rows_of_json(body: bytes, modality: str, *, most: int) -> list[Row]:
    """Texts, arrays or rows of a JSON document such as ``{"texts": ["one", "two"]}``.

    Parameters
    ----------
    body
        As it was sent.
    modality
        ``text``, ``array`` or ``row``.
    most
        Inputs that a request may hold.

    Raises
    ------
    Refused
        If it is no such document.

    Examples
    --------
    >>> [row.name for row in rows_of_json(b'{"texts": ["one", "two"]}', "text", most=8)]
    ['0', '1']
    >>> rows_of_json(b'{"text": ["one"]}', "text", most=8)
    Traceback (most recent call last):
        ...
    topgraft.serve.inputs.Refused: Expected {"texts": [...]}, got the key "text". Nearest: texts.
    """
    key = KEYS[modality]
    try:
        document = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body can't be read as JSON: {error}.") from None
    if not isinstance(document, dict):
        raise Refused(422, f'Expected {{"{key}": [...]}}, got {_kind(document)}.')
    if odd := [name for name in document if name != key]:
        shown = f"{printable(odd[0]):.80}"
        more = did_you_mean(shown, [key])
        raise Refused(422, f'Expected {{"{key}": [...]}}, got the key "{shown}".{more}')
    values = document.get(key)
    if not isinstance(values, list):
        given = _kind(values) if key in document else "no such key"
        raise Refused(422, f'Expected {{"{key}": [...]}}, a list, got {given}.')
    refuse_count(len(values), most)
    make = {"text": text_row, "array": array_row, "row": record_row}[modality]
    return [make(str(i), value) for i, value in enumerate(values)]


def refuse_count(count: int, most: int) -> None:
    """Refuse a request without inputs, or with too many."""
    if not count:
        raise Refused(422, "Nothing to predict: the request holds no input.")
    if count > most:
        raise Refused(413, f"{count:,} inputs in one request. Expected at most {most:,}: send several.")


def array_row(name: str, value: Any) -> Row:
    """An array from nested lists of numbers.

    Examples
    --------
    >>> array_row("0", [[1, 2], [3, 4]]).value.shape
    (2, 2)
    >>> array_row("1", [[1, 2], [3]]).error, array_row("2", ["1"]).error
    ('lists of different lengths', 'not a list of numbers')
    """
    import numpy as np

    if not isinstance(value, list):
        return Row(name, None, f"{_kind(value)}, not a list of numbers")
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        return Row(name, None, "lists of different lengths")
    if found.size == 0 or found.dtype.kind not in "biuf":
        return Row(name, None, "no numbers" if found.size == 0 else "not a list of numbers")
    with np.errstate(over="ignore"):
        numbers = found.astype(np.float32)
    if not np.isfinite(numbers).all():
        return Row(name, None, "holds numbers that are too large")
    return Row(name, numbers)


def record_row(name: str, value: Any) -> Row:
    """A row of a table: cells by the names of their columns.

    Examples
    --------
    >>> record_row("0", {"age": 31, "town": None}).value
    {'age': 31, 'town': None}
    >>> record_row("1", [31]).error
    'a list, not an object with cells by the names of their columns'
    """
    if isinstance(value, dict):
        return Row(name, value)
    return Row(name, None, f"{_kind(value)}, not an object with cells by the names of their columns")


def column_names(rows: Sequence[Row], known: Mapping[str, Any]) -> list[str]:
    """Names of the columns that rows have, in the order of the first of each; of strangers only some.

    Examples
    --------
    >>> column_names([Row("0", {"age": 31, "kids": 1}), Row("1", None, "none")], {"age": "number"})
    ['age', 'kids']
    """
    names: dict[str, None] = {}
    strangers = 0
    for row in rows:
        for name in row.value or ():
            if name in names:
                continue
            if name in known:
                names[name] = None
                continue
            strangers += 1
            if strangers <= STRANGERS:
                names[f"{printable(name):.80}"] = None
    return list(names)


def file_row(name: str | None, content: bytes, index: int) -> Row:
    """A file that was sent, by the name that the sender gave it: nothing is looked up under that name.

    Examples
    --------
    >>> file_row("../../etc/passwd", b"", 0)
    Row(name='../../etc/passwd', value=None, error='an empty file (0 bytes)', digest=None)
    """
    shown = printable(name) if name else str(index)
    return Row(shown, content) if content else Row(shown, None, "an empty file (0 bytes)")


def weights(rows: Sequence[Row], modality: str) -> list[tuple[Row, int]]:
    """Each row with what it adds to a batch, by its header: pixels, or seconds of a sound; else nothing."""
    weigh = {"picture": pixels, "sound": seconds}.get(modality)
    return [(row, weigh(row.value) if weigh and isinstance(row.value, bytes) else 0) for row in rows]


def seconds(content: bytes) -> int:
    """Of a sound, by its header, rounded up; 0 where there is none to be read."""
    from topgraft.data.sounds import told_seconds

    return math.ceil(told_seconds(content))


def pixels(content: bytes) -> int:
    """Width x height by the header; 0 where there is none to be read, which decoding tells in full."""
    from PIL import Image

    from topgraft.data.pictures import formats

    try:
        with Image.open(io.BytesIO(content), formats=formats()) as picture:
            return picture.width * picture.height
    except Exception:  # noqa: BLE001 (Pillow's readers raise almost anything on damaged files)
        return 0


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _kind(value: object) -> str:
    """What a value of JSON is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
