from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from topgraft.data import read
from topgraft.errors import TopgraftError

TEXTS = ["a red fox", "a blue car", "two brown bears", "the fast train", "some grey wolf", "an old bus"]
LABELS = ["animal", "vehicle"] * 3


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv_of(
    texts: list[str] = TEXTS, labels: list[str] = LABELS, header: str = "text,label", sep: str = ","
) -> str:
    rows = [f'"{t}"{sep}"{label}"' for t, label in zip(texts, labels, strict=True)]
    return "\n".join([header, *rows]) + "\n"


def message(table: Path, **options: object) -> str:
    with pytest.raises(TopgraftError) as caught:
        read(table, **options)
    assert caught.value.exit_status == 2
    return str(caught.value)


def tables(folder: Path) -> list[Path]:
    rows = [{"text": t, "label": label} for t, label in zip(TEXTS, LABELS, strict=True)]
    arrow = pa.table({"text": TEXTS, "label": LABELS})
    parquet.write_table(arrow, folder / "t.parquet")
    return [
        write(folder / "t.csv", csv_of()),
        write(folder / "bom.csv", "\ufeff" + csv_of()),
        write(folder / "crlf.csv", csv_of().replace("\n", "\r\n")),
        write(folder / "semicolon.csv", csv_of(header="text;label", sep=";")),
        write(folder / "t.tsv", csv_of(header="text\tlabel", sep="\t")),
        write(folder / "t.jsonl", "\n".join(json.dumps(r) for r in rows)),
        write(folder / "t.json", json.dumps(rows)),
        folder / "t.parquet",
    ]


def test_every_kind_of_table_gives_the_same_data(tmp_path: Path) -> None:
    read_all = [read(path) for path in tables(tmp_path)]
    for data in read_all:
        assert data.modality == "text"
        assert list(data.inputs) == TEXTS
        assert data.names == ("0", "1", "2", "3", "4", "5")
        assert data.columns == {"text": "text", "label": "label"}
    assert len({data.fingerprint for data in read_all}) == 1


def test_cells_stay_texts_as_written(tmp_path: Path) -> None:
    texts = ["NA", "1.0", "null", "007", "a, b\nc", 'say ""so""']
    data = read(write(tmp_path / "t.csv", csv_of(texts, ["1.0", "NA"] * 3)))
    assert list(data.inputs) == ["NA", "1.0", "null", "007", "a, b\nc", 'say "so"']
    assert set(data.classes) == {"1.0", "NA"}


def test_labels_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    labels = ["10", "9", "1"] * 2
    assert read(write(tmp_path / "t.csv", csv_of(TEXTS, labels))).classes == ("1", "9", "10")


