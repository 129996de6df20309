from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hub_cache import tiny_bert
from PIL import Image

from topgraft.backbones.hf_inputs import inputs_of
from topgraft.backbones.loading import find, report_of
from topgraft.errors import TopgraftError

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


def vision(folder, processor: dict[str, object]) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


@pytest.mark.parametrize(
    ("processor", "mode", "resize"),
    [
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2},
            "squash",
            (32, 32),
        ),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 40},
                "crop_size": {"height": 32, "width": 32},
                "resample": 3,
            },
            "crop",
            (40, 40),
        ),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 32},
                "crop_pct": 0.8,
            },
            "crop",
            (40, 40),
        ),
    ],
)
def test_pictures_are_prepared_as_the_image_processor_does(tmp_path, processor, mode, resize):
    from transformers import AutoImageProcessor

    vision(tmp_path, processor | {"image_mean": MEAN, "image_std": STD})
    found = find(f"hf/{tmp_path}")
    assert report_of(found, "vit").share == 1.0
    ours = found.preprocess
    assert (found.modality, ours.key, ours.size, ours.mode, ours.resize) == (
        "picture",
        "pixel_values",
        (32, 32),
        mode,
        resize,
    )
    # Transformers resizes tensors, we resize pictures: on a smooth picture they agree to a grey level or two
    ramp = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, ramp[::-1], ramp.T.reshape(64, 48)], axis=2))
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")["pixel_values"]
    got = ours.batch([picture])["pixel_values"]
    assert got.shape == theirs.shape
    assert float((got - theirs)[:, :2].abs().max()) < 3 / 255 / min(STD)


def test_a_text_is_cut_at_the_smallest_limit(tmp_path):
    network = tiny_bert(tmp_path)
    assert inputs_of(tmp_path, network)[1].max_length == 32  # the tokenizer's
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    assert inputs_of(tmp_path, network)[1].max_length == 16
    (tmp_path / "sentence_bert_config.json").write_text("{}")
    with pytest.raises(TopgraftError, match="is damaged"):
        inputs_of(tmp_path, network)
    (tmp_path / "sentence_bert_config.json").unlink()
    path = tmp_path / "tokenizer_config.json"
    settings = {k: v for k, v in json.loads(path.read_text()).items() if k != "model_max_length"}
    path.write_text(json.dumps(settings))
    assert inputs_of(tmp_path, network)[1].max_length == 40  # the table of positions


def test_rows_of_positions_before_the_first_do_not_count(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    tiny_bert(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 10**30}))
    config = RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    preprocess = inputs_of(tmp_path, RobertaModel(config, add_pooling_layer=False))[1]
    assert preprocess.max_length == 32


def test_a_network_that_reads_something_else_is_refused(tmp_path):
    from transformers import TimeSeriesTransformerConfig, TimeSeriesTransformerModel

    config = TimeSeriesTransformerConfig(
        prediction_length=2, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    with pytest.raises(
        TopgraftError, match="reads past_values; expected a network that reads texts, pictures or sounds"
    ):
        inputs_of(tmp_path, TimeSeriesTransformerModel(config))


def test_pictures_without_a_processor_are_refused(tmp_path):
    vision(tmp_path, {})
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(TopgraftError, match=r"Expected preprocessor_config\.json"):
        find(f"hf/{tmp_path}")
