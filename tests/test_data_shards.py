"""Shards: examples read where they lie in tar files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_shards import of_pictures, write_shards, write_tar
from made_sounds import tone
from packaged_data import glosses_of, pictures_of

from topgraft.data import hold_out, open_picture, read, read_test, rows
from topgraft.data.lazily import Member, Picked
from topgraft.errors import TopgraftError


def test_a_range_and_a_folder_of_shards_give_what_a_folder_of_pictures_gives(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards")
    loose = tmp_path / "loose"
    for name in ("food", "tools"):
        (loose / name).mkdir(parents=True)
        for path in pictures_of(name, 0, 8):
            (loose / name / path.name).write_bytes(path.read_bytes())
    plain, one = read(loose), read(f"{folder}/photos-{{000..001}}.tar")
    assert (one.modality, one.classes, one.counts) == ("picture", ("food", "tools"), {"food": 8, "tools": 8})
    assert one.names[0] == f"{folder}/photos-000.tar:food/{pictures_of('food', 0, 1)[0].stem}.webp"
    assert read(folder).digests == one.digests
    assert sorted(zip(one.digests, one.targets, strict=True)) == sorted(
        zip(plain.digests, plain.targets, strict=True)
    )
    assert len(one.duplicates) == len(plain.duplicates)
    assert one.columns == {}  # none was named: other shards are read by what is usual in them
    assert isinstance(one.inputs[0], Member)
    expected = open_picture(pictures_of("food", 0, 1)[0])
    assert np.array_equal(np.asarray(one.decode(0)), np.asarray(expected))


def test_parts_of_them_are_read_from_the_shards_too(tmp_path: Path) -> None:
    data = read(write_shards(tmp_path))
    development, untouched = (data.subset(part) for part in hold_out(data))
    assert isinstance(development.inputs, Picked)
    assert {*development.names} | {*untouched.names} == {*data.names}
    for part in (development, untouched):
        for i, name in enumerate(part.names):
            assert str(part.inputs[i]) == name
            part.decode(i)


def test_a_shard_that_is_another_one_now_is_noticed(tmp_path: Path) -> None:
    data = read(write_shards(tmp_path))
    write_tar(tmp_path / "photos-000.tar", reversed(of_pictures(0, 4)))
    with pytest.raises(TopgraftError, match="its file changed after it was read"):
        data.decode(0)


def test_members_of_an_example_need_not_stand_side_by_side(tmp_path: Path) -> None:
    members = of_pictures(0, 3)
    pictures, labels = members[::2], members[1::2]
    write_tar(tmp_path / "a.tar", [*pictures, *labels, (".hidden.jpg", b"x"), ("README", b"x")])
    data = read(tmp_path / "a.tar")
    assert data.counts == {"food": 3, "tools": 3}
    assert any("2 members are hidden or without an ending" in note for note in data.notes)


def test_labels_and_groups_are_keys_of_the_json(tmp_path: Path) -> None:
    members = []
    for i, (name, content) in enumerate(of_pictures(0, 4)[::2]):
        described = {
            "kind": name.partition("/")[0],
            "visit": f"v{i // 2}",
            "tags": ["a", "b"] if i % 2 else ["a"],
        }
        members += [(name, content), (name.replace(".webp", ".json"), json.dumps(described).encode())]
    shard = write_tar(tmp_path / "a.tar", members)
    data = read(shard, label="kind", group="visit")
    assert (data.classes, data.columns) == (("food", "tools"), {"label": "kind", "group": "visit"})
    assert len(set(data.groups.tolist())) == 4
    with pytest.raises(TopgraftError, match=r"hold the labels.*kind, visit, tags"):
        read(shard)
    several = read(shard, label="tags", task="multilabel", max_unreadable=0.5, classes=["a", "b"])
    assert several.targets is not None
    assert several.targets.sum(0).tolist() == [8, 4]


def test_texts_with_labels_and_pictures_with_labels_in_texts(tmp_path: Path) -> None:
    texts = []
    for i, (text, label) in enumerate(glosses_of(("animal", "food"), 5)):
        texts += [(f"{i}.txt", text.encode()), (f"{i}.cls", f"{label}\n".encode())]
    data = read(write_tar(tmp_path / "texts.tar", texts))
    assert (data.modality, data.classes) == ("text", ("animal", "food"))
    assert 'Texts are read from "txt" and labels are read from "cls".' in data.notes
    assert data.names[0].endswith("texts.tar:0.txt")
    members = [(name.replace(".cls", ".txt"), content) for name, content in of_pictures(0, 3)]
    data = read(write_tar(tmp_path / "b.tar", members))
    assert (data.modality, data.classes) == ("picture", ("food", "tools"))
    assert 'Pictures are read from its members and labels are read from "txt".' in data.notes
    broken = [*texts, ("x.txt", b"\xff\xfe\xff"), ("x.cls", b"food")]
    data = read(write_tar(tmp_path / "broken.tar", broken), max_unreadable=0.2)
    assert [(out.reason, out.name[-5:]) for out in data.left_out] == [("a text that is not UTF-8", "x.txt")]


def test_sounds(tmp_path: Path) -> None:
    members = []
    for i in range(6):
        file = io.BytesIO()
        kind = "bell" if i % 2 else "organ"
        soundfile.write(file, tone(kind, i), 16_000, format="FLAC" if i < 3 else "WAV")
        members += [(f"{i}.{'flac' if i < 3 else 'wav'}", file.getvalue()), (f"{i}.cls", kind.encode())]
    data = read(write_tar(tmp_path / "a.tar", members))
    assert (data.modality, len(data), data.classes) == ("sound", 6, ("bell", "organ"))
    assert data.decode(5).rate == 16_000


def test_several_pictures_of_an_example_have_to_be_told_apart(tmp_path: Path) -> None:
    members = []
    for (name, content), (_, label) in zip(of_pictures(0, 3)[::2], of_pictures(0, 3)[1::2], strict=True):
        key = name.removesuffix(".webp")
        members += [(f"{key}.left.webp", content), (f"{key}.right.png", content[:9]), (f"{key}.cls", label)]
    shard = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(TopgraftError, match=r"several pictures.*\(--path\).*left.webp, right.png"):
        read(shard)
    assert len(read(shard, path="left.webp")) == 6


def test_a_test_set_of_other_formats_has_the_same_columns(tmp_path: Path) -> None:
    data = read(write_tar(tmp_path / "a.tar", of_pictures(0, 4)))
    members = of_pictures(10, 2)[1::2]
    for name, content in of_pictures(10, 2)[::2]:
        file = io.BytesIO()
        open_picture(content).save(file, "PNG")
        members.append((name.replace(".webp", ".png"), file.getvalue()))
    test = read_test(write_tar(tmp_path / "test.tar", members), data)
    assert (len(test), test.classes) == (4, data.classes)


def test_what_can_not_be_used_is_left_out_by_name(tmp_path: Path) -> None:
    members = of_pictures(0, 5)
    members += [("cut.webp", members[0][1][:200]), ("cut.cls", b"food"), ("alone.cls", b"food")]
    members += [("nolabel.webp", members[2][1]), ("twice.webp", members[0][1]), ("twice.webp", members[2][1])]
    members += [("twice.cls", b"food")]
    data = read(write_tar(tmp_path / "a.tar", members), max_unreadable=0.5)
    found = {out.name.rpartition(":")[2]: out.reason for out in data.left_out}
    assert found["cut.webp"] == "truncated after 200 bytes"
    assert found["alone.webp"] == "no picture"
    assert found["nolabel.webp"] == "no label"
    assert found["twice.webp"] == "two members are named twice.webp"
    assert len(data) == 10


def test_shards_are_predicted_by_member(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", shards=1)
    (row, *more) = rows([str(folder)], modality="picture")
    assert row.name == f"{folder}/photos-000.tar:food/{pictures_of('food', 0, 1)[0].stem}.webp"
    assert len(more) == 7
    assert row.value.read() == pictures_of("food", 0, 1)[0].read_bytes()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a-{000..002}.tar", r"a-002.tar: there is no such file or folder.*Nearest: a-00"),
        ("a-{3..1}.tar", "a range from small to large"),
        ("a-{0..99999999}.tar", "a range from small to large, of up to 100,000"),
        ("folder.tar", "is a folder. Expected a tar file"),
        ("b.tar.gz", "b.tar.gz is compressed. Unpack it to a .tar"),
    ],
)
def test_a_range_that_is_none_is_told(tmp_path: Path, name: str, said: str) -> None:
    for number in range(2):
        write_tar(tmp_path / f"a-{number:03d}.tar", of_pictures(number, 1))
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "b.tar.gz").write_bytes(b"")
    with pytest.raises(TopgraftError, match=said):
        read(tmp_path / name)


def test_names_that_have_no_common_ending_are_told(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [(f"a.{i}.jpg", b"x") for i in range(80)])
    with pytest.raises(TopgraftError, match="more than 64 different endings"):
        read(shard)
