from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaged_data import pictures_of
from PIL import Image

from topgraft.data import Data, hold_out, open_picture, read, read_test
from topgraft.errors import TopgraftError


def put(folder: Path, *sources: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        (folder / source.name).write_bytes(source.read_bytes())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "food", *pictures_of("food", 0, 10))
    put(tmp_path / "tools", *pictures_of("tools", 0, 10))
    return tmp_path


def spoil(root: Path) -> dict[str, str]:
    """Write pictures that can't be used; the reason expected for each."""
    whole = pictures_of("food", 0, 1)[0].read_bytes()
    (root / "food" / "cut.webp").write_bytes(whole[:1203])
    (root / "food" / "empty.png").write_bytes(b"")
    (root / "tools" / "page.jpg").write_text("<html>not found</html>")
    Image.new("1", (12_000, 9_000)).save(root / "tools" / "vast.png")
    return {
        "food/cut.webp": "truncated after 1,203 bytes",
        "food/empty.png": "an empty file (0 bytes)",
        "tools/page.jpg": "not a picture in a format that Pillow reads",
        "tools/vast.png": "12,000 x 9,000 pixels, over the limit of 89,478,485",
    }


def test_unreadable_pictures_are_left_out_and_listed(root: Path) -> None:
    expected = spoil(root)
    data = read(root, max_unreadable=0.2)
    assert len(data) == 20
    assert {str(Path(out.name).relative_to(root)): out.reason for out in data.left_out} == expected
    (note,) = [n for n in data.notes if "could not be used" in n]
    assert note.startswith(
        "4 of 24 pictures could not be used and were left out (limit 20 %, see --max-unreadable)"
    )
    assert all(reason in note for reason in expected.values())


def test_too_many_unreadable_pictures_are_an_error(root: Path) -> None:
    spoil(root)
    with pytest.raises(TopgraftError) as caught:
        read(root)
    assert "4 of 24 pictures could not be used, which is too many (limit 5 %" in str(caught.value)
    assert "truncated after 1,203 bytes" in str(caught.value)
    assert caught.value.exit_status == 2


def test_nothing_readable_is_an_error(root: Path) -> None:
    for path in root.rglob("*.webp"):
        path.write_bytes(b"x")
    with pytest.raises(TopgraftError, match="none of 20 pictures could be used"):
        read(root, max_unreadable=1)


def test_the_limit_of_pixels_can_be_set(root: Path) -> None:
    with pytest.raises(TopgraftError, match="over the limit of 100"):
        read(root, max_pixels=100)
    with pytest.raises(TopgraftError, match="max_pixels=0"):
        read(root, max_pixels=0)


@pytest.mark.parametrize("share", [-0.1, 1.5, 5, float("nan")])
def test_a_limit_that_is_no_share_is_refused(root: Path, share: float) -> None:
    with pytest.raises(TopgraftError, match="is not a share between 0 and 1"):
        read(root, max_unreadable=share)


@pytest.fixture
def doubled(root: Path) -> Data:
    """Food 0 once more with the same bytes, and once as a small JPEG under tools; food 1 again as a JPEG."""
    zero, one = pictures_of("food", 0, 2)
    (root / "food" / "x-again.webp").write_bytes(zero.read_bytes())
    open_picture(zero).resize((120, 120)).save(root / "tools" / "x-small.jpg", quality=90)
    open_picture(one).save(root / "food" / "x-one.jpg", quality=90)
    (root / "tools" / "x-two.webp").write_bytes(pictures_of("food", 2, 1)[0].read_bytes())
    return read(root)


def names(data: Data, indices: tuple[int, ...]) -> set[str]:
    return {Path(data.names[i]).name for i in indices}


def test_exact_and_near_duplicates_are_found_and_told(doubled: Data) -> None:
    assert [names(doubled, s) for s in doubled.duplicates] == [
        {"food-000.webp", "x-again.webp", "x-small.jpg"},
        {"food-001.webp", "x-one.jpg"},
        {"food-002.webp", "x-two.webp"},
    ]
    assert [names(doubled, s) for s in doubled.conflicts] == [{"food-002.webp", "x-two.webp"}]
    notes = "\n".join(doubled.notes)
    assert "7 examples in 3 sets are duplicates (4 exact, the others nearly so)" in notes
    assert "1 input has different labels at different places" in notes
    assert "food-002.webp (food) = " in notes
    assert "1 set of near duplicates has different labels" in notes


