"""Twenty networks of different kinds, each fit, saved, opened and made to predict, on a few real inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_cache import SPECIAL
from packaged_data import glosses_of, pictures_of
from torch import Tensor, nn

import topgraft as tg
from topgraft.backbones.types import Backbone

CLASSES = 3
EACH = 12
PICTURES = (
    "timm/resnet10t",
    "timm/mobilenetv3_small_050",
    "timm/convnext_atto",
    "timm/vit_tiny_patch16_224",
    "timm/crossvit_tiny_240",
    "timm/levit_128s",
    "timm/regnetx_002",
    "timm/hrnet_w18_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
)
TEXTS = ("bert", "distilbert", "albert", "electra", "gpt2", "t5")
WAVES = ("wav2vec2", "hubert", "wavlm", "lstm")
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


@dataclass
class Given:
    """Labelled inputs, new ones, and a network."""

    inputs: Any
    new: Any
    backbone: Backbone
    fresh: Callable[[], nn.Module] | None = None
    """The class again with other values, where opening takes one's own module."""


def pictures(name: str, _folder: Path) -> Given:
    """A network that a library knows by name, and packaged pictures of three classes."""
    from topgraft import demo

    classes = sorted(p.name for p in demo.pictures().iterdir() if p.is_dir())[:CLASSES]
    files = [file for c in classes for file in pictures_of(c, 0, EACH)]
    labels = [file.parent.name for file in files]
    new = [file for c in classes for file in pictures_of(c, EACH, 2)]
    return Given((files, labels), new, tg.load(name, weights="none"))


def vocabulary(folder: Path, texts: Sequence[str]) -> int:
    """A tokenizer for these texts, written as Transformers writes it; how many words it knows."""
    from transformers import BertTokenizer

    words = [*SPECIAL, *sorted({w.strip(".,;()\"'").lower() for text in texts for w in text.split()} - {""})]
    tokenizer = BertTokenizer(vocab={w: i for i, w in enumerate(words)}, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return len(words)


def texts(name: str, folder: Path) -> Given:
    """A small model of a type, written and read as Transformers does it, and packaged glosses."""
    from transformers import AutoConfig, AutoModel, T5EncoderModel

    kinds = ("animal", "food", "plant")
    rows = sorted(glosses_of(kinds, EACH + 2), key=lambda row: kinds.index(row[1]))
    size = vocabulary(folder, [text for text, _ in rows])
    own = {
        "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 2, "n_positions": 64},
        "distilbert": {"dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 48},
        "t5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 4, "num_heads": 2},
        "albert": SMALL | {"embedding_size": 16},
    }
    torch.manual_seed(2)
    config = AutoConfig.for_model(name, vocab_size=size, pad_token_id=0, **own.get(name, SMALL))
    (T5EncoderModel(config) if name == "t5" else AutoModel.from_config(config)).save_pretrained(folder)
    first = [n for n in range(len(rows)) if n % (EACH + 2) < EACH]
    labelled = ([rows[n][0] for n in first], [rows[n][1] for n in first])
    new = [text for n, (text, _) in enumerate(rows) if n not in first]
    return Given(labelled, new, tg.load(f"hf/{folder}"))


class Listener(nn.Module):
    """Frames by strided convolutions, then three recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv1d(1, 16, 16, 8), nn.GELU(), nn.Conv1d(16, 16, 8, 4), nn.GELU(), nn.Conv1d(16, 16, 8, 4)
        )
        self.lstm = nn.LSTM(16, 24, num_layers=3, batch_first=True)

    def forward(self, wave: Tensor) -> Tensor:
        return self.lstm(self.frames(wave[:, None]).transpose(1, 2))[1][0][-1]


def waves(name: str, _folder: Path) -> Given:
    """A network for waveforms, given as a module, and tones of three pitches in noise."""

    def fresh() -> nn.Module:
        if name == "lstm":
            return Listener().eval()
        from transformers import AutoConfig, AutoModel

        small = SMALL | {"conv_dim": (16,) * 4, "conv_kernel": (10, 3, 3, 2), "conv_stride": (5, 2, 2, 2)}
        options = {
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "num_feat_extract_layers": 4,
        }
        return AutoModel.from_config(AutoConfig.for_model(name, **small, **options)).eval()

    dice = np.random.default_rng(0)
    pitch = np.arange(CLASSES * (EACH + 2)) % CLASSES
    time = np.arange(3200) / 16_000
    tones = np.sin(2 * np.pi * (220.0 * 2**pitch)[:, None] * time + dice.uniform(0, 6, (len(pitch), 1)))
    sound = (tones + 0.1 * dice.normal(size=tones.shape)).astype("float32")
    count = CLASSES * EACH
    torch.manual_seed(2)
    backbone = tg.load(fresh(), modality="array", example=torch.from_numpy(sound[:3]))
    return Given((sound[:count], [f"pitch {p}" for p in pitch[:count]]), sound[count:], backbone, fresh)


CASES = [
    *(pytest.param(pictures, name, id=name) for name in PICTURES),
    *(pytest.param(texts, name, id=name) for name in TEXTS),
    *(pytest.param(waves, name, id=name) for name in WAVES),
]


def test_they_are_twenty() -> None:
    assert len(CASES) == 20


def sampled() -> list[Any]:
    """Every third network; the others are left to `make exhaustive`."""
    return [
        case if number % 3 == 0 else pytest.param(*case.values, id=case.id, marks=pytest.mark.exhaustive)
        for number, case in enumerate(CASES)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "name"), sampled())
def test_fits_saves_opens_and_predicts(make: Callable[..., Given], name: str, tmp_path: Path) -> None:
    given = make(name, tmp_path / "network")
    before = {n: t.clone() for n, t in given.backbone.chain.network.state_dict().items()}
    keep = max(2, len(given.backbone.chain) * 2 // 3)
    freeze = keep - 1 if name != "albert" else 0  # its blocks share all that they have
    run = tg.fit(
        given.inputs,
        tmp_path / "saved",
        backbone=given.backbone,
        keep=str(keep),
        freeze=str(freeze),
        folds=3,
        epochs=2,
        augment="none",
        refit=False,
        store=tg.Store(tmp_path / "store"),
    )
    assert (run.keep, run.freeze) == (keep, freeze)
    assert 0.0 <= run.score <= 1.0

    torch.manual_seed(9)
    model = tg.open_model(run.folder, module=given.fresh() if given.fresh is not None else None)
    kept = model.graft.kept_weights()
    trained = set(run.result["trained_names"])
    assert trained & set(kept)
    for n in set(kept) - trained:
        torch.testing.assert_close(kept[n], before[n], rtol=0, atol=0)
    assert any(not torch.equal(kept[n], before[n]) for n in trained & set(kept))

    together = tg.predict(model, given.new)
    assert len(together) == len(given.new)
    opened = run.folder if given.fresh is None else model
    alone = [tg.predict(opened, given.new[i : i + 1])[0] for i in (0, 3)]
    for one, other in zip(alone, (together[0], together[3]), strict=True):
        assert one.label == other.label
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
        assert sum(one.probabilities) == pytest.approx(1.0)
