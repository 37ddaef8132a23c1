"""The parts of FLUX.2 klein from a folder or from sizes: transformer, text encoder, tokenizer, VAE."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from training.bases.vae import PackedVae
from training.captions import HashedWords, Tokenise
from training.method_settings import Flux2Settings, Qwen3Settings
from training.models.local_weights import (
    DIFFUSERS,
    WeightsError,
    freeze,
    from_folder,
    own_precision,
    same_random_weights,
)

Grid = tuple[int, int]
"""Height and width of a picture in tokens."""


def flux2_vae(settings: Flux2Settings) -> PackedVae:
    """Of the folder for VAEs, else of the base's folder, else with random weights. Raises WeightsError."""
    folder = None if settings.folder is None else Path(settings.folder) / "vae"
    return PackedVae(
        folder if settings.vae_folder is None else Path(settings.vae_folder),
        {
            "block_out_channels": settings.vae_channels,
            "layers_per_block": settings.vae_layers,
            "latent_channels": settings.latent_channels,
            "norm_num_groups": min(settings.vae_norm_groups, *settings.vae_channels),
        },
    )


def build_transformer(settings: Flux2Settings, channels: int) -> nn.Module:
    """Flux2Transformer2DModel for tokens of so many channels, frozen.

    Raises WeightsError where the folder cannot be read, or is of another kind of model.
    """
    if settings.folder is not None:
        transformer = freeze(
            from_folder(Flux2Transformer2DModel.from_pretrained, settings.folder, "transformer", **DIFFUSERS)
        )
        config = transformer.config
        if config.guidance_embeds:
            raise WeightsError(f"{settings.folder}: its guidance is distilled into it: no base to train on")
        if config.in_channels != channels:
            raise WeightsError(
                f"{settings.folder}: the transformer takes {config.in_channels} channels, the VAE's packed "
                f"latents have {channels}"
            )
        return transformer
    with same_random_weights():
        transformer = Flux2Transformer2DModel(
            in_channels=channels,
            num_layers=settings.double_blocks,
            num_single_layers=settings.single_blocks,
            attention_head_dim=settings.head_width,
            num_attention_heads=settings.heads,
            joint_attention_dim=settings.text_width,
            timestep_guidance_channels=settings.time_width,
            mlp_ratio=settings.mlp_ratio,
            axes_dims_rope=settings.rope_widths,
            rope_theta=settings.rope_theta,
            guidance_embeds=False,
        )
    return freeze(transformer)


class TextEncoder(nn.Module):
    """Qwen3 up to the deepest layer that is read, frozen. Raises WeightsError."""

    def __init__(self, settings: Flux2Settings) -> None:
        super().__init__()
        self._layers = settings.text_layers
        depth = max(settings.text_layers)
        if settings.folder is not None:
            model = from_folder(Qwen3Model.from_pretrained, settings.folder, "text_encoder")
            if len(model.layers) < depth:
                raise WeightsError(
                    f"{settings.folder}/text_encoder: {len(model.layers)} layers, {depth} are read"
                )
        else:
            with same_random_weights():
                model = Qwen3Model(_qwen3_config(settings.text, depth))
        # What the last layer gives is read as the others are: before the norm that ends the model.
        model.layers, model.norm, model.config.num_hidden_layers = model.layers[:depth], nn.Identity(), depth
        self.model = freeze(model)

    @torch.no_grad()
    def forward(self, caption_ids: Tensor) -> Tensor:
        """int64 [B, 2, tokens], ids and which of them are none of padding (not 0) → [B, tokens, width] of
        each layer that is read, side by side."""
        ids, there = caption_ids.unbind(1)
        # transformers would look whether any token is padding, and wait for the device to know.
        mask = {"full_attention": _causal_mask(there != 0)}
        with own_precision(ids.device):
            found = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return torch.cat([found.hidden_states[layer] for layer in self._layers], dim=-1)


def _causal_mask(there: Tensor) -> Tensor:
    """bool [B, T], none of padding → bool [B, 1, T, T]: a token attends to those before it and itself, none
    to padding, but for padding before the first token, which attends to itself."""
    before = torch.ones(there.shape[1], there.shape[1], dtype=torch.bool, device=there.device).tril()
    mask = before & there[:, None, :]
    itself = torch.eye(there.shape[1], dtype=torch.bool, device=there.device)
    return (mask | (itself & ~mask.any(-1, keepdim=True)))[:, None]


def _qwen3_config(settings: Qwen3Settings, depth: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=depth,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_heads,
        head_dim=settings.head_width,
        intermediate_size=settings.mlp_width,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )


def flux2_tokeniser(settings: Flux2Settings) -> Tokenise:
    """The folder's tokenizer, or hashed words where the text encoder has random weights; int64 [2, tokens]:
    ids, and which of them are none of padding. Raises WeightsError."""
    if settings.folder is not None:
        return ChatTokenizer(settings.folder, settings.text_tokens)
    return HashedWords(settings.text.vocabulary, (2, settings.text_tokens))


class ChatTokenizer:
    """The tokenizer of a local diffusers folder: a caption is what a user says in a chat, without thinking.

    Raises WeightsError.
    """

    def __init__(self, folder: str, tokens: int) -> None:
        from transformers import AutoTokenizer  # takes seconds, and not all need it

        self._tokens = tokens
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, subfolder="tokenizer", local_files_only=True
            )
            # Padding and truncation are state of a tokenizer: two threads must not set it at once.
            self._lock = threading.Lock()
            self("")  # a tokenizer without a chat template, or without padding, is no use
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{folder}: no tokenizer: {str(error).splitlines()[0]}") from None

    def __call__(self, caption: str) -> np.ndarray:
        """int64 [2, tokens]; longer captions are cut."""
        said = [{"role": "user", "content": caption}]
        with self._lock:
            text = self._tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            found = self._tokenizer(text, padding="max_length", truncation=True, max_length=self._tokens)
        return np.array([found.input_ids, found.attention_mask], np.int64)


def places_of(grids: Sequence[Grid], first: int, step: int, device: torch.device | None = None) -> Tensor:
    """float32 [tokens, 4]: (number of the picture, row, column, 0) of the tokens of pictures, row by row;
    numbers begin with `first` and rise by `step`."""
    made = []
    for place, (rows, columns) in enumerate(grids):
        number = first + step * place
        made.append(_product((number, number + 1), (0, rows), (0, columns), (0, 1), device))
    return torch.cat(made)


def text_places(tokens: int, device: torch.device) -> Tensor:
    """float32 [tokens, 4]: (0, 0, 0, place) of a caption's tokens."""
    return _product((0, 1), (0, 1), (0, 1), (0, tokens), device)


def _product(*ranges: Any) -> Tensor:
    *ends, device = ranges
    return torch.cartesian_prod(*(torch.arange(*end, dtype=torch.float32, device=device) for end in ends))
