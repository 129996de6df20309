"""JSON with one way to write each value, and read without surprises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical_json(value: Any) -> bytes:
    """The one way to write ``value`` as JSON in UTF-8: sorted names, no spaces, floats exact.

    Parameters
    ----------
    value
        Mappings with text keys, sequences, texts, whole numbers, finite floats, booleans, ``None``.

    Raises
    ------
    TypeError
        If something in it is nothing of these; the message says where.
    ValueError
        If a float is not finite, since JSON has no such numbers.

    Examples
    --------
    >>> canonical_json({"b": 0.1, "a": (1, None)})
    b'{"a":[1,null],"b":0.1}'
    """
    plain = _plain(value, "value")
    return _encoded(json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def readable_json(value: Any) -> bytes:
    """As :func:`canonical_json`, but indented by two spaces and with a newline at the end."""
    return _encoded(json.dumps(_plain(value, "value"), sort_keys=True, ensure_ascii=False, indent=2) + "\n")


def parsed_json(text: bytes) -> Any:
    """The value that ``text`` is the JSON of.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8, holds a name twice in one object or a number that isn't finite, or
        is nested too deeply. The message can follow "is damaged:".
    """
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=unique_names, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of ``pairs``, for ``json.loads``; a ``ValueError`` where a name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value}, and JSON has finite numbers only")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}; keys are texts")
        return {key: _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place} is a {type(value).__name__}, which JSON does not have")


def _encoded(text: str) -> bytes:
    # file names with bytes that are no UTF-8 come as lone surrogates
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text).encode("utf-8")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
