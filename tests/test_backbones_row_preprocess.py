"""From rows to inputs: statistics, entries, what is missing, matching by name, saving and opening."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_rows import as_read, table

from topgraft.backbones import RowPreprocess, open_preprocess
from topgraft.backbones.described import FILE
from topgraft.backbones.row_preprocess import FURTHEST, GONE, MOST_NAMES, UNKNOWN
from topgraft.data.columns import Rows
from topgraft.data.example import ExampleError
from topgraft.errors import TopgraftError

ROWS = Rows.of(as_read(table(200).drop(columns=["bought", "spent"])))
KNOWN = RowPreprocess.of(ROWS)


def test_numbers_are_standardised_and_missing_ones_are_the_mean_and_said():
    x = KNOWN.batch(list(ROWS))["x"].numpy()
    assert x.shape == (200, 2 * 3 + 1)
    there = x[:, 4] == 0
    income = np.array([np.nan if row["income"] is None else row["income"] for row in ROWS])
    assert (np.isnan(income) == ~there).all()
    assert not there.all()
    expected = (income[there] - income[there].mean()) / income[there].std()
    np.testing.assert_allclose(x[there, 1], np.clip(expected, -FURTHEST, FURTHEST), rtol=1e-5)
    assert (x[~there, 1] == 0).all()


def test_each_category_has_its_entry_and_unknown_and_missing_ones_have_theirs():
    places = {town: KNOWN.encoded({"age": 1, "town": town})[-1] for town in ("Lyon", "Oslo", "Rom", "Ulm")}
    assert list(places.values()) == [2, 3, 4, 5]
    assert KNOWN.encoded({"age": 1, "town": "Kiel"})[-1] == UNKNOWN
    assert KNOWN.encoded({"age": 1})[-1] == KNOWN.encoded({"age": 1, "town": " "})[-1] == GONE
    assert KNOWN.sizes == (6,)


def test_order_of_columns_and_further_ones_change_nothing():
    row = {"age": "31", "income": 7, "town": "Ulm", "kids": "2"}
    turned = {"more": [1], **dict(reversed(list(row.items())))}
    assert (KNOWN.encoded(row) == KNOWN.encoded(turned)).all()


def test_a_cell_of_another_kind_is_the_error_of_its_row():
    with pytest.raises(ExampleError, match="column \"age\" holds numbers, and 'old' is none"):
        KNOWN.encoded({"age": "old"})
    with pytest.raises(ExampleError, match="can't hold a list"):
        KNOWN.encoded({"town": ["Ulm"]})
    with pytest.raises(ExampleError, match="a list, not a row"):
        KNOWN.encoded([1, 2])


def test_rare_categories_teach_what_unknown_means_and_many_are_bounded():
    few = RowPreprocess.of(Rows.of({"c": ["a", "a", "b", None]}))
    assert few.columns[0].names == ("a",)
    many = [f"c{i // 2}" for i in range(2 * MOST_NAMES + 50)]
    assert RowPreprocess.of(Rows.of({"c": many})).sizes == (MOST_NAMES + 2,)


def test_a_constant_and_an_empty_column_are_harmless():
    rows = Rows.of({"one": [7.0, 7.0], "none": [None, None]})
    assert np.isfinite(RowPreprocess.of(rows).batch(list(rows))["x"].numpy()).all()


def test_statistics_are_of_the_given_rows_alone():
    other = RowPreprocess.of(ROWS.take(range(100)))
    assert other.columns[0].mean == pytest.approx(np.mean([ROWS[i]["age"] for i in range(100)]))
    assert other.fingerprint != KNOWN.fingerprint


def test_how_a_table_fits_is_told():
    rows = Rows.of(
        {"town": ["Ulm", "Kiel", "Kiel", None], "Age": [1, 2, 3, 4], "kids": ["1", "2", "3", "NA"]}
    )
    said = "\n".join(KNOWN.matched(rows, "small.csv"))
    assert "2 of 4 columns were found by name." in said
    assert "small.csv lacks age, income: missing in every row. Nearest: Age." in said
    assert "left out: Age." in said
    assert '"town": 2 of 4 rows have a category without an entry of its own (Kiel)' in said
    assert KNOWN.matched(ROWS, "the same") == []


def test_kinds_that_do_not_fit_are_refused():
    with pytest.raises(
        TopgraftError, match=r'Column "age" held numbers .* and x.csv has \'old\', \'young\' there'
    ):
        KNOWN.matched(Rows.of({"age": ["old", "young"]}), "x.csv")
    with pytest.raises(TopgraftError, match=r'Column "town" held categories .* and x.csv has numbers there'):
        KNOWN.matched(Rows.of({"town": [1.5, 2.5]}), "x.csv")
    with pytest.raises(TopgraftError, match="has none of the columns"):
        KNOWN.matched(Rows.of({"ages": [1, 2]}), "x.csv")


def test_categories_that_look_like_numbers_elsewhere_are_still_known():
    months = RowPreprocess.of(Rows.of({"month": [1, 2, 1, 2]}, categories=["month"]))
    assert months.matched(Rows.of({"month": [2.0, 1.0, 1.0]}), "x.csv") == []
    assert months.encoded({"month": 2.0})[0] == months.encoded({"month": "2"})[0] == 3


def test_what_was_saved_is_opened_and_checked(tmp_path):
    KNOWN.save(tmp_path)
    again = open_preprocess(tmp_path)
    assert again == KNOWN
    assert again.fingerprint == KNOWN.fingerprint
    batch = list(ROWS.take(range(9)))
    assert (again.batch(batch)["x"] == KNOWN.batch(batch)["x"]).all()
    document = json.loads((tmp_path / FILE).read_text())
    breaks = [("spread", 0.0), ("mean", "x"), ("kind", "text"), ("name", "income")]
    for key, value in breaks:
        broken = json.loads(json.dumps(document))
        broken["columns"][0][key] = value
        (tmp_path / FILE).write_text(json.dumps(broken))
        with pytest.raises(TopgraftError, match="does not describe a preprocessing"):
            open_preprocess(tmp_path)