def test_named_columns_and_the_obvious_ones(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{t},{label}" for i, (t, label) in enumerate(zip(TEXTS, LABELS, strict=True)))
    path = write(tmp_path / "t.csv", f"id,Review,Class\n{rows}\n")
    data = read(path)
    assert data.columns == {"text": "Review", "label": "Class"}
    assert any('texts are read from the column "review"' in note.casefold() for note in data.notes)
    path = write(tmp_path / "u.csv", f"id,gloss,stars\n{rows}\n")
    assert read(path, text="gloss", label="stars").columns == {"text": "gloss", "label": "stars"}
    two = write(tmp_path / "v.csv", csv_of(header="gloss,label"))
    assert read(two).columns == {"text": "gloss", "label": "label"}


def test_a_missing_column_names_the_nearest_and_all(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", csv_of(header="text,stars"))
    said = message(path, text="text", label="star")
    assert 'has no column "star"' in said
    assert "Nearest: stars" in said
    assert "Its columns: text, stars." in said
    for use in ("text", "path", "group"):
        assert 'has no column "gone"' in message(path, **{use: "gone"}, label="stars")


def test_columns_that_can_not_be_guessed_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b,c\n1,2,3\n4,5,6\n")
    assert "holds the labels? Name it (--label). Its columns: a, b, c." in message(path, text="a")
    assert "holds the texts (--text) or the paths" in message(path)
    assert "holds the texts (--text) or the paths" in message(path, label="c")
    assert "was named for two things" in message(path, text="a", label="a")
    assert "Name one." in message(path, text="a", path="b", label="c")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "", "is an empty file"),
        ("t.csv", "text,label\n", "but no rows"),
        ("t.csv", "\ntext,label\n", "begins with an empty line"),
        (
            "t.csv",
            "text,label\na,b\nc,d,e\n",
            "can't be read as a table: CSV parse error: Expected 2 columns, got 3",
        ),
        ("t.csv", "text,label\na,b\nc\n", "Expected 2 columns, got 1"),
        ("t.csv", "text,text\na,b\nc,d\n", "more than one column 'text'"),
        ("t.csv", "text,label\ncaf\xe9,a\n".encode("latin-1"), "UTF"),
        ("t.csv", "t\xe9xt,label\na,a\n".encode("latin-1"), "is not UTF-8 (byte 1)"),
        ("t.csv", b"PK\0\0,\0\n", "zero bytes"),
        ("t.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "is not JSON in line 2"),
        ("t.jsonl", '{"text": "a", "label": "b"}\n[1]\n', "line 2: expected an object"),
        ("t.json", "[]", "holds no rows"),
        ("t.json", "[" * 100_000, "is not JSON"),
        ("t.jsonl", b"\xff\xfe{}", "is not UTF-8"),
        ("t.parquet", "PAR1 no more", "is not a Parquet file"),
    ],
)
def test_a_table_that_is_not_what_its_name_says(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    assert said in message(write(tmp_path / name, content))


def test_empty_texts_and_labels_are_left_out_and_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", csv_of([*TEXTS, "", "  ", "whose?"], [*LABELS, "animal", "animal", ""]))
    data = read(path, max_unreadable=0.5)
    assert len(data) == 6
    assert [(out.name, out.reason) for out in data.left_out] == [
        ("6", "an empty text"),
        ("7", "an empty text"),
        ("8", "no label"),
    ]
    assert any("3 of 9 texts could not be used and were left out (limit 50 %" in note for note in data.notes)
    said = message(path)
    assert "3 of 9 texts could not be used, which is too many (limit 5 %, see --max-unreadable)" in said
    assert "an empty text" in said
    rows = [{"text": "a b"}, {"label": "x"}, {"text": None, "label": "y"}, {"text": ["no"], "label": "x"}]
    whole = [{"text": t, "label": label} for t, label in zip(TEXTS, LABELS, strict=True)]
    data = read(write(tmp_path / "t.json", json.dumps([*whole, *rows])), max_unreadable=0.5)
    assert [out.reason for out in data.left_out] == [
        "no label",
        "an empty text",
        "an empty text",
        "a list, not a text",
    ]


def test_nothing_left(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", csv_of(["", ""], ["a", "b"]))
    assert "none of 2 texts could be used" in message(path, max_unreadable=1)


def test_one_class_only_and_labels_that_are_no_classes(tmp_path: Path) -> None:
    assert 'only one class was found, "x"' in message(write(tmp_path / "t.csv", csv_of(TEXTS, ["x"] * 6)))
    many = [f"the text number {i}" for i in range(40)]
    path = write(tmp_path / "u.csv", csv_of(many, [str(i) for i in range(40)]))
    said = message(path)
    assert '40 different labels for 40 examples (column "label") are no classes' in said
    assert said.endswith("If these are numbers to be predicted: --task regression.")


def test_groups_are_kept_and_missing_ones_stand_alone(tmp_path: Path) -> None:
    rows = "\n".join(f"{t},{label},{g}" for t, label, g in zip(TEXTS, LABELS, "AABB  ", strict=True))
    data = read(write(tmp_path / "t.csv", f"text,label,who\n{rows}\n"), group="who")
    g = data.groups
    assert g[0] == g[1] != g[2] == g[3]
    assert len(set(g[4:])) == 2
    assert any("2 examples have no group" in note for note in data.notes)


def test_class_names_that_a_parquet_file_of_hugging_face_carries_are_used(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": TEXTS, "label": [1, 0] * 3})
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "t.parquet"
    )
    data = read(tmp_path / "t.parquet")
    assert data.classes == ("no", "yes")
    assert data.targets is not None
    assert data.targets.tolist() == [1, 0] * 3
