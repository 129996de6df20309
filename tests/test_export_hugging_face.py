"""The folder for the hub: a saved graft with a card that the hub reads, and tokens for Transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from exported_grafts import NAMES, pictures, real, saved, texts
from huggingface_hub import ModelCard
from packaged_data import pictures_of
from small_networks import differing, kept

from topgraft.export import export
from topgraft.export.hugging_face import base_model
from topgraft.predict import predict
from topgraft.saved import Model, open_model

TEXTS = ["a good film", "a long story about people"]


def check(model: Model, out: Path) -> ModelCard:
    made = export(model, "huggingface", out)
    values = TEXTS if model.modality == "text" else pictures_of("food", 0, 3)
    again = predict(out, values)
    assert [p.probabilities for p in again] == [p.probabilities for p in predict(model, values)]
    assert differing(kept(open_model(out).graft), kept(model.graft)) == set()
    assert made.difference.to_json() == {"probabilities": 0.0, "logits": 0.0}
    return ModelCard.load(out / "README.md")


@pytest.mark.parametrize("model", [pictures, texts], ids=lambda f: f.__name__)
def test_predict_takes_the_folder_as_it_is(model, tmp_path):
    card = check(model(), tmp_path / "out")
    assert card.data.library_name == "topgraft"
    assert card.data.base_model is None  # random values come from no model
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        "graft.json",
        "model.safetensors",
        "labels.json",
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("modality", "task", "base"),
    [
        ("picture", "image-classification", "timm/tf_efficientnet_lite0.in1k"),
        ("text", "text-classification", "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_the_card_names_task_licence_and_the_model_it_began_with(modality, task, base, tmp_path):
    card = check(real(modality), tmp_path / "out")
    assert (card.data.pipeline_tag, card.data.base_model) == (task, base)
    assert card.data.license == "apache-2.0"
    assert "topgraft" in card.data.tags


def test_transformers_reads_the_same_tokens(tmp_path):
    from transformers import AutoTokenizer

    model = texts()
    export(model, "huggingface", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    theirs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    ours = model.preprocess.batch(TEXTS)
    assert {n: t.tolist() for n, t in theirs.items()} == {n: t.tolist() for n, t in ours.items()}


def test_what_a_run_found_out_comes_along(tmp_path):
    run = saved(pictures(), tmp_path / "photos.topgraft")
    score = {"metric": "balanced accuracy", "value": 0.87512, "low": 0.7, "high": 0.95, "n": 40}
    (run / "result.json").write_text(json.dumps({"scores": [score], "model": str(run)}))
    (run / "README.md").write_text("---\nlibrary_name: topgraft\n---\n\n# photos\n\nTold by the fit.\n")
    (run / "chain.svg").write_text("<svg/>")
    export(run, "huggingface", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    (found,) = card.data.eval_results
    assert (found.metric_type, found.metric_value) == ("balanced_accuracy", 0.8751)
    assert card.data.model_name == "photos.topgraft"
    assert "Told by the fit." in card.text
    assert "topgraft predict downloaded new/*.jpg" in card.text
    assert card.content.count("\n---\n") == 1
    assert (tmp_path / "out" / "chain.svg").read_text() == "<svg/>"
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == {
        "scores": [score],
        "model": "photos.topgraft",
    }


def test_names_can_not_act_in_a_card_without_a_run(tmp_path):
    odd = replace(pictures(), classes=("<script>alert(1)</script>", "a\n---\nb", "[x](http://y)"))
    export(odd, "huggingface", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- a --- b\n" in card
    assert "<script>" not in card
    assert "[x](" not in card
    assert card.count("\n---\n") == 1


@pytest.mark.parametrize(
    ("source", "weights", "matched", "expected"),
    [
        ("hf/org/name@v2", "org/name of the Hugging Face hub, revision 0123456789ab", "name", "org/name"),
        ("hf/some/folder", "some/folder", "name", None),
        ("hf/org/name", "random values", "random", None),
        ("hf/org/name", "mine.safetensors", "name", None),
        ("torchvision/resnet18", "the package x", "name", None),
    ],
)
def test_only_a_model_that_is_known_for_certain_is_named(source, weights, matched, expected):
    told = {"source": source, "weights": {"weights": weights, "matched": matched}, "recipe": {}}
    assert base_model(told) == expected


def test_classes_are_there_as_a_list(tmp_path):
    export(pictures(), "huggingface", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == list(NAMES)
