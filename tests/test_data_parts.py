"""Files at an address, read by parts: what comes over the line, and what happens when it does not come."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from topgraft.data import parts
from topgraft.data.parts import BLOCK, HELD, length, open_parts, part
from topgraft.errors import RunningError, TopgraftError

CONTENT = np.random.default_rng(0).bytes(10_000)
ADDRESS = "line://shards/a.tar"


class Line(MemoryFileSystem):
    """A file system that tells what came over the line, and of which the line can fail."""

    protocol = "line"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    came: ClassVar[list[tuple[int, int]]] = []
    failures: ClassVar[Iterator[Exception | None]] = iter(())

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("line:/")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        if (failure := next(self.failures, None)) is not None:
            raise failure
        content = bytes(super().cat_file(path, start=start, end=end, **more))
        self.came.append((start or 0, len(content)))
        return content


@pytest.fixture(autouse=True)
def _line(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("line", Line, clobber=True)
    fsspec.filesystem("line").pipe_file("/shards/a.tar", CONTENT)
    monkeypatch.setattr(Line, "came", [])
    monkeypatch.setattr(Line, "failures", iter(()))
    monkeypatch.setattr(parts, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(parts, "BLOCK", 1_000)
    parts.forget()


def came() -> int:
    return sum(size for _, size in Line.came)


@given(asked=st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 4_000)), max_size=30))
def test_a_part_is_what_stands_there_whatever_was_read_before(asked: list[tuple[int, int]]) -> None:
    for start, size in asked:
        fits = min(size, len(CONTENT) - start)
        assert part(ADDRESS, start, fits) == CONTENT[start : start + fits]


def test_parts_in_their_order_come_once() -> None:
    at = list(range(0, 10_000, 130))
    assert b"".join(part(ADDRESS, start, min(130, 10_000 - start)) for start in at) == CONTENT
    assert came() <= 10_000 + 130  # the first part came alone
    assert len(Line.came) <= 11


def test_parts_here_and_there_come_alone() -> None:
    places = [(9_000, 50), (2_000, 50), (7_000, 50), (100, 50), (5_000, 50)]
    for start, size in places:
        part(ADDRESS, start, size)
    assert Line.came == places


def test_one_that_is_larger_than_a_block_comes_alone() -> None:
    part(ADDRESS, 0, 10)
    assert part(ADDRESS, 10, 3_000) == CONTENT[10:3_010]
    assert Line.came == [(0, 10), (10, 3_000)]


def test_many_threads_ask_for_a_block_once_and_a_few_are_held() -> None:
    at = list(range(0, 10_000, 20))
    part(ADDRESS, 0, 20)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: part(ADDRESS, start, 20), at))
    assert b"".join(found) == CONTENT
    blocks = [one for one in Line.came if one[1] == 1_000]
    assert len(blocks) == len(set(blocks)) == 10
    assert HELD * BLOCK <= 64 << 20


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "HELD", 3)
    for start in range(0, 10_000, 100):
        part(ADDRESS, start, 100)
    assert len(parts._held(parts.os.getpid()).blocks) == 3


def test_a_file_is_read_and_sought_in_as_one_here() -> None:
    with open_parts(ADDRESS) as file:
        assert file.seek(0, 2) == length(ADDRESS) == 10_000
        assert file.seek(-5, 2) == 9_995
        assert file.read(50) == CONTENT[-5:]
        file.seek(100)
        assert (file.read(20), file.tell()) == (CONTENT[100:120], 120)


def test_a_line_that_fails_is_tried_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ConnectionResetError("the line is cut")
    monkeypatch.setattr(Line, "failures", iter([broken, broken, broken]))
    assert part(ADDRESS, 5, 5) == CONTENT[5:10]
    monkeypatch.setattr(Line, "failures", itertools.repeat(broken))
    with pytest.raises(RunningError, match=r"line://shards/a.tar can't be read: the line is cut"):
        part(ADDRESS, 500, 5)
    part_failed = [part(ADDRESS, 505, 0)]  # nothing was asked for
    monkeypatch.setattr(Line, "failures", iter(()))
    assert (part_failed, part(ADDRESS, 505, 5)) == ([b""], CONTENT[505:510])


def test_every_thread_that_waits_for_a_block_is_told_that_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    part(ADDRESS, 0, 5)
    monkeypatch.setattr(Line, "failures", itertools.repeat(ConnectionResetError("cut")))

    def tried(start: int) -> type[BaseException] | None:
        try:
            part(ADDRESS, start, 5)
        except RunningError as error:
            return type(error)
        return None

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(tried, range(5, 100, 5))) == {RunningError}
    monkeypatch.setattr(Line, "failures", iter(()))
    assert part(ADDRESS, 5, 5) == CONTENT[5:10]


def test_no_permission_and_nothing_there_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    length(ADDRESS)
    monkeypatch.setattr(Line, "failures", iter([PermissionError("key")]))
    with pytest.raises(TopgraftError, match="no permission to read it"):
        part(ADDRESS, 0, 5)
    with pytest.raises(TopgraftError, match=r"line://shards/b.tar: there is nothing at this address"):
        part("line://shards/b.tar", 0, 5)
    with pytest.raises(TopgraftError, match="has no length"):
        length("line://shards")


def test_a_file_that_became_shorter_is_told_and_read_anew_when_forgotten() -> None:
    part(ADDRESS, 0, 5)
    fsspec.filesystem("line").pipe_file("/shards/a.tar", CONTENT[:4_000])
    with pytest.raises(RunningError, match="had 10,000 bytes and is shorter now"):
        part(ADDRESS, 3_990, 50)
    parts.forget()
    assert length(ADDRESS) == 4_000


class Whole(SimpleHTTPRequestHandler):
    """Python's own server, which sends files whole whatever is asked."""

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_gives_no_parts_is_found_before_the_whole_comes(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Whole, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.raises(TopgraftError, match=r"gives no parts of files. Leave out stream\+"):
            part(f"http://127.0.0.1:{server.server_port}/a.tar", 0, 5)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
