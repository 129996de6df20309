from __future__ import annotations

import math
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from child_process import drop_rights, in_child, killed, limit_file_size, small_disk, start
from hypothesis import given, settings
from hypothesis import strategies as st

from topgraft.errors import RunningError, TopgraftError
from topgraft.files import (
    DamagedFile,
    new_folder,
    read_json,
    read_tensors,
    sweep,
    write_json,
    write_tensors,
    write_whole,
)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# files


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=50), st.lists(st.binary(max_size=20), max_size=4))
def test_a_file_holds_what_was_given_whole_or_in_parts(data: bytes, parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "é" * 120)  # as long a name as a disk allows
        write_whole(path, data)
        assert path.read_bytes() == data
        write_whole(path, (memoryview(part) for part in parts))
        assert path.read_bytes() == b"".join(parts)
        assert left(Path(name)) == [path.name]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "ours", b"")
    (tmp_path / "other").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "other").stat().st_mode
    )


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    write_whole(tmp_path / "file", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", parts())
    assert (tmp_path / "file").read_bytes() == b"old"
    assert left(tmp_path) == ["file"]


def test_a_kill_between_writing_and_renaming_leaves_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")

    def work() -> None:
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        write_whole(tmp_path / "file", b"new")

    killed(work)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(left(tmp_path)) == 2
    assert sweep(tmp_path, only="another file") == 0
    assert sweep(tmp_path) == 1
    assert left(tmp_path) == ["file"]


def test_what_is_being_written_is_not_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".topgraft-part-of-something-else").write_text("")
    go_on_reader, go_on = os.pipe()
    ready, ready_writer = os.pipe()

    def parts() -> Iterator[bytes]:
        yield b"begin "
        os.write(ready_writer, b".")
        os.read(go_on_reader, 1)
        yield b"end"

    child, result = start(lambda: write_whole(tmp_path / "file", parts()))
    os.read(ready, 1)
    swept = sweep(tmp_path)
    os.write(go_on, b".")
    assert os.waitpid(child, 0)[1] == 0
    for pipe in (go_on_reader, go_on, ready, ready_writer, result):
        os.close(pipe)
    assert swept == 0
    assert (tmp_path / "file").read_bytes() == b"begin end"
    assert left(tmp_path) == [".topgraft-part-of-something-else", "file"]


def test_readers_see_the_old_or_the_new_file_never_another(tmp_path: Path) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_whole(tmp_path / "file", contents[0])

    def work() -> None:
        for number in range(60):
            write_whole(tmp_path / "file", contents[number % 2])

    child, result = start(work)
    seen = set()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        content = (tmp_path / "file").read_bytes()
        assert content in contents
        seen.add(content[:1])
    os.close(result)
    assert seen


# folders


def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as folder:
        (folder / "deep").mkdir()
        write_json(folder / "deep" / "a.json", 1)
        assert not (tmp_path / "run").exists()
        assert folder.parent == tmp_path
    assert left(tmp_path) == ["run"]
    assert read_json(tmp_path / "run" / "deep" / "a.json") == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_an_error_inside_leaves_no_folder(tmp_path: Path, error: type[BaseException]) -> None:
    def build() -> None:
        with new_folder(tmp_path / "run") as folder:
            write_json(folder / "a.json", 1)
            raise error("inside")

    with pytest.raises(error, match="inside"):
        build()
    assert left(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder", "dangling link"])
def test_what_is_there_already_is_left_alone(tmp_path: Path, what: str) -> None:
    place = tmp_path / "run"
    if what == "file":
        place.write_text("mine")
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(TopgraftError, match="exists already and was left alone"), new_folder(place):
        pytest.fail("the block must not run")
    assert left(tmp_path) == ["run"]
    assert place.is_symlink() == (what == "dangling link")


def test_what_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def build() -> None:
        with new_folder(tmp_path / "run") as folder:
            write_json(folder / "a.json", 1)
            (tmp_path / "run").mkdir()

    with pytest.raises(TopgraftError, match="exists already"):
        build()
    assert left(tmp_path) == ["run"]
    assert left(tmp_path / "run") == []


def test_a_kill_while_a_folder_is_built_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def work() -> None:
        with new_folder(tmp_path / "run") as folder:
            write_json(folder / "a.json", 1)
            os.kill(os.getpid(), signal.SIGKILL)

    killed(work)
    assert not (tmp_path / "run").exists()
    assert len(left(tmp_path)) == 1
    with new_folder(tmp_path / "other"):
        pass
    assert len(left(tmp_path)) == 2  # another folder's leftovers are not this one's business
    with new_folder(tmp_path / "run") as folder:
        write_json(folder / "b.json", 2)
    assert left(tmp_path) == ["other", "run"]
    assert left(tmp_path / "run") == ["b.json"]


# JSON and tensors


def test_json_comes_back_and_ends_with_a_newline(tmp_path: Path) -> None:
    value = {"b": [0.1, -0.0, 5e-324, 1 << 70, None, True], "a": "é\u2028</script>"}
    write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    found = read_json(tmp_path / "a.json")
    assert found == value
    assert math.copysign(1, found["b"][1]) == -1
    with pytest.raises(ValueError, match="is nan"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [b"", b"{", b"[1e999]", b"\xff", b'{"a":1,"a":1}', b"[" * 99_999])
def test_damaged_json_is_told_with_path_and_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"a\.json is damaged: it is (not|nested)"):
        read_json(path)


