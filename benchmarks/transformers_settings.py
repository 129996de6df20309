"""What makes a model of Transformers small: settings by name, and what single families need beyond.

Used by ``cases_transformers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

VOCABULARY, LAYERS = 100, 3

_SMALL: dict[int, str] = {
    1: """first_k_dense_replace n_shared_experts num_shared_experts moe_num_shared_experts topk_group
       n_group num_hash_layers layer_group_size num_expert_group num_dense_layers dense_layers
       moe_layer_start_index num_nextn_predict_layers num_lstm_layers num_kv_shared_layers""",
    2: """num_key_value_heads n_head_kv num_kv_heads num_experts_per_tok num_experts_per_token moe_topk
       top_k moe_k experts_per_token num_local_experts_per_tok index_n_heads swa_num_key_value_heads
       global_num_key_value_heads num_global_key_value_heads linear_num_key_heads moe_top_k
       mamba_n_groups num_random_blocks n_groups encoder_num_key_value_heads decoder_num_key_value_heads
       n_kv_heads""",
    3: """num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_encoder_layers
       num_decoder_layers depth layers speech_encoder_layers""",
    4: """num_attention_heads num_heads n_head n_heads attention_heads encoder_attention_heads
       decoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts
       moe_num_attention_heads swa_num_attention_heads linear_num_value_heads linear_num_heads
       sliding_window sliding_window_size decoder_num_attention_heads
       encoder_num_attention_heads speech_encoder_attention_heads window_size
       num_conv_pos_embedding_groups attention_window decoder_cross_attention_heads
       decoder_self_attention_heads index_block_size index_topk_blocks d_rel num_queries""",
    8: """state_size mamba_d_state ssm_state_size num_labels qk_rope_head_dim rotary_dim num_negatives
       num_conv_pos_embeddings chunk_size mamba_chunk_size time_step_rank laurel_rank altup_rank
       hidden_size_per_layer_input num_filters rel_extent hyper_connection_rank loop_gate_rank hc_lowrank
       local_attention attention_chunk_size""",
    16: """index_topk head_dim d_kv d_head kv_lora_rank q_lora_rank qk_nope_head_dim v_head_dim index_head_dim
       linear_key_head_dim linear_value_head_dim linear_head_dim swa_head_dim kv_channels global_head_dim
       swa_v_head_dim num_mel_bins feature_size o_lora_rank dim_head attention_head_dim
       sparse_attention_head_dim num_pos_feats codebook_size codebook_dim latent_dim o_groups_rank""",
    24: "qk_head_dim",
    32: """moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size
       expert_ffn_hidden_size projection_dim projection_size base_channels
       shared_experts_intermediate_size fpn_hidden_size codevector_dim proj_codevector_dim
       xvector_output_dim classifier_proj_size output_channels subsampling_conv_channels
       stem_hidden_channels hidden_act_size expert_intermediate_size""",
    64: """hidden_size d_model dim n_embd embed_dim embedding_size emb_dim embedding_dim hidden_dim
       encoder_hidden_size decoder_hidden_size output_hidden_size word_embed_proj_dim image_size
       pooler_output_size out_hidden_size text_hidden_size max_position_embeddings n_positions n_ctx
       max_seq_len max_sequence_length max_source_positions max_target_positions model_max_length
       pooler_hidden_size lru_width attention_hidden_size moe_hidden_size hidden_size_global
       pretrain_image_size cross_attention_hidden_size vision_output_dim block_size
       t2u_max_position_embeddings max_2d_position_embeddings output_dim""",
    96: """intermediate_size ffn_dim d_ff d_inner n_inner encoder_ffn_dim decoder_ffn_dim mlp_dim
       ffn_hidden_size inner_dim intermediate_size_mlp dense_intermediate_size dim_feedforward
       decoder_intermediate_size speech_encoder_intermediate_size encoder_intermediate_size dff
       dense_ffn_hidden_size feed_forward_hidden_size mamba_intermediate_size""",
    VOCABULARY: """vocab_size input_vocab_size output_vocab_size vocab_size_per_layer_input text_vocab_size
       padded_vocab_size""",
}
SIZES = {name: size for size, names in _SMALL.items() for name in names.split()}
"""What a setting of whole numbers becomes, whatever the family."""
PER_STAGE = {
    "hidden_sizes": (16, 32, 48, 64),
    "embed_dims": (16, 32, 48, 64),
    "embed_dim": (16, 32, 48, 64),
    "neck_hidden_sizes": (16, 32, 48, 64),
    "backbone_channel_list": (64, 48, 32, 16),
    "depths": (1, 1, 2, 1),
    "depth": (1, 1, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "num_attention_heads": (1, 2, 2, 4),
    "conv_dim": (32,),
    "blocks_per_stage": (1, 1, 2, 1),
    "embed_dim_per_stage": (16, 32, 64, 128),
}
"""The same for settings with one number a stage, repeated as often as it takes."""
HEADS_OF_STATE_SPACE = {"mamba_n_heads": 8, "mamba_num_heads": 8, "mamba_d_head": 16, "mamba_head_dim": 16}


def _mrope(sections: Sequence[int], at: str = "") -> dict[str, Any]:
    return {
        f"{at}rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections)}
    }


_BOXES_96 = {"hidden_size": 96, "coordinate_size": 16, "shape_size": 16, "num_attention_heads": 4}
_MLA = {"head_dim": 8}

SETTINGS: dict[str, dict[str, Any]] = {
    "bit": {"num_groups": 4, "embedding_size": 16},
    "blt": {"encoder_hash_byte_group_vocab": 60},
    "chameleon": {"vocabulary_map": {"<image>": 3}},
    "cvt": {"depth": (1, 2, 3)},
    "dbrx": {"attn_config.rope_theta": 1e4, "attn_config.kv_n_heads": 2},
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
        "text_config.num_experts_per_tok": 2,
    },
    "donut-swin": {"window_size": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    },
    "efficientnet": {
        "width_coefficient": 0.25,
        "hidden_dim": 320,
        "num_block_repeats": [1, 1, 2, 1, 1, 1, 1],
    },
    "ernie4_5_vl_moe": _mrope((3, 3, 2), "text_config."),
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 1, "mask_token_id": 3},
    "falcon_h1": {"mamba_d_ssm": 128},
    "funnel": {"block_sizes": [1, 1, 1], "architectures": ["FunnelModel"]},
    "glm46v": _mrope((4, 2, 2), "text_config."),
    "glm4v": _mrope((4, 2, 2), "text_config."),
    "glm4v_moe": _mrope((2, 1, 1), "text_config."),
    "glm4v_moe_text": _mrope((2, 1, 1)),
    "glm4v_text": _mrope((4, 2, 2)),
    "glm_image": _mrope((4, 2, 2), "text_config."),
    "glm_image_text": _mrope((4, 2, 2)),
    "glm_ocr": _mrope((4, 2, 2), "text_config."),
    "glm_ocr_text": _mrope((4, 2, 2)),
    "glmga": _mrope((4, 2, 2), "text_config."),
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]]},
    "granite_speech5_ctc": {"encoder_config.context_size": 32},
    "granite_speech5_encoder": {"context_size": 32},
    "hy_v4_vl": _mrope((2, 1, 1), "text_config."),
    "hy_v4_vl_text": _mrope((2, 1, 1)),
    "layoutlmv3": _BOXES_96,
    "levit": {
        "patch_size": 16,
        "hidden_sizes": (32, 48, 64),
        "num_attention_heads": (2, 3, 4),
        "key_dim": (16, 16, 16),
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "lilt": {"hidden_size": 96},
    "longcat_flash": _MLA,
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 16},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "mistral4": _MLA,
    "mistral_large4": {"text_config.head_dim": 8},
    "mistral_large4_text": _MLA,
    "moonshine": {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "paddleocr_vl": _mrope((4, 2, 2), "text_config."),
    "qwen2_5_omni_thinker": _mrope((4, 2, 2), "text_config."),
    "qwen2_5_vl": _mrope((4, 2, 2), "text_config."),
    "qwen2_5_vl_text": _mrope((4, 2, 2)),
    "qwen2_vl": _mrope((4, 2, 2), "text_config."),
    "qwen2_vl_text": _mrope((4, 2, 2)),
    "reformer": {
        "axial_pos_embds_dim": (32, 32),
        "axial_pos_shape": (8, 8),
        "hash_seed": 0,
        "num_buckets": 4,
        "attn_layers": ["local", "lsh", "local"],
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
        "attention_head_size": 16,
        "feed_forward_size": 96,
    },
    "sam2": {
        "vision_config.backbone_config.hidden_size": 16,
        "vision_config.backbone_channel_list": [128, 64, 32, 16],
    },
    "sam2_hiera_det_model": {"hidden_size": 16},
    "sam2_vision_model": {"backbone_config.hidden_size": 16, "backbone_channel_list": [128, 64, 32, 16]},
    "step3p7": {"text_config.sliding_window": 4},
    "swin": {"window_size": 2},
    "textnet": {"stem_out_channels": 16},
    "unlimited_ocr": {"text_config.num_key_value_heads": 4},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 128, "attention_head_dim": 32, "n_mamba_heads": 2},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family needs beyond ``SIZES``."""
