from __future__ import annotations

import os
from pathlib import Path

import pytest
from packaged_data import pictures_of

from topgraft.data import read
from topgraft.data.folders import Walk, files_below, natural
from topgraft.errors import TopgraftError


def put(folder: Path, *numbers: int, kind: str = "food") -> Path:
    """Write packaged pictures (all different) with these numbers in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (source,) = pictures_of(kind, number, 1)
        (folder / f"{number}.webp").write_bytes(source.read_bytes())
    return folder


def two_classes(root: Path) -> Path:
    put(root / "cat", 0, 1, 2)
    put(root / "dog", 3, 4, 5)
    return root


def message(path: Path, **options: object) -> str:
    with pytest.raises(TopgraftError) as caught:
        read(path, **options)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_each_folder_is_a_class_and_deeper_folders_belong_to_it(tmp_path: Path) -> None:
    two_classes(tmp_path)
    put(tmp_path / "dog" / "small" / "brown", 6)
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.counts == {"cat": 3, "dog": 4}
    assert data.names[-1] == f"{tmp_path}/dog/small/brown/6.webp"
    assert data.targets is not None
    assert [Path(n).relative_to(tmp_path).parts[0] for n in data.names] == [
        data.classes[t] for t in data.targets
    ]
    assert data.decode(0).mode == "RGB"


def test_names_are_the_path_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert read("photos/").names[0] == "photos/cat/0.webp"


def test_hidden_files_and_other_files_are_skipped_and_told_but_not_counted(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat" / "README").write_text("hello")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "notes.txt").write_text("hello")
    put(tmp_path / ".cache", 7)
    put(tmp_path, 8)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    data = read(tmp_path, max_unreadable=0)
    assert len(data) == 6
    assert data.left_out == ()
    notes = "\n".join(data.notes)
    assert "3 files are not pictures and were skipped" in notes
    assert "cat/README" in notes
    assert "dog/pipe.png" in notes
    assert "2 hidden files or folders were skipped" in notes
    assert "1 picture lies in" in notes
    assert "8.webp" in notes
    assert "1 folder holds no pictures and is no class: empty" in notes


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", 6, 7)
    root = two_classes(tmp_path / "photos")
    (root / "cat" / "more").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "cat" / "up").symlink_to(root)
    (elsewhere / "back").symlink_to(root / "cat")
    (root / "bird").symlink_to(put(tmp_path / "birds", 8, 9))
    data = read(root)
    assert data.counts == {"bird": 2, "cat": 5, "dog": 3}
    assert any("3 links lead to a folder that was already visited" in note for note in data.notes)


def test_many_links_to_each_other_are_walked_once(tmp_path: Path) -> None:
    folders = [put(tmp_path / f"f{i}", i) for i in range(8)]
    for here in folders:
        for there in folders:
            (here / f"to-{there.name}").symlink_to(there)
    assert len(list(files_below(folders[0], Walk()))) == 8


def test_a_link_to_nothing_counts_as_unreadable(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat" / "lost.jpg").symlink_to(tmp_path / "gone.jpg")
    data = read(tmp_path, max_unreadable=0.2)
    assert [out.reason for out in data.left_out] == ["a link to a file that is not there"]


def test_no_such_path_names_the_nearest(tmp_path: Path) -> None:
    two_classes(tmp_path / "photos")
    said = message(tmp_path / "fotos")
    assert "there is no such file or folder" in said
    assert "Nearest: photos" in said
    assert "There is no folder" in message(tmp_path / "nowhere" / "photos")
    assert "no path that can be read" in message(tmp_path / ("x" * 5000))


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "is an empty folder" in message(tmp_path)
    (tmp_path / ".hidden").write_text("")
    assert "holds no pictures and no class folders" in message(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    assert "no pictures were found in its 2 folders (cat, dog)" in message(tmp_path)


def test_pictures_without_class_folders(tmp_path: Path) -> None:
    put(tmp_path, 0, 1)
    said = message(tmp_path)
    assert "holds 2 pictures but no class folders" in said
    assert "one folder of pictures for each class" in said


def test_a_folder_that_holds_a_table_only_points_to_it(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\na,b\n")
    assert f"Did you mean the table {tmp_path}/reviews.csv?" in message(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    put(tmp_path / "cat", 0, 1, 2)
    said = message(tmp_path)
    assert 'only one class was found, "cat" (3 pictures)' in said
    assert "Did you mean" not in said


def test_a_wrapping_folder_is_pointed_at(tmp_path: Path) -> None:
    two_classes(tmp_path / "photos")
    assert f"Did you mean {tmp_path}/photos? It holds 2 folders." in message(tmp_path)


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        (("train", "test"), "{0}/train --test {0}/test"),
        (("train", "val"), "{0}/train --test {0}/val"),
        (("Train", "valid", "test"), "{0}/Train --test {0}/test"),
        (("test",), "{0}/test"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(tmp_path: Path, parts: tuple[str, ...], advice: str) -> None:
    for part in parts:
        two_classes(tmp_path / part)
    said = message(tmp_path)
    assert "holds the parts of a data set" in said
    assert said.endswith(advice.format(tmp_path))


def test_a_class_may_be_called_test_beside_others(tmp_path: Path) -> None:
    put(tmp_path / "test", 0, 1)
    put(tmp_path / "tree", 2, 3)
    assert read(tmp_path).classes == ("test", "tree")


def test_no_permission(closed_for_us: Path) -> None:
    assert "no permission" in message(closed_for_us / "photos")
    assert "no permission" in message(closed_for_us / "photos" / "cat")


def test_the_folder_of_a_class_without_permission_is_not_passed_by(closed_for_us: Path) -> None:
    assert "no permission to read 1 class folder: dog" in message(closed_for_us / "others")


@pytest.fixture
def closed_for_us(tmp_path: Path) -> object:
    """A folder in which this process, even the superuser's, may not read ``photos`` and ``others/dog``."""
    closed = [two_classes(tmp_path / "photos"), two_classes(tmp_path / "others") / "dog"]
    above = [p for p in tmp_path.parents if p.stat().st_uid == os.geteuid() and p.stat().st_mode & 0o77 == 0]
    modes = {p: p.stat().st_mode for p in above}
    user = os.geteuid()
    try:
        for p in above:
            p.chmod(0o711)
        for p in (tmp_path, tmp_path / "others", tmp_path / "others" / "cat"):
            p.chmod(0o755)
        for p in closed:
            p.chmod(0)
        if user == 0:
            os.seteuid(65534)
        yield tmp_path
    finally:
        os.seteuid(user)
        for p in closed:
            p.chmod(0o700)
        for p, mode in modes.items():
            p.chmod(mode)


def test_names_that_are_not_utf8_are_read_and_can_be_printed(tmp_path: Path) -> None:
    two_classes(tmp_path)
    strange = os.fsencode(tmp_path / "cat") + b"/caf\xe9.webp"
    Path(os.fsdecode(strange)).write_bytes(pictures_of("food", 9, 1)[0].read_bytes())
    data = read(tmp_path)
    assert data.counts["cat"] == 4
    assert any("caf\\udce9.webp" in name.encode().decode() for name in data.names)


def test_numbers_in_names_sort_by_size() -> None:
    assert sorted(["img10", "img9", "img1", "B", "a"], key=natural) == ["a", "B", "img1", "img9", "img10"]
