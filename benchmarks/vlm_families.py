"""Tiny vision-language models of families that users deploy, each with its family's own processor.

Nothing comes from a hub. Architecture, special tokens, picture settings and the form of a turn are those
that each family publishes with its weights; sizes are the least that vLLM's CPU kernels take. The tokenizers
are trained here on the product's questions, and so is the language model, for seconds and without pictures:
only so much that it spells an answer in the tokens in which a real model does. What it says is random.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GemmaTokenizer,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from curation.vlm.asking import PROMPTS

_VOCABULARY = 800
_CONTEXT = 8192
_LESSONS, _RATE = 40, 3e-3  # passes over _TAUGHT
_TAUGHT = {
    "outfit-exact": ("yes", "no", "unclear"),
    "outfit-brief": ("yes", "no"),
    "paper-caption": ("A person stands in the street, and smiles.", "Someone walks.", "A face, from near."),
}
_INITIAL = 0.08  # of weights: 0.02, as published, makes all pictures look alike to two random layers
# How Qwen2 and what builds on it cut text: contractions, words, single digits, punctuation, blanks.
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}PICTURE"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN_TEMPLATE = _CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
_INTERNVL_TEMPLATE = _CHATML.replace("PICTURE", "<IMG_CONTEXT>\n")
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<start_of_image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
_INTERNVL_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
)  # fmt: skip
_GEMMA_SPECIAL = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
    "<end_of_image>", "<image_soft_token>",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family, a model of it that people deploy, and what writes a tiny one into a folder.

    picture_token   what stands for a picture's patches in the prompt, as often as there are tokens
    sees_ahead      whether a picture's tokens attend to those of it that follow them; vLLM's attention on a
                    CPU computes none that does (findings/vllm-on-a-cpu-reads-pictures-of-gemma-3-causally.sh)
    """

    name: str
    deployed: str
    picture_token: str
    write: Callable[[Path, int], None]
    sees_ahead: bool = False


def write_family(name: str, folder: Path, lessons: int = _LESSONS) -> Family:
    """Writes config, weights, tokenizer, processor and chat template of one of FAMILIES.

    lessons   passes over a few answers; with 0 the model is as it was drawn, and spells anyhow
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model gains nothing by more, and on a busy machine waits for them
    folder.mkdir(parents=True, exist_ok=True)
    family = next(family for family in FAMILIES if family.name == name)
    family.write(folder, lessons)
    return family


def _texts() -> list[str]:
    """What the tokenizers learn from: the product's questions, and yes and no as models write them."""
    answers = [_answer(name, said) for name, words in _TAUGHT.items() for said in words]
    words = [f"{blank}{word}" for blank in ("", " ") for word in ("yes", "Yes", "no", "No", "unclear")]
    spoken = ["Yes, it is the same. No, it is not."]
    return [*(prompt.text for prompt in PROMPTS.values()), *(20 * [*answers, *words, *spoken])]


def _answer(prompt: str, said: str) -> str:
    return f'{PROMPTS[prompt].opening}{said}"}}'


def _teach(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, template: str, lessons: int, end: str
) -> None:
    """How answers are spelt: a few steps on the questions without their pictures."""
    taught = []
    for name, words in _TAUGHT.items():
        message = [{"role": "user", "content": [{"type": "text", "text": PROMPTS[name].text}]}]
        prompt = tokenizer.apply_chat_template(
            message, chat_template=template, add_generation_prompt=True, tokenize=False
        )
        for said in words:
            asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            told = tokenizer(_answer(name, said) + end, add_special_tokens=False)["input_ids"]
            taught.append((torch.tensor([asked + told]), torch.tensor([[-100] * len(asked) + told])))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=_RATE)
    model.eval()
    for _ in range(lessons):
        for ids, labels in taught:
            model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def byte_level_tokenizer(special: tuple[str, ...], **named: str) -> PreTrainedTokenizerFast:
    """As Qwen's: byte-level BPE, a blank is written Ġ; `named`: special tokens that a processor asks for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
        model_max_length=_CONTEXT,
    )


def sentencepiece_tokenizer(special: tuple[str, ...], **named: str) -> PreTrainedTokenizerFast:
    """As Gemma's: BPE on letters, a blank is written ▁, what has no piece as bytes (<0x0A>)."""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?\p{L}+|▁?[^▁\p{L}]+|▁+"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, show_progress=False)
    learned.train_from_iterator(_texts(), trainer)
    model = json.loads(learned.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    # Breaks of up to four lines are pieces, and join in any way: vLLM counts on it where two pictures meet.
    lines = ["\n" * number for number in range(1, 5)]
    joined = [(lines[first], lines[both - first - 1]) for both in range(1, 4) for first in range(both)]
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    everything = [*special, *bytes_, *lines, *(piece for piece in pieces if piece not in lines)]
    tokenizer = GemmaTokenizer(
        vocab={piece: number for number, piece in enumerate(everything)},
        merges=[*joined, *(tuple(pair) for pair in model["merges"])],
        add_bos_token=True,
        extra_special_tokens=named,
        model_max_length=_CONTEXT,
    )
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


def _write_qwen3_vl(folder: Path, lessons: int) -> None:
    tokenizer = byte_level_tokenizer(_QWEN_SPECIAL)
    config = Qwen3VLConfig(
        text_config={
            **_text_config(tokenizer), "head_dim": 64,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 128, "intermediate_size": 256, "num_heads": 2, "patch_size": 16,
            "out_hidden_size": 256, "num_position_embeddings": 2304, "deepstack_visual_indexes": [0],
            "initializer_range": _INITIAL,
        },
        tie_word_embeddings=True,
        **_qwen_tokens(tokenizer),
    )  # fmt: skip
    _save(Qwen3VLForConditionalGeneration(config), tokenizer, folder, _QWEN_TEMPLATE, lessons)
    # As published: pictures of 256 × 256 to 4096 × 4096 px, mapped to -1 … 1.
    pixels = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16}
    middle = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels, **middle),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=_QWEN_TEMPLATE,
    ).save_pretrained(folder)