PARTS: dict[str, str] = {
    "clvp": "text_encoder_model",
    "sam": "vision_encoder",
    "sam2": "vision_encoder",
    "sam3_tracker": "vision_encoder",
    "sam_hq": "vision_encoder",
}
"""Which module of the model is cut, where that is not the model, its encoder or its language model."""
_NO_BACKBONE = "a detector whose default configuration names no backbone"
_OTHER_PACKAGE = "needs a package that is not installed: {}"
NOT_BUILT: dict[str, str] = {
    **dict.fromkeys(
        [
            "conditional_detr",
            "dab-detr",
            "deformable_detr",
            "detr",
            "omdet-turbo",
            "table-transformer",
            "timm_backbone",
        ],
        _NO_BACKBONE,
    ),
    "dinat": _OTHER_PACKAGE.format("natten"),
    "higgs_audio_v2_tokenizer": _OTHER_PACKAGE.format("torchaudio"),
    "layoutlmv2": _OTHER_PACKAGE.format("detectron2"),
    "voxtral_realtime_text": "AutoModel names a class that Transformers 5.24 lacks",
    "gemma3n_vision": "a timm network of 294 million parameters, of which no smaller one is known",
    "evolla": "AutoModel does not take its default configuration",
    **dict.fromkeys(
        ["edgetam_video", "sam2_video", "sam3_tracker_video", "sam3_video"],
        "a tracker: it takes a session with the frames seen so far, not a batch",
    ),
}
"""Why a type has no case."""
WITHOUT_BATCH = ("grid_thw", "image_grid_thw", "target_sizes", "pixel_position_ids")
"""Inputs that say how the patches of all pictures, one sequence without a batch, belong together."""
HEEDS_NO_MASK: dict[str, str] = {
    "convbert": "its convolutions run over padding",
    "fnet": "its Fourier transform runs over padding",
    "nystromformer": "its landmarks are means over padding too",
    "pegasus_x": "it pads to whole blocks, whose last steps stand for no token",
    "sam3_lite_text": "its positions are spread over the length",
    "sam3_lite_text_text_model": "its positions are spread over the length",
    "yoso": "its convolutions run over padding",
}
"""Networks whose own output changes with padding, and why."""
