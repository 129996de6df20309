"""Parquet files at an address, of which pictures are read a group of rows at a time."""

from __future__ import annotations

import itertools
import pickle
import random
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hub_datasets import write_pictures
from packaged_data import glosses_of, pictures_of
from pyarrow import parquet
from test_data_parts import Line

from topgraft.data import parquet_parts, parts, read, rows
from topgraft.errors import RunningError, TopgraftError
from topgraft.features.reading import Batch

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, whose files :func:`there` brings behind a line that tells what came over it."""
    fsspec.register_implementation("line", Line, clobber=True)
    Line.store.clear()
    monkeypatch.setattr(Line, "came", [])
    monkeypatch.setattr(parts, "WAITS", ())
    return tmp_path


def there(folder: Path) -> str:
    fsspec.filesystem("line").put(f"{folder}/", "/set/", recursive=True)
    parts.forget()
    parquet_parts.forget()
    return "stream+line://set"


def pictures(start: int, count: int, **more: Any) -> pa.Table:
    """A binary column, as any program writes it, and labels."""
    paths = [*pictures_of("food", start, count), *pictures_of("tools", start, count)]
    labels = ["food"] * count + ["tools"] * count
    return pa.table({"image": [path.read_bytes() for path in paths], "label": labels, **more})


def test_what_datasets_writes_is_the_same_data_here_and_there(line: Path) -> None:
    write_pictures(line, train=8, test=4)
    name = "data/train-00000-of-00001.parquet"
    here, streamed = read(line / name), read(f"{there(line)}/{name}")
    assert (streamed.digests, streamed.classes, streamed.names) == (here.digests, here.classes, here.names)
    assert np.array_equal(streamed.targets, here.targets)
    assert "1 file is read where it lies, by parts" in streamed.notes[0]
    assert str(streamed.inputs[3]) == f"line://set/{name}:row 3"
    assert len(list(rows([f"{there(line)}/{name}"], modality="picture"))) == 16


def test_several_files_of_small_groups_in_any_order(line: Path) -> None:
    for number in range(2):
        parquet.write_table(pictures(4 * number, 4), line / f"part-{number}.parquet", row_group_size=3)
    whole = sum(path.stat().st_size for path in line.iterdir())
    data = read(f"{there(line)}/part-{{0..1}}.parquet")
    assert data.digests == read(line / "part-0.parquet").digests + read(line / "part-1.parquet").digests
    assert (
        sum(size for _, size in Line.came) < 1.5 * whole + 2 * 65_536
    )  # each file's end is read for its index
    order = random.Random(0).sample(range(16), 16)
    batch = Batch.of(data, order)
    assert batch.lacks() == ()
    filled = pickle.loads(pickle.dumps(batch)).filled()
    stood = [*pictures(0, 4)["image"].to_pylist(), *pictures(4, 4)["image"].to_pylist()]
    assert list(filled.data.inputs) == [stood[i] for i in order]
    assert len(parquet_parts._held(parts.os.getpid()).groups) <= parquet_parts.HELD


def test_texts_are_those_of_the_file_here(line: Path) -> None:
    texts, labels = zip(*glosses_of(["food", "animal"], 20), strict=True)
    parquet.write_table(pa.table({"text": texts, "label": labels}), line / "texts.parquet")
    here, streamed = read(line / "texts.parquet"), read(f"{there(line)}/texts.parquet")
    assert (list(streamed.inputs), streamed.digests) == (list(here.inputs), here.digests)


def test_cells_that_hold_nothing_are_left_out_and_named(line: Path) -> None:
    good = [path.read_bytes() for path in (*pictures_of("food", 0, 20), *pictures_of("tools", 0, 20))]
    cells = [{"bytes": one, "path": None} for one in good]
    cells[1] = {"bytes": None, "path": "elsewhere.png"}
    cells[2] = {"bytes": None, "path": None}
    table = pa.table({"image": cells, "label": ["food"] * 20 + ["tools"] * 20})
    parquet.write_table(table, line / "a.parquet")
    data = read(f"{there(line)}/a.parquet", max_unreadable=0.1)
    assert {one.reason for one in data.left_out} == {
        "a file beside the table: leave out stream+",
        "its cell is empty",
    }


def test_a_line_that_fails_is_no_fault_of_the_file(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pictures(0, 4), line / "a.parquet")
    address = f"{there(line)}/a.parquet"
    data = read(address)
    parquet_parts.forget()
    parts.forget()
    monkeypatch.setattr(Line, "failures", itertools.repeat(ConnectionResetError("cut")))
    with pytest.raises(RunningError, match=r"a.parquet can't be read: cut"):
        data.decode(0)
    with pytest.raises(RunningError, match="cut"):
        read(address)


def test_a_file_that_was_written_anew_is_told(line: Path) -> None:
    parquet.write_table(pictures(0, 4), line / "a.parquet")
    data = read(f"{there(line)}/a.parquet")
    parquet.write_table(pictures(4, 2), line / "a.parquet")
    there(line)
    with pytest.raises(TopgraftError, match="changed"):
        Batch.of(data, [0]).filled()
    with pytest.raises(TopgraftError, match=r"has 4 rows now. Let data be"):
        Batch.of(data, [7]).filled()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cut.parquet", r"line://set/cut.parquet is not a Parquet file that can be read"),
        ("none.parquet", "there is nothing at this address"),
        ("empty.parquet", "has no rows"),
        ("{a,b}.parquet", "there is nothing at this address"),
        (
            "part-{0..1}.parquet",
            r"line://set/part-1.parquet has other columns or types than line://set/part-0",
        ),
        ("", r"holds no shards \(.tar\), but cut.parquet.*train-\{00..07\}.parquet"),
    ],
)
def test_what_can_not_be_read_is_told(name: str, said: str, line: Path) -> None:
    parquet.write_table(pictures(0, 2), line / "part-0.parquet")
    parquet.write_table(pictures(0, 2, more=[1] * 4), line / "part-1.parquet")
    parquet.write_table(pictures(0, 2)[:0], line / "empty.parquet")
    (line / "cut.parquet").write_bytes((line / "part-0.parquet").read_bytes()[:-100])
    with pytest.raises(TopgraftError, match=rf"(?s){said}"):
        read(f"{there(line)}/{name}")


def test_a_group_that_is_too_large_is_refused_before_it_is_read(
    line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet.write_table(pictures(0, 8), line / "a.parquet")
    monkeypatch.setattr(parquet_parts, "MAX_GROUP", 10_000)
    with pytest.raises(
        TopgraftError, match=r'"image" takes [\d,]+ bytes, over the limit.*row_group_size=100'
    ):
        read(f"{there(line)}/a.parquet")
