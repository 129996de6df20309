"""Folders laid out as the cache of the Hugging Face hub, and small models to put there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

REVISION = "0123456789abcdef0123456789abcdef01234567"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *SPECIAL,
    *["a", "good", "bad", "film", "was", "the", "and", "long", "story", "about", "people", "##s"],
]


def use_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the hub's library use ``root`` as its cache, with no connection."""
    from huggingface_hub import constants

    root.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return root


def snapshot(cache: Path, model: str) -> Path:
    """An empty snapshot folder of a model, found under its branch ``main``."""
    base = cache / ("models--" + model.replace("/", "--"))
    folder = base / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(REVISION)
    return folder


def save(network: nn.Module, path: Path, *, prefix: str = "", without: str = "") -> None:
    """The weights of a network as safetensors."""
    tensors = {f"{prefix}{n}": t.clone().contiguous() for n, t in network.state_dict().items()}
    save_file({n: t for n, t in tensors.items() if not without or without not in n}, path)


def tiny_bert(folder: Path, *, with_head: bool = False) -> nn.Module:
    """A BERT of two layers with its tokenizer, written as Transformers writes it; the network is returned."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    network = BertForSequenceClassification(config) if with_head else BertModel(config)
    network.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}, model_max_length=32)
    tokenizer.save_pretrained(folder)
    return network.eval()
