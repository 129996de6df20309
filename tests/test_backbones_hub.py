from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from hub_cache import REVISION, snapshot, use_cache
from safetensors.torch import save_file

from topgraft.backbones.hub import NoSuchModel, cached_models, file_of, read_address, weights_of, where
from topgraft.errors import TopgraftError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    return use_cache(tmp_path / "hub", monkeypatch)


def test_files_are_found_in_the_cache_by_branch_and_by_revision(cache):
    folder = snapshot(cache, "org/a")
    (folder / "config.json").write_text("{}")
    assert file_of("org/a", "config.json") == folder / "config.json"
    assert file_of("org/a", "config.json", revision=REVISION) == folder / "config.json"
    assert file_of("org/a", "absent.json") is None
    assert cached_models() == ["org/a"]
    assert (
        where("org/a", folder / "config.json") == f"org/a of the Hugging Face hub, revision {REVISION[:12]}"
    )


def test_what_is_not_cached_is_an_error_with_the_ways_out(cache):
    snapshot(cache, "org/resnet")
    with pytest.raises(TopgraftError, match=r"(?s)Nearest: org/resnet.*--weights FILE.*--weights none"):
        file_of("org/resnets", "config.json")
    with pytest.raises(TopgraftError, match="neither in the local cache"):
        file_of("org/resnet", "config.json", revision="other")
    with pytest.raises(NoSuchModel, match="no name of a model"):
        file_of("org/two words", "config.json")


def test_weights_are_taken_safetensors_first_and_in_parts(cache):
    folder = snapshot(cache, "org/a")
    with pytest.raises(TopgraftError, match="no weights that can be read"):
        weights_of("org/a")
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert weights_of("org/a") == [folder / "pytorch_model.bin"]
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(1)}, folder / "one.safetensors")
    with pytest.raises(TopgraftError, match=r"names two\.safetensors, which is not there"):
        weights_of("org/a")
    save_file({"b": torch.zeros(1)}, folder / "two.safetensors")
    assert weights_of("org/a") == [folder / "one.safetensors", folder / "two.safetensors"]
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    assert weights_of("org/a") == [folder / "model.safetensors"]
    assert weights_of("org/a", names=("one.safetensors",)) == [folder / "one.safetensors"]


def test_the_hubs_own_settings_are_heeded(tmp_path):
    folder = snapshot(tmp_path, "org/a")
    (folder / "config.json").write_text("{}")
    program = "from topgraft.backbones.hub import file_of; print(file_of('org/a', 'config.json'))"
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(folder / "config.json"), done.stderr


def test_an_address_is_served_by_torchs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"a": torch.ones(2)}, folder / "net-01234567.pth")
    weights = read_address("https://host.invalid/net-01234567.pth")
    assert torch.equal(weights.tensors["a"], torch.ones(2))
    assert weights.origin == "net-01234567.pth in torch's cache"
    with pytest.raises(TopgraftError, match=r"(?s)neither in torch's cache.*--weights none"):
        read_address("https://host.invalid/other-01234567.pth")
    assert sorted(p.name for p in folder.iterdir()) == ["net-01234567.pth"]
