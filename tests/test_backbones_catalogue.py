from __future__ import annotations

from pathlib import Path

import pytest
import timm
from hub_cache import snapshot, tiny_bert, use_cache
from torchvision import models

from topgraft.backbones import load
from topgraft.backbones.catalogue import Listed, backbones
from topgraft.errors import TopgraftError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return use_cache(tmp_path / "hub", monkeypatch)


def by_source(found: list[Listed]) -> dict[str, Listed]:
    return {one.source: one for one in found}


@pytest.mark.usefixtures("cache")
def test_without_a_word_there_is_what_is_packaged_first_and_the_short_list() -> None:
    found = backbones()
    packaged = ["hf/all-MiniLM-L6-v2", "sound/resemblyzer", "timm/tf_efficientnet_lite0"]
    assert [one.source for one in found[:3]] == packaged
    assert {one.at_hand for one in found[:3]} == {"packaged"}
    assert {one.at_hand for one in found[3:]} == {"download"}
    assert not any(one.source.startswith("torchvision/") for one in found)
    assert {one.modality for one in found} == {"picture", "text", "sound"}


@pytest.mark.usefixtures("cache")
def test_what_is_packaged_loads_under_the_name_that_is_listed() -> None:
    for one in backbones(at_hand=True):
        backbone = load(one.source)
        assert backbone.modality == one.modality
        assert one.parameters is not None
        kept = sum(p.numel() for p in backbone.network.parameters())
        assert 0.7 * one.parameters < kept < 1.01 * one.parameters  # without the old output layer


@pytest.mark.usefixtures("cache")
def test_a_word_finds_what_the_libraries_have_and_say() -> None:
    found = by_source(backbones("RESNET18"))
    assert {"timm/resnet18.a1_in1k", "torchvision/resnet18.IMAGENET1K_V1"} <= set(found)
    published = models.ResNet18_Weights.IMAGENET1K_V1
    listed = found["torchvision/resnet18.IMAGENET1K_V1"]
    assert listed.parameters == published.meta["num_params"]
    assert listed.macs == published.meta["_ops"] * 1e9
    assert listed.accuracy == "69.8 % on ImageNet-1K"
    assert found["timm/resnet18.a3_in1k"].side == 160
    assert found["timm/resnet18.fb_swsl_ig1b_ft_in1k"].licence == "cc-by-nc-4.0"
    network = timm.create_model("resnet18", pretrained=False)
    assert found["timm/resnet18.a1_in1k"].parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.usefixtures("cache")
def test_a_pattern_is_of_the_whole_name() -> None:
    assert [one.source for one in backbones("vgg11.*")] == [
        "timm/vgg11.tv_in1k",
        "torchvision/vgg11.IMAGENET1K_V1",
    ]
    with pytest.raises(TopgraftError):
        backbones("gg11.*")


def test_what_lies_in_the_hubs_cache_is_at_hand(cache: Path) -> None:
    tiny_bert(snapshot(cache, "someone/tiny-texts"))
    snapshot(cache, "timm/resnet18.a1_in1k")
    pictures = snapshot(cache, "someone/tiny-pictures")
    for name in ("config.json", "preprocessor_config.json"):
        (pictures / name).write_text("{}")
    found = by_source(backbones(at_hand=True))
    assert found["hf/someone/tiny-texts"].modality == "text"
    assert found["hf/someone/tiny-pictures"].modality == "picture"
    assert found["timm/resnet18.a1_in1k"].at_hand == "cached"
    assert "hf/timm/resnet18.a1_in1k" not in found
    assert load("hf/someone/tiny-texts").modality == "text"
    assert set(by_source(backbones(modality="text", at_hand=True))) == {
        "hf/all-MiniLM-L6-v2",
        "hf/someone/tiny-texts",
    }


def test_what_lies_in_torchs_cache_is_at_hand(cache: Path) -> None:
    file = (
        cache.parent
        / "torch"
        / "hub"
        / "checkpoints"
        / models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    )
    file.parent.mkdir(parents=True)
    file.touch()
    found = by_source(backbones(at_hand=True))
    assert found["torchvision/resnet18.IMAGENET1K_V1"].at_hand == "cached"


@pytest.mark.usefixtures("cache")
def test_a_name_that_is_nowhere_gets_the_nearest() -> None:
    with pytest.raises(TopgraftError, match=r"No backbone has 'resnt50' in its name\. Nearest: resnet50"):
        backbones("resnt50")
    with pytest.raises(TopgraftError, match="of what is at hand has 'resnet50'"):
        backbones("resnet50", at_hand=True)
