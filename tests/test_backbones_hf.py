from __future__ import annotations

import json
import shutil

import pytest
import torch
from hub_cache import REVISION, save, snapshot, tiny_bert, use_cache
from safetensors.torch import load_file, save_file

from topgraft.backbones import rebuild
from topgraft.backbones.hf import config_of, settings_of
from topgraft.backbones.loading import example_of, find, report_of
from topgraft.errors import TopgraftError

MODEL = "org/tiny-bert"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return tiny_bert(folder), folder


@pytest.fixture
def copied(bert, tmp_path):
    shutil.copytree(bert[1], tmp_path / "copy")
    return tmp_path / "copy"


def hidden(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return network(**batch).last_hidden_state


def test_a_folder_is_loaded_with_its_bits_and_without_its_pooler(bert):
    original, folder = bert
    found = find(f"hf/{folder}")
    report = report_of(found, "tiny")
    expected = original.state_dict()
    state = found.network.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in state.items())
    assert set(expected) - set(state) == {"pooler.dense.weight", "pooler.dense.bias"} == set(report.beside)
    assert (report.arrived, report.share, report.missing, report.left_over) == (len(state), 1.0, (), ())
    assert report.weights == str(folder)
    batch = example_of(found.preprocess)
    assert torch.equal(hidden(found.network, batch), original(**batch).last_hidden_state)
    assert (found.modality, found.output_layers) == ("text", ())


def test_a_name_comes_from_the_hubs_cache(bert, tmp_path, monkeypatch):
    cache = use_cache(tmp_path / "hub", monkeypatch)
    shutil.copytree(bert[1], snapshot(cache, MODEL), dirs_exist_ok=True)
    for name in (f"hf/{MODEL}", f"hf/{MODEL}@{REVISION}"):
        report = report_of(find(name), name)
        assert report.weights == f"{MODEL} of the Hugging Face hub, revision {REVISION[:12]}"
        assert report.digest == report_of(find(f"hf/{bert[1]}"), "folder").digest
    with pytest.raises(TopgraftError, match=r"neither in the local cache.*\n.*--weights none") as caught:
        find("hf/org/tiny-bart")
    assert "Nearest: org/tiny-bert" in str(caught.value)


def test_a_checkpoint_with_a_head_gives_its_encoder(tmp_path):
    original = tiny_bert(tmp_path, with_head=True)
    report = report_of(find(f"hf/{tmp_path}"), "tiny")
    assert report.share == 1.0
    assert report.left_over == ()
    assert any(n.startswith("classifier.") for n in report.beside)
    assert torch.equal(
        find(f"hf/{tmp_path}").network.encoder.layer[1].output.dense.weight,
        original.bert.encoder.layer[1].output.dense.weight,
    )


def test_heads_of_pretraining_under_any_name_are_not_left_over(bert, copied):
    save(bert[0], copied / "model.safetensors", prefix="bert.")
    tensors = load_file(copied / "model.safetensors")
    save_file(
        tensors | {"sentence_order.scale": torch.ones(2), "bert.extra": torch.ones(2)},
        copied / "model.safetensors",
    )
    report = report_of(find(f"hf/{copied}"), "tiny")
    assert "sentence_order.scale" in report.beside
    assert [n.removeprefix("bert.") for n in report.left_over] == ["extra"]


def test_a_file_of_weights_and_random_values(bert, tmp_path):
    original, folder = bert
    save(original, tmp_path / "w.safetensors", prefix="bert.")
    loaded = report_of(find(f"hf/{folder}", weights=tmp_path / "w.safetensors"), "file")
    assert loaded.share == 1.0
    assert loaded.weights == str(tmp_path / "w.safetensors")
    random = [report_of(find(f"hf/{folder}", weights="none", seed=s), "random") for s in (1, 1, 2)]
    assert random[0].matched == "random"
    assert random[0].digest == random[1].digest != random[2].digest != loaded.digest


