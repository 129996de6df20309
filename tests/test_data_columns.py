"""Rows: which columns are numbers, which categories, what is missing, and the digest of a row."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.data.columns import Rows, as_category, as_column, as_number, content_of_row
from topgraft.errors import TopgraftError


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2.5", "-3e4", "NA", ""], "number"),
        ([1, 2.5, None, float("nan")], "number"),
        (["1", "2", "three"], "category"),
        (["00501", "10115"], "category"),
        ([True, False, None], "category"),
        (["NA", "DE", "FR"], "category"),
        ([None, "", "  "], "category"),
        ([1, "x"], "category"),
        ([np.float32(1.5), np.int64(2)], "number"),
        ([pd.NA, 3, 4], "number"),
        (["inf", "1"], "category"),
    ],
    ids=str,
)
def test_a_column_is_numbers_only_where_every_cell_is_one_or_missing(cells, kind):
    assert as_column("c", cells).kind == kind


def test_categories_can_look_like_numbers_where_it_is_said():
    column = as_column("month", ["1", "12", None, 1, 1.0], is_category=True)
    assert [column.cell(i) for i in range(5)] == ["1", "12", None, "1", "1"]


def test_na_is_missing_among_numbers_and_a_category_among_names():
    rows = Rows.of({"n": ["1", "NA"], "c": ["NA", "DE"]})
    assert rows[0] == {"n": 1.0, "c": "NA"}
    assert rows[1] == {"n": None, "c": "DE"}


def test_dates_and_lists_are_refused_by_name():
    for odd in (dt.date(2020, 1, 1), [1, 2], {"a": 1}):
        with pytest.raises(
            TopgraftError, match=f'Column "when" holds values of the kind {type(odd).__name__}'
        ):
            as_column("when", ["x", odd])


def test_rows_taken_are_the_rows_themselves():
    rows = Rows.of({"a": [1, 2, None, 4], "b": ["x", "y", "x", None]})
    some = rows.take([3, 0])
    assert list(some) == [rows[3], rows[0]] == [{"a": 4.0, "b": None}, {"a": 1.0, "b": "x"}]
    assert list(rows[1:3]) == [rows[1], rows[2]]
    with pytest.raises(IndexError):
        rows[4]


def test_records_may_lack_columns():
    rows = Rows.of_records([{"a": 1}, {"b": "x"}, {}])
    assert list(rows) == [{"a": 1.0, "b": None}, {"a": None, "b": "x"}, {"a": None, "b": None}]


cells = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3))


@given(st.dictionaries(st.text(max_size=3), cells, max_size=4))
def test_the_digest_goes_by_names_and_not_by_the_order_of_columns(row):
    turned = dict(reversed(list(row.items())))
    assert content_of_row(row) == content_of_row(turned) == content_of_row({**row, "more": None})
    for name, cell in row.items():
        if cell is not None:
            assert content_of_row({**row, name: "another" if cell != "another" else 1.0}) != content_of_row(
                row
            )


def test_numbers_and_categories_of_one_look_differ():
    assert content_of_row({"a": 1.0}) != content_of_row({"a": "1.0"})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_same_written_and_as_it_is(value):
    assert as_number(repr(value)) == as_number(value) == value


@given(st.integers(-(10**12), 10**12))
def test_a_whole_number_names_one_category_however_it_comes(value):
    assert as_category(value) == as_category(float(value)) == as_category(str(value)) == str(value)


def test_a_whole_number_that_no_float_holds_is_no_number():
    assert as_number(10**400) is None
    assert as_category(10**400) == str(10**400)
