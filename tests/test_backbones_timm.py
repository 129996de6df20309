from __future__ import annotations

import json

import pytest
import timm
import torch
from hub_cache import REVISION, save, snapshot, use_cache
from timm.models.vision_transformer import checkpoint_filter_fn

from topgraft.backbones import load, rebuild
from topgraft.backbones.loading import find, report_of
from topgraft.backbones.timm import preprocess_of
from topgraft.errors import TopgraftError

MODEL = "timm/test_resnet.r160_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return use_cache(tmp_path / "hub", monkeypatch)


def pretrained(seed: int = 5) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("test_resnet").eval()


def test_weights_come_from_the_hubs_cache_with_their_bits(hub):
    network = pretrained()
    save(network, snapshot(hub, MODEL) / "model.safetensors")
    found = find("timm/test_resnet")
    expected = network.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in found.network.state_dict().items())
    report = report_of(found, "timm/test_resnet")
    assert report.arrived == report.tensors == len(expected) - 2
    assert report.not_needed == ("fc.bias", "fc.weight")
    assert report.weights == f"{MODEL} of the Hugging Face hub, revision {REVISION[:12]}"
    assert (found.modality, found.licence) == ("picture", "apache-2.0")
    assert not found.network.training
    assert report_of(find("timm/test_resnet.r160_in1k"), "same").digest == report.digest
    assert report_of(find("timm/test_resnet", weights="none"), "other").digest != report.digest


def test_a_network_built_for_one_size_is_built_for_another_and_timm_interpolates_its_positions(tmp_path):
    torch.manual_seed(2)
    published = timm.create_model("test_vit", img_size=160).eval()
    file = tmp_path / "weights.safetensors"
    save(published, file)
    backbone = load("timm/test_vit", weights=file, size=96)
    by_timm = timm.create_model("test_vit", img_size=96, num_classes=published.num_classes).eval()
    by_timm.load_state_dict(checkpoint_filter_fn(published.state_dict(), by_timm))
    here, there = backbone.network.state_dict(), by_timm.state_dict()
    assert here.keys() == there.keys()
    assert all(torch.equal(there[name], tensor) for name, tensor in here.items())
    assert backbone.report.share == 1
    assert backbone.preprocess.size == (96, 96)
    anew = rebuild(json.loads(json.dumps(backbone.recipe))).state_dict()
    assert {n: t.shape for n, t in anew.items()} == {n: t.shape for n, t in here.items()}


def test_an_older_pickle_in_the_cache_is_read_weights_only(hub):
    network = pretrained()
    torch.save(network.state_dict(), snapshot(hub, MODEL) / "pytorch_model.bin")
    found = find("timm/test_resnet")
    assert torch.equal(found.network.conv1[0].weight, network.conv1[0].weight)


def test_published_names_are_brought_to_timms_by_timms_own_function(tmp_path):
    torch.manual_seed(1)
    network = timm.create_model("test_convnext")
    facebook = {}
    for name, tensor in network.state_dict().items():
        old = name.replace("stages.", "STAGE.").replace(".blocks.", ".").replace("mlp.fc1", "pwconv1")
        old = old.replace("mlp.fc2", "pwconv2").replace("conv_dw", "dwconv")
        old = (
            old.replace("stem.", "downsample_layers.0.")
            .replace("head.norm", "norm")
            .replace("head.fc", "head")
        )
        if ".downsample." in old:
            stage = old.split(".")[1]
            old = old.replace(f"STAGE.{stage}.downsample.", f"downsample_layers.{stage}.")
        facebook[old.replace("STAGE.", "stages.")] = tensor
    assert "stages.0.0.dwconv.weight" in facebook
    torch.save({"model": facebook}, tmp_path / "convnext.pth")
    backbone = find("timm/test_convnext", weights=tmp_path / "convnext.pth")
    report = report_of(backbone, "timm/test_convnext")
    assert report.matched == "name"
    assert report.share == 1.0
    expected = network.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in backbone.network.state_dict().items())


def test_building_leaves_timm_as_it_was():
    from timm.models import _builder

    before = _builder.load_pretrained
    find("timm/test_resnet", weights="none")
    assert _builder.load_pretrained is before


def test_random_values_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, c = (report_of(find("timm/test_resnet", weights="none", seed=s), "random") for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert a.digest == b.digest != c.digest
    assert (a.matched, a.arrived) == ("random", 0)


@pytest.mark.usefixtures("hub")
def test_the_empty_network_is_built_again_from_json_alone():
    recipe = json.loads(json.dumps(find("timm/test_vit", weights="none").recipe))
    assert "hf_hub_id" not in recipe["pretrained_cfg"]
    network = rebuild(recipe)
    original = timm.create_model("test_vit").state_dict()
    assert {n: t.shape for n, t in network.state_dict().items()} == {n: t.shape for n, t in original.items()}
    assert not network.training


@pytest.mark.usefixtures("hub")
def test_the_preprocessing_is_that_of_timm():
    from timm.data import create_transform, resolve_data_config

    for name in ("test_resnet", "resnet18.a1_in1k", "vit_base_patch16_clip_224.openai", "regnetz_c16"):
        cfg = timm.get_pretrained_cfg(name).to_dict()
        theirs = create_transform(**resolve_data_config(pretrained_cfg=cfg))
        ours = preprocess_of(cfg, name)
        assert ours.size == theirs.transforms[1].size
        assert ours.resize[0] == theirs.transforms[0].size
        assert ours.interpolation == theirs.transforms[0].interpolation.value
        assert list(ours.mean) == pytest.approx(theirs.transforms[3].mean.tolist())


def test_weights_of_another_network_are_refused(tmp_path):
    save(pretrained(), tmp_path / "w.safetensors")
    with pytest.raises(TopgraftError, match="do not fit timm/test_vit"):
        report_of(find("timm/test_vit", weights=tmp_path / "w.safetensors"), "timm/test_vit")


def test_less_than_a_network_is_refused_unless_allowed(tmp_path):
    save(pretrained(), tmp_path / "w.safetensors", without="layer4.")
    with pytest.raises(
        TopgraftError, match=r"Did not arrive \(\d+ of \d+ tensors\): layer4\.0\.conv1\.weight"
    ):
        report_of(find("timm/test_resnet", weights=tmp_path / "w.safetensors"), "timm/test_resnet")
    found = find("timm/test_resnet", weights=str(tmp_path / "w.safetensors"))
    report = report_of(found, "timm/test_resnet", allow_missing=["layer4"])
    assert report.share < 0.95
    assert all(name.startswith("layer4.") for name in report.missing)


@pytest.mark.usefixtures("hub")
def test_bad_names_get_the_nearest():
    with pytest.raises(TopgraftError, match=r"no network 'resnet81'\. Nearest: resnet18"):
        find("timm/resnet81")
    with pytest.raises(TopgraftError, match=r"no weights with the tag 'a9'\. It has a1_in1k"):
        find("timm/resnet18.a9")
    with pytest.raises(TopgraftError, match="HF_HUB_OFFLINE is set") as caught:
        find("timm/test_resnet")
    assert "--weights FILE" in str(caught.value)
    assert "--weights none" in str(caught.value)
    with pytest.raises(TopgraftError, match="has no network 'resnet81'"):
        rebuild({"kind": "timm", "name": "resnet81", "pretrained_cfg": {}})
