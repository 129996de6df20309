from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from topgraft.backbones.weights import files_in, parts_of, read_weights
from topgraft.errors import TopgraftError

TENSORS = {"b.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2])}


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


def refusal(path: Path) -> str:
    with pytest.raises(TopgraftError) as caught:
        read_weights(path)
    assert caught.value.exit_status == 2
    assert str(path.name) in str(caught.value)
    return str(caught.value)


def test_safetensors_and_both_formats_of_torch_save_give_the_same_tensors(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    torch.save(TENSORS, tmp_path / "new.pth")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name, ordered in (("w.safetensors", False), ("new.pth", True), ("old.pth", True)):
        weights = read_weights(tmp_path / name)
        assert_same(dict(weights.tensors), TENSORS)
        assert weights.ordered is ordered
        assert weights.origin == str(tmp_path / name)
    assert list(read_weights(tmp_path / "new.pth").tensors) == list(TENSORS)


@pytest.mark.parametrize("container", ["state_dict", "model", "model_ema"])
def test_the_containers_of_training_scripts_and_wrappers_are_opened(tmp_path, container):
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({container: wrapped, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    assert_same(dict(read_weights(tmp_path / "w.pth").tensors), TENSORS)


def test_a_folder_is_read_by_its_index(tmp_path):
    save_file({"b.weight": TENSORS["b.weight"]}, tmp_path / "model-1-of-2.safetensors")
    save_file({"a.bias": TENSORS["a.bias"]}, tmp_path / "model-2-of-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps(
            {"weight_map": {"b.weight": "model-1-of-2.safetensors", "a.bias": "model-2-of-2.safetensors"}}
        )
    )
    assert_same(dict(read_weights(tmp_path).tensors), TENSORS)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(TopgraftError, match=r"names model-2-of-2\.safetensors, which is not there"):
        read_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a.bias": "../elsewhere.safetensors"}}))
    with pytest.raises(TopgraftError, match="outside its folder"):
        files_in(tmp_path)
    index.write_text("[]")
    with pytest.raises(TopgraftError, match="not an index of weights"):
        parts_of(index)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, new_format):
    trap = tmp_path / "made-by-the-pickle"
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(2), "b": Touch(trap)}, path, _use_new_zipfile_serialization=new_format)
    assert "could run code" in refusal(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)  # else the trap proves nothing
    assert trap.exists()


def test_a_bare_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    trap = tmp_path / "made-by-the-pickle"
    (tmp_path / "w.bin").write_bytes(pickle.dumps(Touch(trap), protocol=2))
    refusal(tmp_path / "w.bin")
    assert not trap.exists()


def test_a_whole_pickled_module_is_refused_with_the_way_to_save_weights(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    message = refusal(tmp_path / "w.pth")
    assert "torch.nn.modules.linear.Linear" in message
    assert "save_file(model.state_dict()" in message


@pytest.mark.parametrize("name", ["w.safetensors", "new.pth", "old.pth"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_file_is_refused(tmp_path, name, share):
    tensors = {f"layer{i}.weight": torch.randn(20, 20) for i in range(5)}
    path = tmp_path / name
    if name == "w.safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name == "new.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert any(word in refusal(path) for word in ("truncated", "damaged", "neither", "neither safetensors"))


def test_files_that_are_something_else_are_named(tmp_path):
    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "is empty (0 bytes)" in refusal(written("empty.pth", b""))
    assert "Git LFS pointer" in refusal(
        written("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\n")
    )
    assert "a web page" in refusal(written("page.bin", b"<!DOCTYPE html><html>not found</html>"))
    assert "neither safetensors" in refusal(written("noise.pth", b"\x00\x01 noise that is nothing of this"))
    assert "no file of weights" in refusal(tmp_path / "absent.pth")
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "no data.pkl" in refusal(tmp_path / "archive.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "holds a list" in refusal(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    assert "no tensors" in refusal(tmp_path / "none.pth")
    (tmp_path / "folder").mkdir()
    assert "folder without weights" in refusal(tmp_path / "folder")


def test_a_mislabelled_file_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "w.safetensors")
    assert "holds a pickle" in refusal(tmp_path / "w.safetensors")
    save_file(TENSORS, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / "w.pth")
    assert "Rename it to w.safetensors" in refusal(tmp_path / "w.pth")


def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(tmp_path):
    huge = 1 << 44
    header = json.dumps({"a": {"dtype": "F32", "shape": [huge // 4], "data_offsets": [0, huge]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 100)
    assert f"promises {huge + 8 + len(header):,}" in refusal(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert "truncated" in refusal(path)


def test_a_pickle_whose_tensor_is_larger_than_its_storage_takes_no_memory(tmp_path):
    small = torch.zeros(4)
    path = tmp_path / "w.pth"
    torch.save({"a": small}, path)
    grown = tmp_path / "grown.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(grown, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert content.count(b"K\x04") == 2  # the storage's length and the tensor's shape
                content = content.replace(b"K\x04", b"\x8a\x06" + (1 << 42).to_bytes(6, "little"))
            new.writestr(entry.filename, content)
    refusal(grown)


def test_repeated_and_sparse_tensors_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "repeated.pth")
    assert "over only 1 numbers" in refusal(tmp_path / "repeated.pth")
    with zipfile.ZipFile(tmp_path / "new.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\0" * 1_000_000)
    assert "would unpack to 1,000,000 bytes" in refusal(tmp_path / "new.pth")


def test_a_file_without_permission_is_said(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("the superuser may read everything")
    assert "could not be read" in refusal(path)
