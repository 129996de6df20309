from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hub_cache import tiny_bert

from topgraft.backbones import ArrayPreprocess, PicturePreprocess, TextPreprocess, open_preprocess
from topgraft.backbones.hf_inputs import inputs_of
from topgraft.backbones.preprocess import TOKENIZER_FILE
from topgraft.errors import TopgraftError


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> tuple[TextPreprocess, object]:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("bert")
    network = tiny_bert(folder)
    modality, preprocess, _ = inputs_of(folder, network)
    assert modality == "text"
    assert isinstance(preprocess, TextPreprocess)
    return preprocess, AutoTokenizer.from_pretrained(folder)


def test_texts_are_prepared_as_transformers_does(text):
    preprocess, tokenizer = text
    texts = ["a good film", "", "The BAD film was long and the story about people films " * 5, "unheard-of"]
    theirs = tokenizer(
        texts, padding=True, truncation=True, max_length=preprocess.max_length, return_tensors="pt"
    )
    ours = preprocess.batch(texts)
    assert list(ours) == ["input_ids", "attention_mask", "token_type_ids"]
    assert ours["input_ids"].shape == (4, 32)
    for name, tensor in ours.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, theirs[name])
    assert preprocess.batch(["a good film"])["input_ids"].shape == (1, 5)  # the longest of the batch, no more
    assert preprocess.count_tokens(texts[2]) > 32


def test_only_empty_texts_without_special_tokens_still_make_one_step():
    from tokenizers import Tokenizer, models

    bare = TextPreprocess(Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).to_str(), pad_id=0)
    batch = bare.batch(["", ""])
    assert batch["input_ids"].shape == (2, 1)
    assert batch["attention_mask"].sum() == 0


def test_what_is_no_text_is_refused(text):
    with pytest.raises(TopgraftError, match="Expected a text, got int: 3"):
        text[0].batch(["a", 3])
    with pytest.raises(TopgraftError, match="at least one example"):
        text[0].batch([])


def test_arrays_are_stacked_in_32_bits():
    batch = ArrayPreprocess("values").batch([np.arange(3), np.ones(3, dtype=np.float64)])
    assert torch.equal(batch["values"], torch.tensor([[0.0, 1, 2], [1, 1, 1]]))
    with pytest.raises(TopgraftError, match=r"one shape, got \(2,\) and \(3,\)"):
        ArrayPreprocess().batch([np.zeros(2), np.zeros(3)])
    with pytest.raises(TopgraftError, match="arrays of numbers"):
        ArrayPreprocess().batch([["a"]])


def test_every_kind_opens_as_it_was_saved(text, tmp_path):
    picture = PicturePreprocess(
        size=(8, 6), resize=(9, 7), mean=(0.1, 0.2, 0.3), interpolation="lanczos", scale=127.5
    )
    for name, saved in {"picture": picture, "text": text[0], "array": ArrayPreprocess("v")}.items():
        folder = tmp_path / name
        folder.mkdir()
        saved.save(folder)
        opened = open_preprocess(folder)
        assert opened == saved
        assert opened.fingerprint == saved.fingerprint
        assert json.loads(json.dumps(saved.describe())) == saved.describe()
    same = open_preprocess(tmp_path / "text").batch(["a good film"])
    assert torch.equal(same["input_ids"], text[0].batch(["a good film"])["input_ids"])


def test_the_fingerprint_changes_with_every_setting(text):
    from dataclasses import replace

    base = PicturePreprocess(size=(8, 8), resize=(9, 9))
    changed = [
        replace(base, size=(8, 9)),
        replace(base, resize=(9, 10)),
        replace(base, mean=(0.0, 0.0, 0.0)),
        replace(base, std=(1.0, 1.0, 1.0)),
        replace(base, key="y"),
        replace(base, interpolation="nearest"),
        replace(base, mode="squash"),
        replace(base, scale=1.0),
    ]
    assert len({p.fingerprint for p in [base, *changed]}) == 9
    other = text[0].tokenizer.replace('"film"', '"movie"')
    assert replace(text[0], tokenizer=other).fingerprint != text[0].fingerprint
    assert replace(text[0], max_length=9).fingerprint != text[0].fingerprint


def test_damage_to_what_was_saved_is_noticed(text, tmp_path):
    text[0].save(tmp_path)
    (tmp_path / TOKENIZER_FILE).write_text(text[0].tokenizer + " ")
    with pytest.raises(TopgraftError, match="its SHA-256 differs"):
        open_preprocess(tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    with pytest.raises(TopgraftError, match=r"tokenizer\.json is missing"):
        open_preprocess(tmp_path)
    for content in ("", "[]", '{"kind": "smell"}', '{"kind": "array", "colour": 3}'):
        (tmp_path / "preprocess.json").write_text(content)
        with pytest.raises(TopgraftError, match="does not describe a preprocessing"):
            open_preprocess(tmp_path)


def test_a_tokenizer_that_is_none_is_refused():
    with pytest.raises(TopgraftError, match="tokenizer could not be read"):
        TextPreprocess("{}").batch(["a"])


def test_a_tokenizer_that_is_read_and_can_encode_nothing_is_refused():
    told = {"type": "WordPiece", "unk_token": "[?]", "vocab": {"a": 0}, "max_input_chars_per_word": 9}
    told |= {"continuing_subword_prefix": "##"}
    lame = TextPreprocess(json.dumps({"version": "1.0", "model": told}))
    for use in (lambda: lame.batch(["b"]), lambda: lame.windows("b", 2), lambda: lame.count_tokens("b")):
        with pytest.raises(TopgraftError, match=r"tokenizer can't be used: WordPiece error: Missing \[UNK\]"):
            use()
