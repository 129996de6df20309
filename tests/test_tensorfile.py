from __future__ import annotations

import contextlib
import json
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from topgraft.tensorfile import ITEM_BYTES, DamagedFile, TensorFile, dtype_name, dtype_of, pack

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "float16",
    "bfloat16",
    "uint32",
    "int32",
    "float32",
    "uint64",
    "int64",
    "float64",
    "float8_e4m3fn",
]


def some_tensor(dtype: str, shape: list[int], seed: int) -> Tensor:
    kind = getattr(torch, dtype)
    source = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 2 if dtype == "bool" else 256, (*shape, kind.itemsize), generator=source).to(
        torch.uint8
    )
    return raw.view(kind).reshape(shape) if raw.numel() else torch.empty(shape, dtype=kind)


def bits(tensor: Tensor) -> tuple[str, tuple[int, ...], list[int]]:
    flat = tensor.contiguous().reshape(-1)
    return str(tensor.dtype), tuple(tensor.shape), flat.view(torch.uint8).tolist() if flat.numel() else []


sets_of_tensors = st.dictionaries(
    st.text(max_size=6).filter(lambda name: name != "__metadata__"),
    st.builds(
        some_tensor, st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 999)
    ),
    max_size=4,
)
texts = st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3)


def written(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, checksums: bool = True) -> bytes:
    return b"".join(pack(tensors, metadata, checksums=checksums))


@settings(max_examples=60, deadline=None)
@given(sets_of_tensors, texts, st.booleans())
def test_tensors_of_every_type_come_back_and_the_safetensors_package_reads_the_same(
    tensors: dict[str, Tensor], metadata: dict[str, str], checksums: bool
) -> None:
    content = written(tensors, metadata, checksums=checksums)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        with TensorFile(path) as file:
            assert {name: bits(file.read(name)) for name in file.entries} == {
                n: bits(t) for n, t in tensors.items()
            }
            assert file.metadata == metadata
            for name in file.sums:
                file.verify(name)
            assert file.sums.keys() == (tensors.keys() if checksums else set())
    theirs = safetensors.torch.load(content)
    assert {name: bits(tensor) for name, tensor in theirs.items()} == {n: bits(t) for n, t in tensors.items()}


@settings(max_examples=30, deadline=None)
@given(sets_of_tensors, texts)
def test_files_of_the_safetensors_package_are_read(
    tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(safetensors.torch.save(tensors, metadata or None))
        with TensorFile(path) as file:
            assert {name: bits(file.read(name)) for name in file.entries} == {
                n: bits(t) for n, t in tensors.items()
            }
            assert file.metadata == metadata


def test_the_same_content_gives_the_same_bytes_whatever_its_order() -> None:
    tensors = {name: torch.full((3,), float(number)) for number, name in enumerate("abcdef")}
    metadata = {name: name * 2 for name in "uvwxyz"}
    backwards = written(dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert backwards == written(tensors, metadata)
    assert written(tensors, {**metadata, "u": ""}) != backwards


def test_views_of_one_memory_are_written_as_they_look() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    views = {"column": base[:, 1], "turned": base.t(), "all": base, "expanded": base[:1].expand(3, 4)}
    theirs = safetensors.torch.load(written(views, {}))
    assert {name: bits(tensor) for name, tensor in theirs.items()} == {n: bits(v) for n, v in views.items()}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7), st.sampled_from(["flip", "cut", "grow"]))
