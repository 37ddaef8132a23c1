"""The parts of Stable Diffusion XL from a folder or from sizes: UNet, text encoders, tokenizers, VAE."""

import json
import threading
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from training.bases.vae import DiffusersVae
from training.captions import HashedWords, Tokenise
from training.method_settings import SdxlSettings, TextSettings
from training.models.local_weights import (
    DIFFUSERS,
    WeightsError,
    freeze,
    from_folder,
    own_precision,
    same_random_weights,
)

TEXT_TOKENS = 77


def sdxl_vae(settings: SdxlSettings) -> DiffusersVae:
    """Of the folder for VAEs, else of the base's folder, else with random weights."""
    folder = None if settings.folder is None else Path(settings.folder) / "vae"
    return DiffusersVae(
        folder if settings.vae_folder is None else Path(settings.vae_folder),
        {
            "block_out_channels": settings.vae_channels,
            "layers_per_block": settings.vae_layers,
            "latent_channels": settings.latent_channels,
            "norm_num_groups": min(settings.norm_groups, *settings.vae_channels),
            "scaling_factor": settings.latent_scale,
        },
    )


def unet_blocks(settings: SdxlSettings) -> int:
    """Blocks of the UNet: those of the folder's config; of a folder without one, which cannot be loaded, and
    of random weights those of the settings. Raises WeightsError for a config that does not say."""
    config = None if settings.folder is None else Path(settings.folder) / "unet" / "config.json"
    if config is None or not config.is_file():
        return len(settings.channels)
    try:
        return len(json.loads(config.read_text())["block_out_channels"])
    except (OSError, ValueError, KeyError, TypeError):
        raise WeightsError(f"{config}: no config of a UNet with block_out_channels") from None


def sdxl_tokeniser(settings: SdxlSettings) -> Tokenise:
    """The folder's tokenizers, or hashed words where the text encoders have random weights; int64 [2, 77],
    a row for each text encoder. Raises WeightsError."""
    if settings.folder is not None:
        return ClipTokenizers(settings.folder)
    return HashedWords(min(settings.text.vocabulary, settings.text_2.vocabulary), (2, TEXT_TOKENS))


class ClipTokenizers:
    """The tokenizers of a local diffusers folder (`tokenizer`, `tokenizer_2`). Raises WeightsError."""

    def __init__(self, folder: str) -> None:
        from transformers import CLIPTokenizer  # takes seconds, and not all need it

        try:
            self._tokenizers = [
                CLIPTokenizer.from_pretrained(folder, subfolder=part, local_files_only=True)
                for part in ("tokenizer", "tokenizer_2")
            ]
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder}: no tokenizers: {str(error).splitlines()[0]}") from None
        # Padding and truncation are state of a tokenizer: two threads must not set it at once.
        self._lock = threading.Lock()

    def __call__(self, caption: str) -> np.ndarray:
        """int64 [2, 77]; longer captions are cut."""
        with self._lock:
            rows = [
                tokenizer(caption, max_length=TEXT_TOKENS, padding="max_length", truncation=True).input_ids
                for tokenizer in self._tokenizers
            ]
        return np.array(rows, np.int64)


def build_unet(settings: SdxlSettings) -> nn.Module:
    """UNet2DConditionModel, frozen. Raises WeightsError where the folder cannot be read."""
    if settings.folder is not None:
        return freeze(from_folder(UNet2DConditionModel.from_pretrained, settings.folder, "unet", **DIFFUSERS))
    depths = settings.transformer_depths
    with same_random_weights():
        unet = UNet2DConditionModel(
            in_channels=settings.latent_channels,
            out_channels=settings.latent_channels,
            down_block_types=["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
            up_block_types=["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
            block_out_channels=settings.channels,
            layers_per_block=settings.layers_per_block,
            transformer_layers_per_block=[max(depth, 1) for depth in depths],
            # diffusers calls the number of heads attention_head_dim.
            attention_head_dim=[max(width // settings.head_width, 1) for width in settings.channels],
            norm_num_groups=settings.norm_groups,
            cross_attention_dim=settings.token_width,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=settings.time_id_width,
            projection_class_embeddings_input_dim=6 * settings.time_id_width + settings.text_2.projection,
        )
    return freeze(unet)


class TextEncoders(nn.Module):
    """Both frozen text encoders of SDXL."""

    def __init__(self, settings: SdxlSettings) -> None:
        super().__init__()
        if settings.folder is not None:
            first = from_folder(CLIPTextModel.from_pretrained, settings.folder, "text_encoder")
            second = from_folder(
                CLIPTextModelWithProjection.from_pretrained, settings.folder, "text_encoder_2"
            )
        else:
            with same_random_weights():
                first = CLIPTextModel(_clip_config(settings.text))
                second = CLIPTextModelWithProjection(_clip_config(settings.text_2))
        self.first, self.second = freeze(first), freeze(second)

    @torch.no_grad()
    def forward(self, caption_ids: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B, 2, 77], a row for each encoder's tokenizer → tokens [B, 77, width] of the layers before
        the last, side by side, and the second encoder's pooled vector [B, projection]."""
        with own_precision(caption_ids.device):
            first = self.first(caption_ids[:, 0], output_hidden_states=True)
            second = self.second(caption_ids[:, 1], output_hidden_states=True)
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return tokens, second.text_embeds


def _clip_config(settings: TextSettings) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        intermediate_size=settings.mlp_width,
        hidden_act=settings.activation,
        projection_dim=settings.projection,
        max_position_embeddings=TEXT_TOKENS,
        # SDXL's own configs say 2, which transformers reads as "the largest id ends the text".
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
