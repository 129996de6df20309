"""Tables of rows: which columns are read, what is told of them, test sets, and what is refused."""

from __future__ import annotations

import pandas as pd
import polars as pl
import pytest
from made_rows import table, written

from topgraft.data import read, read_test
from topgraft.data.columns import Rows
from topgraft.errors import TopgraftError

WHOLE = table(60).drop(columns="spent")


def message(source, **told) -> str:
    with pytest.raises(TopgraftError) as caught:
        read(source, **told)
    return str(caught.value)


def test_csv_parquet_and_frames_give_the_same_rows(tmp_path):
    sources = [
        written(WHOLE, tmp_path / "t.csv"),
        written(WHOLE, tmp_path / "t.parquet"),
        WHOLE,
        pl.from_pandas(WHOLE),
    ]
    read_all = [read(source, label="bought", columns="all") for source in sources]
    for data in read_all:
        assert data.modality == "row"
        assert data.columns == {"label": "bought"}
        assert set(data.inputs.columns) == {"age", "income", "town", "kids"}
        assert data.decode(3) == read_all[0].decode(3)
    assert len({data.fingerprint for data in read_all}) == 1


def test_what_was_read_as_what_is_told():
    notes = " ".join(read(WHOLE, label="bought", columns="all").notes)
    assert "3 columns of numbers (age, income, kids) and 1 of categories (town: 4)." in notes
    assert "Missing: income" in notes


def test_named_columns_and_categories():
    data = read(WHOLE, label="bought", columns="kids, town", categories="kids")
    assert {n: c.kind for n, c in data.inputs.columns.items()} == {"kids": "category", "town": "category"}
    assert 'no column "kid". Nearest: kids' in message(WHOLE, label="bought", columns="kid")
    assert '"age" is none of the columns' in message(WHOLE, label="bought", columns="kids", categories="age")
    assert "two things: bought" in message(WHOLE, label="bought", columns="age,bought")


def test_labels_and_groups_are_no_columns_to_learn_from():
    data = read(table(60), label="age,spent", group="kids", columns="all")
    assert set(data.inputs.columns) == {"income", "town", "bought"}
    assert data.outputs == ("age", "spent")
    assert len(set(data.groups.tolist())) <= 4


@pytest.mark.parametrize("values", [range(60), [f"u{i}" for i in range(60)]], ids=["whole numbers", "names"])
def test_an_identifier_is_told(values):
    data = read(WHOLE.assign(user=list(values)), label="bought", columns="all")
    assert any('"user" looks like an identifier' in note for note in data.notes)


def test_measurements_are_no_identifiers():
    assert not any("identifier" in note for note in read(WHOLE, label="bought", columns="all").notes)


def test_a_column_that_can_not_be_read_is_left_out_unless_it_was_named():
    dated = WHOLE.assign(when=pd.date_range("2020-01-01", periods=60), empty=None)
    data = read(dated, label="bought", columns="all")
    assert not {"when", "empty"} & set(data.inputs.columns)
    said = " ".join(data.notes)
    assert 'Column "when" was left out' in said
    assert 'Column "empty" was left out: it is empty.' in said
    assert "neither numbers nor categories" in message(dated, label="bought", columns="age,when")


def test_a_row_without_any_cell_is_left_out():
    holes = WHOLE.copy()
    holes.loc[[4, 7], ["age", "income", "town", "kids"]] = None
    data = read(holes, label="bought", columns="all")
    assert [out.name for out in data.left_out] == ["4", "7"]
    assert data.left_out[0].reason == "every cell is missing"
    assert isinstance(data.inputs, Rows)
    assert len(data.inputs) == 58
    assert data.decode(4) == read(WHOLE, label="bought", columns="all").decode(5)


def test_same_rows_stay_on_one_side_of_every_split():
    twice = pd.concat([WHOLE, WHOLE.iloc[:5]], ignore_index=True)
    data = read(twice, label="bought", columns="all")
    assert [data.groups[i] == data.groups[60 + i] for i in range(5)] == [True] * 5


def test_texts_and_rows_at_once_are_refused(tmp_path):
    path = written(WHOLE, tmp_path / "t.csv")
    assert "and as texts, too" in message(path, label="bought", columns="all", text="town")
    assert "--columns all" in message(path, label="bought")
    assert "is no table" in message(["a", "b"], columns="all")


def test_a_test_set_is_read_by_the_columns_of_the_data(tmp_path):
    data = read(WHOLE, label="bought", columns="age,town,kids", categories="kids")
    other = table(30, seed=5)[["bought", "kids", "income", "town"]]
    test = read_test(written(other, tmp_path / "test.csv"), data)
    assert {n: c.kind for n, c in test.inputs.columns.items()} == {"kids": "category", "town": "category"}
    with pytest.raises(TopgraftError, match=r"are in .* too"):
        read_test(written(WHOLE.iloc[::-1][:9], tmp_path / "same.csv"), data)


def test_several_labels_stand_in_one_column_or_in_several():
    has = pd.DataFrame({"many": WHOLE["kids"] > 1, "old": WHOLE["age"] > 40})
    names = ["|".join(name for name in has if row[name]) for _, row in has.iterrows()]
    rest = WHOLE.drop(columns="bought")
    one = read(rest.assign(tags=names), label="tags", separator="|", columns="all")
    assert (one.task, one.classes) == ("multilabel", ("many", "old"))
    assert one.targets.tolist() == has.to_numpy().tolist()
    several = read(rest.join(has.astype(int)), label="many,old", task="multilabel", columns="all")
    assert several.targets.tolist() == one.targets.tolist()
    assert sorted(several.inputs.columns) == sorted(rest.columns)
    by_hand = read(one.inputs, targets=[name.split("|") if name else [] for name in names])
    assert by_hand.targets.tolist() == one.targets.tolist()
