from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from topgraft import mapped
from topgraft.features.store import Store
from topgraft.mapped import RoomWarning, give_back, room


def test_what_is_small_is_held_in_memory(tmp_path: Path) -> None:
    small = room((4, 5), np.uint8, tmp_path)
    assert (small.shape, small.dtype) == ((4, 5), np.dtype("u1"))
    assert small.base is None


def test_what_is_large_is_filled_read_copied_and_leaves_no_file(tmp_path: Path) -> None:
    large = room((2**20, 5), np.float32, tmp_path)
    assert list(tmp_path.iterdir()) == []
    large[:] = np.arange(5)
    tensor = torch.from_numpy(large)
    tensor[7] += 1
    assert np.array_equal(large[6:8], [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    assert np.array_equal(pickle.loads(pickle.dumps(large[:100])), large[:100])
    del large
    assert float(tensor[7].sum()) == 15


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell of memory")
def test_it_is_no_memory_of_the_process(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from pathlib import Path
from topgraft.mapped import room
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
before = anonymous()
held = room((200, 2**20), np.uint8, Path(sys.argv[1]))
held[:] = 3
assert int(held[::50, ::1000].sum()) > 0
print(anonymous() - before)
"""
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 20e6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its C library gives nothing back when asked")
def test_what_was_freed_in_pieces_is_given_back() -> None:
    code = """
from pathlib import Path
from topgraft.mapped import give_back
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
blocks = [bytes(100_000) for _ in range(1000)]
held = blocks[::50]  # what else would keep the pages between them
del blocks
before = anonymous()
give_back()
print(before - anonymous())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 50e6


def test_where_nothing_can_be_given_back_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    give_back()


def test_where_the_disk_has_no_room_memory_is_taken_and_that_is_said(tmp_path: Path) -> None:
    code = f"""
import resource, warnings
from pathlib import Path
import numpy as np
from topgraft.mapped import RoomWarning, give_back, room
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    held = room((40, 2**20), np.uint8, Path({str(tmp_path)!r}))
held[:] = 1
print(int(held[::13, 0].sum()), [str(w.message) for w in told if w.category is RoomWarning])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("4 [")
    assert "has no room for 42 MB" in told.stdout
    assert "held in memory" in told.stdout


def test_without_a_folder_it_lies_where_temporary_files_may_be_large(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert mapped._for_large_files() == tmp_path
    monkeypatch.delenv("TMPDIR")
    if os.access("/var/tmp", os.W_OK):
        assert mapped._for_large_files() == Path("/var/tmp")


def test_a_shelf_reads_into_it_the_same_numbers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mapped, "HELD", 100)
    shelf = Store(tmp_path).shelf({"what": "a test"})
    numbers = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    digests = [f"example {n}" for n in range(40)]
    shelf.append(digests, {"a": numbers, "b": torch.arange(40)})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    plain = shelf.read([digests[i] for i in order])
    found = shelf.read([digests[i] for i in order], mapped=True)
    assert found.keys() == plain.keys()
    for name, array in plain.items():
        assert torch.equal(array, found[name])
        assert found[name].dtype == array.dtype
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_no_warning_where_there_is_room(recwarn, tmp_path: Path) -> None:
    room((mapped.HELD + 1,), np.uint8, tmp_path)
    assert not [w for w in recwarn if w.category is RoomWarning]
