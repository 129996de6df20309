from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topgraft.canonical import canonical_json, parsed_json, readable_json

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


def exact(value: Any) -> Any:
    """A form in which 1, 1.0 and True, and 0.0 and -0.0, are different."""
    if isinstance(value, dict):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return type(value).__name__, repr(value)


@settings(max_examples=60)
@given(values)
def test_what_is_written_is_read_exactly(value: Any) -> None:
    for text in (canonical_json(value), readable_json(value)):
        assert exact(parsed_json(text)) == exact(value)
    assert canonical_json(parsed_json(readable_json(value))) == canonical_json(value)


@given(st.dictionaries(st.text(), leaves))
def test_the_order_of_names_does_not_count(value: dict[str, Any]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_what_people_read_is_indented_and_ends_with_a_newline() -> None:
    assert readable_json({"b": "é", "a": [0.1]}) == '{\n  "a": [\n    0.1\n  ],\n  "b": "é"\n}\n'.encode()


def test_file_names_that_are_no_text_survive() -> None:
    name = b"photo-\xff.jpg".decode("utf-8", "surrogateescape")
    assert canonical_json([name]) == b'["photo-\\udcff.jpg"]'
    assert parsed_json(canonical_json([name])) == [name]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"a": [1.0, math.nan]}, ValueError, r"value\['a'\]\[1\] is nan"),
        ({"a": -math.inf}, ValueError, r"value\['a'\] is -inf"),
        ({1: 2}, TypeError, "value has the key 1; keys are texts"),
        ({"a": np.float32(1)}, TypeError, r"value\['a'\] is a float32"),
        ([b"x"], TypeError, r"value\[0\] is a bytes"),
        ([{1, 2}], TypeError, r"value\[0\] is a set"),
    ],
)
def test_what_json_does_not_have_is_refused_and_its_place_is_named(
    value: Any, kind: type[Exception], message: str
) -> None:
    for write in (canonical_json, readable_json):
        with pytest.raises(kind, match=message):
            write(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "it is not JSON"),
        (b'{"a": 1', "it is not JSON"),
        (b'{"a": 1} x', "it is not JSON"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"[NaN]", "not a finite number"),
        (b"[-Infinity]", "not a finite number"),
        (b"[1e999]", "not a finite number"),
        (b'["\xff"]', "not text in UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "it is not JSON"),
    ],
)
def test_what_is_no_good_json_is_refused_with_a_reason(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed_json(text)


@given(st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_give_a_value_or_a_value_error(text: bytes) -> None:
    try:
        value = parsed_json(text)
    except ValueError:
        return
    canonical_json(value)  # what is accepted can be written again