def test_too_little_and_other_shapes_are_told(bert, copied):
    original, _ = bert
    save(original, copied / "model.safetensors", without="encoder.layer.1.")
    with pytest.raises(TopgraftError, match=r"do not fit tiny(.|\n)*encoder\.layer\.1\."):
        report_of(find(f"hf/{copied}"), "tiny")
    report = report_of(find(f"hf/{copied}"), "tiny", allow_missing=["encoder.layer.1"])
    assert len(report.missing) == 16
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(settings | {"vocab_size": 30}))
    save(original, copied / "model.safetensors")
    report = report_of(find(f"hf/{copied}"), "tiny", allow_missing=["embeddings.word_embeddings.weight"])
    name = "embeddings.word_embeddings.weight"
    assert report.missing == (name,)
    assert f"{name} has shape (17, 16) in the weights, (30, 16) in the network" in report.notes


def test_the_empty_network_is_built_again_from_json_alone(bert):
    found = find(f"hf/{bert[1]}")
    recipe = json.loads(json.dumps(found.recipe))
    assert str(bert[1]) not in json.dumps(recipe)
    network = rebuild(recipe)
    network.load_state_dict(found.network.state_dict())
    batch = example_of(found.preprocess)
    assert torch.equal(hidden(network, batch), hidden(found.network, batch))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "bertt"}, r"no network of the type 'bertt'\. Nearest: bert"),
        ({"model_type": "mine", "auto_map": {"AutoModel": "code.Mine"}}, "code of its own, which is not run"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_configurations_that_can_not_be_used_are_said(copied, change, says):
    path = copied / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TopgraftError, match=says):
        find(f"hf/{copied}")


def test_code_beside_a_model_is_not_run(copied):
    trap = copied / "made-by-the-model"
    (copied / "code.py").write_text(f"open({str(trap)!r}, 'w').close()\nclass Mine: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        path = copied / name
        mapped = {
            "AutoModel": "code.Mine",
            "AutoConfig": "code.Mine",
            "AutoTokenizer": ["code.Mine", "code.Mine"],
        }
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": mapped}))
    find(f"hf/{copied}")
    assert not trap.exists()


def test_damaged_files_are_said(copied):
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(TopgraftError, match="is truncated"):
        find(f"hf/{copied}")
    (copied / "model.safetensors").unlink()
    with pytest.raises(TopgraftError, match="a folder without weights"):
        find(f"hf/{copied}")
    (copied / "tokenizer.json").write_text("{")
    with pytest.raises(TopgraftError, match=r"tokenizer in .* could not be read"):
        find(f"hf/{copied}", weights="none")
    (copied / "config.json").write_text("{")
    with pytest.raises(TopgraftError, match=r"config\.json is damaged"):
        find(f"hf/{copied}")
    (copied / "config.json").unlink()
    with pytest.raises(TopgraftError, match=r"has no config\.json"):
        find(f"hf/{copied}")
    with pytest.raises(TopgraftError, match="There is no folder"):
        find(f"hf/{copied}/deeper/still")


def test_settings_about_the_machine_do_not_travel():
    settings = {
        "model_type": "bert",
        "hidden_size": 8,
        "_attn_implementation": "org/kernels",
        "dtype": "float16",
    }
    kept = settings_of(
        config_of(settings | {"_name_or_path": "/home/me", "attn_implementation": "org/kernels"})
    )
    assert kept["hidden_size"] == 8
    assert "org/kernels" not in json.dumps(kept)
    assert "/home/me" not in json.dumps(kept)
    assert "dtype" not in kept


def test_a_recipe_builds_nothing_but_networks():
    for name in ("AutoModel", "pipeline", "BertConfig", "no_such_class"):
        with pytest.raises(TopgraftError, match=r"has no network|can't be used"):
            rebuild({"kind": "hf", "class": name, "config": {"model_type": "bert"}, "options": {}})