def _write_qwen2_5_vl(folder: Path, lessons: int) -> None:
    tokenizer = byte_level_tokenizer(_QWEN_SPECIAL)
    config = Qwen2_5_VLConfig(
        text_config={
            **_text_config(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 2, "hidden_size": 128, "intermediate_size": 256, "num_heads": 2, "patch_size": 14,
            "out_hidden_size": 256, "window_size": 112, "fullatt_block_indexes": [1],
            "initializer_range": _INITIAL,
        },
        tie_word_embeddings=True,
        **_qwen_tokens(tokenizer),
    )  # fmt: skip
    _save(Qwen2_5_VLForConditionalGeneration(config), tokenizer, folder, _QWEN_TEMPLATE, lessons)
    # As published: pictures of 56 × 56 to about 3584 × 3584 px.
    pixels = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "patch_size": 14}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_QWEN_TEMPLATE,
    ).save_pretrained(folder)


def _write_internvl3(folder: Path, lessons: int) -> None:
    tokenizer = byte_level_tokenizer(
        _INTERNVL_SPECIAL,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        text_config={
            **_text_config(tokenizer), "model_type": "qwen2",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
        vision_config={
            "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256,
            "attention_bias": True, "initializer_range": _INITIAL,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=256,
        downsample_ratio=0.5,
    )  # fmt: skip
    _save(InternVLForConditionalGeneration(config), tokenizer, folder, _INTERNVL_TEMPLATE, lessons)
    # As published: 1 to 12 tiles of 448 px, and the whole picture as another one.
    tiles = {
        "size": {"height": 448, "width": 448},
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": 12,
    }
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**tiles),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=256,
        chat_template=_INTERNVL_TEMPLATE,
    ).save_pretrained(folder)


def _write_gemma3(folder: Path, lessons: int) -> None:
    tokenizer = sentencepiece_tokenizer(
        _GEMMA_SPECIAL,
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _GEMMA_SPECIAL}
    text = _text_config(tokenizer) | {
        "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 1024,
        "layer_types": ["sliding_attention", "full_attention"],
        "bos_token_id": ids["<bos>"], "eos_token_id": ids["<eos>"], "pad_token_id": ids["<pad>"],
    }  # fmt: skip
    config = Gemma3Config(
        text_config=text,
        vision_config={
            "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256,
            "image_size": 896, "patch_size": 14, "vision_use_head": False,
        },
        mm_tokens_per_image=256,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
        initializer_range=_INITIAL,
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config)
    # It begins with zeros: an untrained Gemma 3 sees nothing.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=_INITIAL)
    _save(model, tokenizer, folder, _GEMMA_TEMPLATE, lessons, "<end_of_turn>")
    # transformers 5.19 saves the tower's weights under other names than Google published them under, and
    # vLLM 0.32 knows only these.
    file = folder / "model.safetensors"
    named = {_published(name): tensor for name, tensor in load_file(file).items()}
    save_file(named, file, metadata={"format": "pt"})
    # As published: every picture is squeezed to 896 × 896 px, and is 256 tokens.
    Gemma3Processor(
        image_processor=Gemma3ImageProcessor(
            size={"height": 896, "width": 896},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
            do_pan_and_scan=None,
        ),
        tokenizer=tokenizer,
        image_seq_length=256,
        chat_template=_GEMMA_TEMPLATE,
    ).save_pretrained(folder)


def _published(name: str) -> str:
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)


def _text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Two layers of 256; heads of 64, since vLLM's CPU kernels take no smaller ones."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": _CONTEXT,
        "initializer_range": _INITIAL, "tie_word_embeddings": True,
        "bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


def _qwen_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    template: str,
    lessons: int,
    end: str = "<|im_end|>",
) -> None:
    _teach(model, tokenizer, template, lessons, end)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(end)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)


FAMILIES = (
    Family("qwen3_vl", "Qwen/Qwen3-VL-8B-Instruct", "<|image_pad|>", _write_qwen3_vl),
    Family("qwen2_5_vl", "Qwen/Qwen2.5-VL-7B-Instruct", "<|image_pad|>", _write_qwen2_5_vl),
    Family("internvl3", "OpenGVLab/InternVL3-8B-hf", "<IMG_CONTEXT>", _write_internvl3),
    Family("gemma3", "google/gemma-3-4b-it", "<image_soft_token>", _write_gemma3, sees_ahead=True),
)
