"""The shape of the demo's Qwen2-VL: sizes, special tokens, and an untrained model of that shape."""

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

PATCH_PX = 14
MERGE = 2
TOKEN_PX = PATCH_PX * MERGE
"""A language token of a picture covers this many pixels, each way."""

VISION_DIM = 192
VISION_HEADS = 6
VISION_DEPTH = 4
TEXT_DIM = 256
TEXT_HEADS = 4  # of 64: vLLM's CPU kernels take no smaller head here
TEXT_KV_HEADS = 2
TEXT_DEPTH = 4
TEXT_INNER = 640
POSITIONS = 1024

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of their ids, from 0."""
(END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD) = range(7)

PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.25, 0.25, 0.25)


def build_config(vocabulary: int) -> Qwen2VLConfig:
    """The configuration for a tokenizer of `vocabulary` tokens."""
    return Qwen2VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": TEXT_DIM,
            "intermediate_size": TEXT_INNER,
            "num_hidden_layers": TEXT_DEPTH,
            "num_attention_heads": TEXT_HEADS,
            "num_key_value_heads": TEXT_KV_HEADS,
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]},
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": IM_END,
            "pad_token_id": END_OF_TEXT,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": VISION_DEPTH,
            "embed_dim": VISION_DIM,
            "hidden_size": TEXT_DIM,
            "num_heads": VISION_HEADS,
            "mlp_ratio": 4,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "hidden_act": "quick_gelu",
        },
        image_token_id=IMAGE_PAD,
        video_token_id=VIDEO_PAD,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
        architectures=["Qwen2VLForConditionalGeneration"],
    )


def build_model(vocabulary: int, seed: int) -> Qwen2VLForConditionalGeneration:
    """An untrained float32 model; its weights are a function of the seed."""
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration._from_config(build_config(vocabulary), attn_implementation="sdpa")
    return model.float()