def test_every_flipped_bit_and_every_cut_is_noticed(place: int, bit: int, kind: str) -> None:
    tensors = {"weight": some_tensor("float32", [3, 5], 1), "truth": some_tensor("bool", [4], 2)}
    content = bytearray(written(tensors, {"made": "by us"}))
    place %= len(content)
    if kind == "flip":
        content[place] ^= 1 << bit
    elif kind == "cut":
        del content[place:]
    else:
        content += content[-1 - place :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        found = None
        with contextlib.suppress(DamagedFile), TensorFile(path) as file:
            found = {name: bits(file.read(name)) for name in file.entries}
    # one bit in the white space or in the name of the checksums' entry changes nothing that is read
    if found is not None:
        assert kind == "flip"
        assert place < len(content) - 64  # never in the tensors' own bytes
        assert found == {name: bits(tensor) for name, tensor in tensors.items()}


def file_of(folder: Path, header: Any, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "file"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"a": 1, "a": 2}', "not JSON"),
        ({"a": 3}, "unknown way"),
        ({"a": {**F32, "more": 1}}, "unknown way"),
        ({"a": {**F32, "data_offsets": [0, 8, 8]}}, "unknown way"),
        ({"a": {**F32, "dtype": "OBJECT"}}, "unknown type"),
        ({"a": {**F32, "shape": [1 << 61, 8]}}, "has shape"),
        ({"a": {**F32, "shape": [1 << 70]}}, "no sizes"),
        ({"a": {**F32, "shape": [-1, -2]}}, "no sizes"),
        ({"a": {**F32, "shape": ["2"]}}, "no sizes"),
        ({"a": {**F32, "shape": [True, 2]}}, "no sizes"),
        ({"a": {**F32, "data_offsets": [4, 12]}}, "does not begin where"),
        ({"a": F32, "b": F32}, "does not begin where"),
        ({"a": {**F32, "shape": [3], "data_offsets": [0, 12]}}, "its header tells of"),
        ({}, "its header tells of"),
        ({"a": F32, "__metadata__": {"x": 1}}, "not texts by name"),
        ({"a": F32, "__metadata__": []}, "not texts by name"),
        ({"a": F32, "__metadata__": {"topgraft.sha256": "{}"}}, "checksums can't be read"),
        ({"a": F32, "__metadata__": {"topgraft.sha256": "{"}}, "checksums can't be read"),
        (
            {"a": F32, "__metadata__": {"topgraft.sha256": '{"metadata": "", "tensors": {}}'}},
            "does not match its checksums",
        ),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path: Path, header: Any, reason: str) -> None:
    with pytest.raises(DamagedFile, match=reason):
        TensorFile(file_of(tmp_path, header))


def test_sizes_are_compared_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"\0" * 7, (1 << 62).to_bytes(8, "little") + b"{}", (99).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"too few|its header would take"):
            TensorFile(path)
    empty = {"dtype": "F32", "shape": [1 << 61, 1 << 61, 0], "data_offsets": [0, 0]}
    with (
        TensorFile(file_of(tmp_path, {"a": empty}, b"")) as file,
        pytest.raises(DamagedFile, match="impossible"),
    ):
        file.read("a")


def test_truth_values_that_are_neither_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}
    with (
        TensorFile(file_of(tmp_path, {"a": entry}, b"\1\0\2")) as file,
        pytest.raises(DamagedFile, match="truth"),
    ):
        file.read("a")


def test_what_is_no_file_neither_blocks_nor_counts(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DamagedFile, match="not a regular file"):
            TensorFile(tmp_path / name)
    (tmp_path / "real").write_bytes(written({"a": torch.ones(1)}, {}))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with TensorFile(tmp_path / "link") as file:
        assert file.read("a").tolist() == [1.0]
    with pytest.raises(DamagedFile, match="symbolic link"):
        TensorFile(tmp_path / "link", follow=False)


def test_a_file_cut_short_while_it_is_open_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(written({"a": torch.ones(100_000)}, {}))
    with TensorFile(path) as file:
        os.truncate(path, 1000)
        for use in (file.read, file.verify):
            with pytest.raises(DamagedFile, match="ends early"):
                use("a")


def test_what_the_format_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match=r"tensors of type complex64 can't be stored; possible are bool"):
        dtype_name(torch.complex64)
    with pytest.raises(ValueError, match="taken"):
        pack({"__metadata__": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="taken"):
        pack({}, {"topgraft.sha256": ""})


def test_the_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DamagedFile(Path("a"), "it ends early")))
    assert str(error) == "a is damaged: it ends early."


def test_the_bytes_of_a_number_are_those_of_torch() -> None:
    assert {name: dtype_of(name).itemsize for name in ITEM_BYTES} == ITEM_BYTES
    assert len(ITEM_BYTES) == 15
