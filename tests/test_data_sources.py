from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from packaged_data import pictures_of

from topgraft import demo
from topgraft.data import hold_out, open_picture, read, read_test
from topgraft.errors import TopgraftError


def put(folder: Path, *sources: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        (folder / source.name).write_bytes(source.read_bytes())
    return folder


def table_of_pictures(folder: Path, extra: str = "") -> Path:
    lines = ["path,kind"]
    for name in ("food", "tools"):
        put(folder / "images" / name, *pictures_of(name, 0, 4))
        lines += [f"images/{name}/{p.name},{name}" for p in pictures_of(name, 0, 4)]
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n" + extra)
    return path


def test_the_packaged_pictures_are_read_whole() -> None:
    data = read(demo.pictures())
    assert len(data) == 645
    assert data.classes == ("animals", "buildings", "food", "plants", "tools", "transportation")
    assert data.left_out == ()
    development, untouched = hold_out(data)
    assert (len(development), len(untouched)) == (516, 129)


def test_the_packaged_glosses_are_read_whole() -> None:
    data = read(demo.glosses())
    assert len(data) == 1500
    assert set(data.counts.values()) == {150}
    assert data.modality == "text"


def test_paths_in_a_table_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_of_pictures(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    data = read("set/list.csv")
    assert data.modality == "picture"
    assert data.columns == {"path": "path", "label": "kind"}
    assert data.names[0] == f"set/images/food/{pictures_of('food', 0, 1)[0].name}"
    assert len(data) == 8


def test_what_is_wrong_with_paths_in_a_table_is_told(tmp_path: Path) -> None:
    table = table_of_pictures(
        tmp_path, "gone.png,food\nhttps://example.org/a.png,food\n,tools\nimages,tools\n"
    )
    data = read(table, max_unreadable=0.5)
    assert [out.reason for out in data.left_out] == [
        "no such file",
        "an address, not a file: download it first",
        "no path",
        "a folder, not a file",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.jpg", "is one picture. Expected a folder with one folder of pictures a class, or a table (.csv"),
        ("a.xlsx", 'ends in ".xlsx". Expected'),
    ],
)
def test_a_file_that_is_no_data_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TopgraftError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)


def test_options_that_do_not_fit_are_refused(photos: Path, glosses: Path) -> None:
    with pytest.raises(TopgraftError, match='is no table, so it has no column "x" for label'):
        read(photos, label="x")
    with pytest.raises(TopgraftError, match="holds pictures, not texts"):
        read(photos, modality="text")
    with pytest.raises(TopgraftError, match="which are not pictures"):
        read(glosses, text="text", modality="picture")
    with pytest.raises(TopgraftError, match='modality="film" is unknown'):
        read(glosses, modality="film")
    with pytest.raises(TopgraftError, match="targets can't be given together with a path"):
        read(glosses, targets=[1, 2])
    with pytest.raises(TopgraftError, match="zero byte"):
        read("a\0b")


def test_a_test_set_takes_classes_from_the_data(photos: Path, tmp_path: Path) -> None:
    data = read(photos)
    put(tmp_path / "tools", *pictures_of("tools", 40, 3))
    put(tmp_path / "food", *pictures_of("food", 40, 3))
    test = read_test(tmp_path, data)
    assert test.classes == data.classes
    assert test.counts == {"buildings": 0, "food": 3, "tools": 3}
    put(tmp_path / "birds", *pictures_of("animals", 0, 1))
    with pytest.raises(TopgraftError, match=r'the label "birds" is none of the 3 classes'):
        read_test(tmp_path, data)


def test_a_test_set_may_have_one_class_only(photos: Path, tmp_path: Path) -> None:
    put(tmp_path / "tools", *pictures_of("tools", 40, 3))
    assert read_test(tmp_path, read(photos)).counts["tools"] == 3


def test_an_overlap_with_the_test_set_is_an_error_unless_allowed(photos: Path, tmp_path: Path) -> None:
    data = read(photos)
    same, near = pictures_of("food", 0, 1)[0], pictures_of("tools", 1, 1)[0]
    put(tmp_path / "food", *pictures_of("food", 40, 3), same)
    put(tmp_path / "tools", *pictures_of("tools", 40, 3))
    open_picture(near).save(tmp_path / "tools" / "near.jpg", quality=90)
    with pytest.raises(TopgraftError) as caught:
        read_test(tmp_path, data)
    said = str(caught.value)
    assert "2 examples of the test set are in" in said
    assert f"food/{same.name} = " in said
    assert f"near.jpg = {photos}/tools/{near.name}" in said
    assert "--allow-overlap" in said
    assert caught.value.exit_status == 2
    allowed = read_test(tmp_path, data, allow_overlap=True)
    assert len(allowed) == 8
    assert any("2 examples of the test set are in" in note for note in allowed.notes)
    with pytest.raises(TopgraftError, match="1 example of the test set is in"):
        read_test(tmp_path, data, near_duplicates=False)


def test_an_overlap_of_texts_and_columns_that_are_taken_over(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("gloss,stars\na dry wine,1\na red fox,2\nsweet wine,1\nold wolf,2\n")
    test.write_text("stars,id,gloss\n1,1,A dry wine!\n2,2,a grey goose\n")
    data = read(train, text="gloss", label="stars")
    with pytest.raises(TopgraftError, match="0 = 0"):
        read_test(test, data)
    assert read_test(test, data, allow_overlap=True).columns == {"text": "gloss", "label": "stars"}
    test.write_text("star,gloss\n1,new\n")
    with pytest.raises(TopgraftError, match=r'no column "stars"\. Nearest: star'):
        read_test(test, data)


def test_an_overlap_of_arrays() -> None:
    x = np.random.default_rng(0).normal(size=(12, 3))
    data = read((x[:10], [0, 1] * 5))
    with pytest.raises(TopgraftError, match="1 example of the test set is in"):
        read_test((x[9:], [1, 0, 1]), data)
    assert len(read_test((x[10:], [0, 1]), data)) == 2


@pytest.mark.parametrize("given", ["", "  ", "a\0b"])
def test_a_path_that_is_none_is_not_taken_for_the_folder_where_one_stands(given: str) -> None:
    with pytest.raises(TopgraftError, match=r"path .* was given"):
        read(given)