def test_duplicates_are_on_one_side_of_every_split(doubled: Data) -> None:
    for seed in range(10):
        _, untouched = hold_out(doubled, seed=seed, share=0.4)
        for members in doubled.duplicates:
            assert len({i in set(untouched.tolist()) for i in members}) == 1


def test_near_duplicates_can_be_left_aside(root: Path, doubled: Data) -> None:
    exact = read(root, near_duplicates=False)
    assert [names(exact, s) for s in exact.duplicates] == [
        {"food-000.webp", "x-again.webp"},
        {"food-002.webp", "x-two.webp"},
    ]
    assert exact.fingerprint == doubled.fingerprint


def test_groups_of_the_user_are_united_with_duplicates(tmp_path: Path) -> None:
    rows = [
        "a red fox,a,p",
        "a blue car,b,q",
        "A red fox!,a,q",
        "an old bus,b,r",
        "grey wolf,a,s",
        "small cart,b,r",
    ]
    (tmp_path / "t.csv").write_text("\n".join(["text,label,who", *rows]))
    g = read(tmp_path / "t.csv", group="who").groups
    assert g[0] == g[2] == g[1]  # 0 and 2 are near duplicates, 1 and 2 of one group
    assert g[3] == g[5]
    assert len(set(g.tolist())) == 3


def test_conflicting_texts_are_listed_by_their_words() -> None:
    texts = ["Dry wine.", "dry  WINE", "wine dry", "beer"]
    data = read(texts, targets=["a", "b", "a", "b"])
    assert data.duplicates == ((0, 1, 2),)
    assert data.conflicts == ((0, 1),)


def test_given_classes_keep_their_order_and_refuse_others() -> None:
    texts = ["one", "two", "three"]
    data = read(texts, targets=["b", "a", "b"], classes=["c", "b", "a"])
    assert data.classes == ("c", "b", "a")
    assert data.targets is not None
    assert data.targets.tolist() == [1, 2, 1]
    with pytest.raises(TopgraftError, match=r'the label "animl" is none of the 2 classes\. Nearest: animal'):
        read(texts, targets=["animl", "food", "food"], classes=["animal", "food"])


def test_a_class_of_which_nothing_is_left_is_told(root: Path) -> None:
    (root / "bird").mkdir()
    (root / "bird" / "b.png").write_bytes(b"no")
    data = read(root, max_unreadable=0.1)
    assert data.classes == ("food", "tools")
    assert any("Nothing is left of bird" in note for note in data.notes)


def test_reading_holds_little_of_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topgraft.mapped.HELD", 0)  # thumbnails lie in a file, as those of many pictures do

    def peak(count: int) -> int:
        pictures = [Image.new("RGB", (8, 8), (i % 251, i // 251, 0)) for i in range(count)]
        labels = [str(i % 2) for i in range(count)]
        tracemalloc.start()
        try:
            read(pictures, targets=labels, near_duplicates=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(300)  # what is loaded and made once
    each = (peak(1500) - peak(300)) / 1200
    assert each < 1500


def test_who_watches_is_told_of_each_picture_usable_or_not(root: Path) -> None:
    spoil(root)
    told: list[tuple[str, int]] = []
    done: list[int] = []

    @contextmanager
    def watch(kind: str, count: int) -> Iterator[Callable[[int], None]]:
        told.append((kind, count))
        yield done.append

    data = read(root, max_unreadable=0.2, watch=watch)
    assert told == [("picture", 24)]
    assert sum(done) == 24
    read(["a dog", "a cat", "a bird"], targets=["a", "b", "a"], watch=watch)
    assert told == [("picture", 24)], "texts are not decoded"
    read_test(put(root.parent / "test" / "food", *pictures_of("food", 11, 1)).parent, data, watch=watch)
    assert told[1:] == [("picture", 1)]
