"""Tar files that mean harm, are damaged or are none."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_shards import of_pictures, write_tar

from topgraft.data import read
from topgraft.data.tars import Entry, entries_of
from topgraft.errors import TopgraftError


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.type, one.linkname = kind, target
    return one


def test_links_devices_and_pipes_are_no_files_and_nothing_is_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret.webp"
    secret.write_bytes(of_pictures(9, 1)[0][1])
    inside = tmp_path / "inside"
    path = write_tar(inside / "a.tar", of_pictures(0, 4))
    with tarfile.open(path, "a") as archive:
        for i, (kind, target) in enumerate(
            [
                (tarfile.SYMTYPE, str(secret)),
                (tarfile.LNKTYPE, "../secret.webp"),
                (tarfile.CHRTYPE, ""),
                (tarfile.FIFOTYPE, ""),
            ]
        ):
            archive.addfile(special(f"odd{i}.webp", kind, target))
            label = tarfile.TarInfo(f"odd{i}.cls")
            label.size = 4
            archive.addfile(label, io.BytesIO(b"food"))
        for name in ("../../../up.webp", "/absolute.webp"):
            one = tarfile.TarInfo(name)
            content = of_pictures(6, 1)[0][1]
            one.size = len(content)
            archive.addfile(one, io.BytesIO(content))
    before = sorted(p for p in tmp_path.rglob("*"))
    data = read(path, max_unreadable=0.6)
    reasons = {out.name.rpartition(":")[2]: out.reason for out in data.left_out}
    assert [reasons[f"odd{i}.webp"] for i in range(2)] == ["a link, not a file"] * 2
    assert [reasons[f"odd{i}.webp"] for i in (2, 3)] == ["a device, pipe or socket, not a file"] * 2
    assert reasons["../../../up.webp"] == "no label"
    assert len(data) == 8
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_sizes_that_are_lies_are_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", of_pictures(0, 2)).read_bytes()
    for size in (b"77777777777\0", b"\x80" + b"\0" * 3 + b"\x7f" * 8, b"\xff" * 12):
        header = bytearray(whole[:512])
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "lie.tar").write_bytes(bytes(header) + whole[512:])
        with pytest.raises(TopgraftError, match=r"lie.tar (is cut short|is no tar file)"):
            read(tmp_path / "lie.tar")


def test_a_name_as_long_as_the_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    header = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 1 << 33
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate((1 << 33) + 4096)  # takes no room on the disk
    with pytest.raises(
        TopgraftError, match=r"a.tar is no tar file that can be read: a header of 8,589,934,592 bytes"
    ):
        read(path)


def test_what_is_cut_short_damaged_compressed_or_no_tar_is_told(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", of_pictures(0, 2)).read_bytes()
    second = 512 + -(-len(of_pictures(0, 1)[0][1]) // 512) * 512
    cases = {
        whole[: second + 100]: "(is cut short|is damaged)",
        whole[: second + 512]: "is cut short",
        whole[:second] + b"x" * 512 + whole[second + 512 :]: f"is damaged from byte {second:,} on",
        gzip.compress(whole): "is compressed by gzip",
        b"a text": "is no tar file that can be read",
        b"": "is an empty file",
        b"\0" * 10_240: "holds no examples",
    }
    for content, said in cases.items():
        (tmp_path / "b.tar").write_bytes(content)
        with pytest.raises(TopgraftError, match=f"b.tar {said}"):
            read(tmp_path / "b.tar")


def test_a_file_without_its_end_is_read_and_told(tmp_path: Path) -> None:
    members = of_pictures(0, 2)
    whole = write_tar(tmp_path / "a.tar", members).read_bytes()
    end = sum(512 + -(-len(content) // 512) * 512 for _, content in members)
    (tmp_path / "a.tar").write_bytes(whole[:end])
    data = read(tmp_path / "a.tar")
    assert len(data) == 4
    assert any("may be cut short after a member" in note for note in data.notes)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_entries_inside_the_file_or_an_error_that_can_be_mended(
    tmp_path: Path, data: st.DataObject
) -> None:
    whole = bytearray(
        write_tar(tmp_path / "a.tar", [(f"{i}.txt", b"x" * 40 * i) for i in range(6)]).read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    (tmp_path / "b.tar").write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        found = list(entries_of(tmp_path / "b.tar", "b.tar", []))
    except TopgraftError:
        return
    assert all(isinstance(one, Entry) and one.start + one.size <= len(whole) for one in found)
