"""An export appears whole or not at all, and takes the place of nothing but an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import content

from topgraft.errors import TopgraftError
from topgraft.export.place import DOCUMENT, check, export_folder


def made(path: Path, text: str, *, overwrite: bool = False) -> None:
    with export_folder(path, overwrite=overwrite) as folder:
        (folder / DOCUMENT).write_text(text)
        (folder / text).write_text("")


def test_a_new_place_and_an_empty_folder_are_filled(tmp_path):
    made(tmp_path / "a" / "b", "one")
    (tmp_path / "empty").mkdir()
    made(tmp_path / "empty", "two")
    assert content(tmp_path) == {
        "a/b/export.json": b"one",
        "a/b/one": b"",
        "empty/export.json": b"two",
        "empty/two": b"",
    }


def test_an_earlier_export_is_replaced_only_when_that_is_asked_for(tmp_path):
    made(tmp_path / "out", "one")
    with pytest.raises(TopgraftError, match=r"holds an export.*--overwrite"):
        made(tmp_path / "out", "two")
    assert content(tmp_path) == {"out/export.json": b"one", "out/one": b""}
    made(tmp_path / "out", "two", overwrite=True)
    assert content(tmp_path) == {"out/export.json": b"two", "out/two": b""}


def test_what_a_link_stands_for_is_replaced(tmp_path):
    made(tmp_path / "there", "one")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    made(tmp_path / "link", "two", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "there") == {"export.json": b"two", "two": b""}


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_folders_and_files_are_left_alone(tmp_path, overwrite):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    before = content(tmp_path)
    for name in ("mine", "file"):
        with pytest.raises(TopgraftError, match="not an export of topgraft; it is left alone"):
            made(tmp_path / name, "one", overwrite=overwrite)
    assert content(tmp_path) == before


def fail_half_way(path: Path) -> None:
    with export_folder(path, overwrite=True) as folder:
        (folder / DOCUMENT).write_text("half")
        Path("no/such/file").read_text()


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    made(tmp_path / "out", "one")
    for name in ("out", "new"):
        with pytest.raises(FileNotFoundError):
            fail_half_way(tmp_path / name)
    assert content(tmp_path) == {"out/export.json": b"one", "out/one": b""}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_name_of_a_file_is_refused_with_a_folder_to_take(tmp_path):
    with pytest.raises(TopgraftError, match=r"an export is a folder.*Give .*/model, say"):
        check(tmp_path / "model.onnx", overwrite=False)
