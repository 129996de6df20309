from __future__ import annotations

import io
from pathlib import Path

import pytest
from packaged_data import pictures_of

from topgraft.data import Row, read, rows
from topgraft.errors import TopgraftError


@pytest.fixture
def new(tmp_path: Path) -> Path:
    for name, numbers in {"": (10, 9), "deep/er": (1,)}.items():
        folder = tmp_path / "new" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / f"p{number}.webp").write_bytes(pictures_of("food", number, 1)[0].read_bytes())
    (tmp_path / "new" / "README.txt").write_text("hello")
    return tmp_path / "new"


def test_files_and_folders_come_in_the_order_given(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(new.parent)
    found = list(rows(["new/p10.webp", "new"], modality="picture"))
    assert [row.name for row in found] == [
        "new/p10.webp",
        "new/p9.webp",
        "new/p10.webp",
        "new/deep/er/p1.webp",
    ]
    assert all(row.value == Path(row.name) and row.error is None for row in found)
    (row,) = rows(["new/README.txt"], modality="picture")
    assert (row.value, row.error) == (None, 'not a picture (its name ends in ".txt")')


def test_a_folder_gives_the_names_that_read_gives(photos: Path) -> None:
    assert [row.name for row in rows([str(photos)], modality="picture")] == list(read(photos).names)


def test_a_table_gives_the_column_that_was_used_or_the_obvious_one(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('id,gloss,text\n1,a dry wine,x\n2,,y\n3,"old, grey wolf",z\n')
    expected = [Row("0", "a dry wine"), Row("1", None, "an empty text"), Row("2", "old, grey wolf")]
    assert list(rows([str(table)], modality="text", column="gloss")) == expected
    assert [row.value for row in rows([str(table)], modality="text")] == ["x", "y", "z"]
    with pytest.raises(TopgraftError, match=r'has no column "glos"\. Nearest: gloss'):
        rows([str(table)], modality="text", column="glos")
    table.write_text("a,b\n1,2\n")
    with pytest.raises(TopgraftError, match=r"holds the texts \(--text\)\? Its columns: a, b"):
        rows([str(table)], modality="text")
    table.write_text("whatever\nhello\n")
    assert [row.value for row in rows([str(table)], modality="text")] == ["hello"]


def test_rows_of_several_tables_can_be_told_apart(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text\nhello\n")
    names = [row.name for row in rows([str(tmp_path / n) for n in ("a.csv", "b.csv")], modality="text")]
    assert names == [f"{tmp_path}/a.csv:0", f"{tmp_path}/b.csv:0"]


def test_paths_in_a_table_are_relative_to_it(new: Path) -> None:
    (new / "t.csv").write_text("path\np9.webp\nhttps://example.org/a.png\n")
    first, second = rows([str(new / "t.csv")], modality="picture")
    assert first == Row(f"{new}/p9.webp", new / "p9.webp")
    assert second == Row("1", None, "an address, not a file: download it first")


def test_standard_input_holds_a_text_or_path_a_line_or_csv() -> None:
    lines = list(rows(["-"], modality="text", stdin=io.StringIO("a dry wine\r\n\nold wolf")))
    assert lines == [Row("0", "a dry wine"), Row("1", None, "an empty text"), Row("2", "old wolf")]
    table = io.StringIO('id,gloss\n1,"a ""dry"" wine"\n2\n')
    assert list(rows(["-"], modality="text", column="gloss", stdin=table)) == [
        Row("0", 'a "dry" wine'),
        Row("1", None, "an empty text"),
    ]
    plain = rows(["-"], modality="text", column="gloss", stdin=io.StringIO("a dry wine, red\n"))
    assert [row.value for row in plain] == ["a dry wine, red"]
    paths = rows(["-"], modality="picture", stdin=io.StringIO("new/a.jpg\n"))
    assert list(paths) == [Row("new/a.jpg", Path("new/a.jpg"))]
    assert list(rows(["-"], modality="text", stdin=io.StringIO(""))) == []


def test_standard_input_is_read_as_it_comes() -> None:
    class Endless(io.StringIO):
        def readline(self, *_: object) -> str:
            return "hello\n"

        def __next__(self) -> str:
            return "hello\n"

    endless = rows(["-"], modality="text", stdin=Endless())
    assert [next(endless).name for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_what_is_wrong_is_said_before_the_first_row(new: Path, tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match=r"there is no such file or folder\. Nearest: p9\.webp"):
        rows([str(new), str(new / "p8.webp")], modality="picture")
    (tmp_path / "none").mkdir()
    with pytest.raises(TopgraftError, match="holds no pictures"):
        rows([str(tmp_path / "none")], modality="picture")
    with pytest.raises(TopgraftError, match="this model takes texts"):
        rows([str(new / "p9.webp")], modality="text")
    with pytest.raises(TopgraftError, match="Nothing was given to predict"):
        rows([], modality="text")
    with pytest.raises(TopgraftError, match="from Python"):
        rows([str(new)], modality="array")