def test_json_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: the size is told, the disk holds nothing
    with pytest.raises(DamagedFile, match="1,099,511,627,776 bytes, over the limit of 268,435,456"):
        read_json(path)
    write_json(path, [1, 2, 3])
    assert read_json(path, limit=path.stat().st_size) == [1, 2, 3]
    with pytest.raises(DamagedFile, match="over the limit"):
        read_json(path, limit=path.stat().st_size - 1)


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_a_file_that_is_missing_or_none_is_told(tmp_path: Path, read: Any) -> None:
    with pytest.raises(TopgraftError, match="nothing does not exist"):
        read(tmp_path / "nothing")
    with pytest.raises(DamagedFile, match="not a regular file"):
        read(tmp_path)


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.tensor([math.nan, -0.0]), "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)}
    write_tensors(tmp_path / "t", tensors, {"format": "pt"})
    found, metadata = read_tensors(tmp_path / "t")
    assert metadata == {"format": "pt"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
    assert read_tensors(tmp_path / "t", ["b"])[0].keys() == {"b"}
    with pytest.raises(TopgraftError, match="has no tensor 'c'"):
        read_tensors(tmp_path / "t", ["c"])
    content = bytearray((tmp_path / "t").read_bytes())
    content[-1] ^= 1
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(DamagedFile, match="do not match their checksum"):
        read_tensors(tmp_path / "t")
    write_tensors(tmp_path / "t", tensors, checksums=False)
    assert read_tensors(tmp_path / "t")[1] == {}


# the disk


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 100_000) as disk:
        write_whole(disk / "file", b"old")
        with pytest.raises(RunningError, match=r"The disk is full: .*file could not be written") as error:
            write_whole(disk / "file", bytes(200_000))
        assert error.value.exit_status == 1
        assert left(disk) == ["file"]
        with (
            pytest.raises(RunningError, match=r"The disk is full: .*disk/run"),
            new_folder(disk / "run") as folder,
        ):
            (folder / "big").write_bytes(bytes(200_000))  # not by our own writer
        assert left(disk) == ["file"]
        write_whole(disk / "file", b"new")
        assert (disk / "file").read_bytes() == b"new"


def test_a_file_size_limit_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def work() -> list[Any]:
        limit_file_size(4096)
        with pytest.raises(RunningError, match="ulimit") as error:
            write_whole(tmp_path / "file", bytes(5000))
        with pytest.raises(RunningError, match="ulimit"), new_folder(tmp_path / "run") as folder:
            write_tensors(folder / "t", {"a": torch.zeros(5000)})
        return [error.value.exit_status, left(tmp_path)]

    assert in_child(work) == [1, []]


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 100_000, "ro") as disk:
        with pytest.raises(TopgraftError, match=r"file could not be written: its disk is read-only") as error:
            write_whole(disk / "file", b"")
        assert error.value.exit_status == 2
        with pytest.raises(TopgraftError, match="read-only"), new_folder(disk / "run"):
            pytest.fail("the block must not run")


def test_a_missing_permission_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_json(place / "secret.json", 1)
        (place / "secret.json").chmod(0)
        place.chmod(0o555)

        def work() -> list[str]:
            drop_rights()
            messages = []
            for use in (
                lambda: write_whole(place / "file", b""),
                lambda: new_folder(place / "run").__enter__(),
                lambda: read_json(place / "secret.json"),
            ):
                with pytest.raises(TopgraftError) as error:
                    use()
                assert error.value.exit_status == 2
                messages.append(str(error.value).splitlines()[0])
            return messages

        assert in_child(work) == [
            f"No permission to write {place / 'file'}.",
            f"No permission to write {place / 'run'}.",
            f"No permission to read {place / 'secret.json'}.",
        ]
        place.chmod(0o755)


def test_a_place_that_can_not_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match=r"missing does not exist, so file could not be written"):
        write_whole(tmp_path / "missing" / "file", b"")
    with (
        pytest.raises(TopgraftError, match=r"missing does not exist"),
        new_folder(tmp_path / "missing" / "run"),
    ):
        pytest.fail("the block must not run")
    (tmp_path / "file").write_text("")
    with pytest.raises(TopgraftError, match="Not a directory"):
        write_whole(tmp_path / "file" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TopgraftError, match="Is a directory"):
        write_whole(tmp_path / "folder", b"")
    assert left(tmp_path) == ["file", "folder"]


def test_writing_and_reading_json_loads_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from topgraft.features.store import Store
from topgraft.files import read_json, write_json
write_json(sys.argv[1], [1])
assert read_json(sys.argv[1]) == [1]
assert Store(sys.argv[2]).shelf({"cut": 3}).known() == frozenset()
assert "torch" not in sys.modules
"""
    paths = [str(tmp_path / "a.json"), str(tmp_path / "store")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
