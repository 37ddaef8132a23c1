"""FLUX.2 klein: text, the picture and pictures of reference stand in one sequence of a transformer.

Shapes, places and the shift of sampling are those of diffusers' Flux2KleinPipeline (0.42.1).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.bases.base import Base, Denoiser, Text
from training.bases.flux2_attention import set_references_apart
from training.bases.flux2_layout import bfl_tensors
from training.bases.flux2_parts import (
    Grid,
    TextEncoder,
    build_transformer,
    flux2_tokeniser,
    flux2_vae,
    places_of,
    text_places,
)
from training.bases.schedules import TIMESTEPS, FlowSchedule
from training.bases.vae import PackedVae
from training.batch import Field
from training.captions import Tokenise
from training.method_settings import Flux2Denoising, Flux2Settings
from training.models.local_weights import cast, keep_on_host, lent, own_precision
from training.models.lora import install_lora, own_tensors, peft_tensors
from training.models.quantised import quantise_linears
from training.released_layout import copy_exactly

_FIRST_REFERENCE, _BETWEEN_REFERENCES = 10, 10  # numbers of pictures; that of the target is 0


def sampling_shift(tokens: int, steps: int) -> float:
    """Of σ towards noise for pictures of so many tokens in so many steps.

    e^μ with diffusers' `compute_empirical_mu`: μ is a line over tokens for 10 steps and another for 200,
    between and beyond which it is linear in steps; above 4,300 tokens that of 200 counts for any number.
    """
    at_200 = 0.00016927 * tokens + 0.45666666
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    part = 1.0 if tokens > 4300 else (steps - 10) / 190
    return math.exp(at_10 + (at_200 - at_10) * part)


class Flux2(Base):
    """The base."""

    name, kind, denoising_kind = "flux2", Flux2Settings, Flux2Denoising
    scales_identity, takes_pictures, draws_latents = True, True, False
    vae: PackedVae

    def __init__(self, settings: Flux2Settings, denoising: Flux2Denoising) -> None:
        super().__init__(settings, denoising)
        if denoising.tune_transformer and denoising.lora is not None:
            raise ValueError("denoising: tune_transformer trains all of it: lora must be none then")
        self.vae = flux2_vae(settings)

    @property
    def size_step_px(self) -> int:
        """A packed latent is a token: any number of them will do."""
        return self.vae.factor

    @property
    def token_width(self) -> int | None:
        """Of a token of a picture: the channels of a packed latent."""
        return self.vae.channels

    def tokeniser(self) -> Tokenise:
        """Qwen's, or hashed words for a text encoder with random weights."""
        return flux2_tokeniser(self.settings)

    def text_fields(self) -> list[Field]:
        """Ids, and which of them are none of padding."""
        return [Field("caption_ids", (2, self.settings.text_tokens), torch.int64)]

    def build(
        self, frozen_dtype: torch.dtype, tokens: int, grids: Sequence[Grid] | None = None
    ) -> "Flux2Denoiser":
        """Transformer, text encoder and VAE. Without grids, identity tokens are a picture of one row."""
        return Flux2Denoiser(self, frozen_dtype, [(1, tokens)] if grids is None else grids)

    def released_names(self, paths: Iterable[str]) -> dict[str, str]:
        """The paths themselves: transformer.…, as diffusers has them, with PEFT's names of LoRA."""
        return {path: path for path in paths}

    def released(self, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of LoRA the scale lies within B."""
        return super().released(peft_tensors(trained, self.lora_scale))

    def other_layouts(self) -> dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]:
        """comfyui: the names of Black Forest Labs."""
        return {"comfyui": bfl_tensors}

    @property
    def lora_scale(self) -> float:
        """What the change of a layer counts."""
        return 1.0 if self.denoising.lora is None else self.denoising.lora.scale


class Flux2Denoiser(Denoiser):
    """Transformer, text encoder and VAE.

    grids   of the pictures that identity tokens are of
    """

    latent_mean: Tensor  # float32 [C, 1, 1]
    latent_std: Tensor
    places: Tensor  # float32 [tokens, 4], of identity tokens
    no_text: Tensor  # [1, tokens, width], of the empty caption

    def __init__(self, base: Flux2, frozen_dtype: torch.dtype, grids: Sequence[Grid]) -> None:
        schedule = FlowSchedule(base.denoising.flow_shift, sampling_shift)
        super().__init__(base, schedule, frozen_dtype)
        denoising, self._lora_scale, self._identity_scale = base.denoising, base.lora_scale, 1.0
        self._keeps, self._kept = False, None  # keys and values of the references of a generation
        self.text_encoder = cast(TextEncoder(base.settings), frozen_dtype)
        self.transformer = build_transformer(base.settings, base.vae.channels)
        if denoising.tune_transformer:
            self.transformer.requires_grad_(True)
        else:
            cast(self.transformer, frozen_dtype)
        if denoising.quantise is not None:
            quantise_linears(self.transformer, denoising.quantise)
        if denoising.lora is not None:
            install_lora(self.transformer, denoising.lora)
        if denoising.references_apart:
            set_references_apart(self.transformer)
        if denoising.checkpoint_activations:
            self.transformer.enable_gradient_checkpointing()
        mean, std = base.vae.normalisation()
        weight = self.transformer.x_embedder.weight
        ids = torch.from_numpy(np.asarray(base.tokeniser()("")))[None].to(weight.device)
        for name, constant in (
            ("latent_mean", mean[:, None, None]),
            ("latent_std", std[:, None, None]),
            ("places", places_of(grids, _FIRST_REFERENCE, _BETWEEN_REFERENCES)),
            ("no_text", self.text_encoder(ids)),
        ):
            self.register_buffer(name, constant, persistent=False)
        if denoising.offload_encoders:
            keep_on_host(self, "text_encoder")

    @property
    def token_width(self) -> int:
        """Channels of a packed latent."""
        return int(self.base.vae.channels)

    def text(self, fields: Mapping[str, Tensor]) -> Text:
        """One tensor, [B, tokens, width]."""
        ids = fields["caption_ids"]
        with lent(self, "text_encoder", ids.device) as encoder:
            return (encoder(ids),)

    def keep_text(self, text: Text, keep: Tensor) -> Text:
        """Text that is left out is that of the empty caption: so FLUX.2 is guided."""
        return (torch.where(keep[:, None, None], text[0], self.no_text.to(text[0].dtype)),)

    def scaled(self, latents: Tensor) -> Tensor:
        """Normalised channel by channel."""
        return (latents - self.latent_mean) / self.latent_std

    def unscaled(self, latents: Tensor) -> Tensor:
        """Back to what the VAE gave."""
        return latents * self.latent_std + self.latent_mean

    def predict(self, noised: Tensor, times: Tensor, text: Text, identity: Tensor) -> Tensor:
        """The velocity, at times of 0 to 1000. An identity token of zeros is a missing one: nothing attends
        to it, so the result is that of a sequence without it."""
        rows, columns = noised.shape[2:]
        device, dtype = noised.device, self.transformer.x_embedder.weight.dtype
        tokens, picture = text[0].to(dtype), noised.flatten(2).transpose(1, 2).to(dtype)
        places = places_of([(rows, columns)], 0, 1, device)
        mask = self._mask(tokens, identity, len(places))
        asked: dict[str, Any] = {}
        if self.base.denoising.references_apart:
            mode = "extract" if self._kept is None else "cached"
            asked = {"kv_cache_mode": mode, "kv_cache": self._kept, "num_ref_tokens": len(self.places)}
        if self._kept is None:
            picture = torch.cat([identity.to(dtype), picture], dim=1)
            places = torch.cat([self.places, places])
        with own_precision(device, own=not self.base.denoising.tune_transformer):
            made, *kept = self.transformer(
                hidden_states=picture,
                encoder_hidden_states=tokens,
                timestep=times / TIMESTEPS,
                img_ids=places,
                txt_ids=text_places(tokens.shape[1], device),
                joint_attention_kwargs={"attention_mask": mask[:, None, None]},
                return_dict=False,
                **asked,
            )
        if kept and self._keeps:
            (self._kept,) = kept
        return made[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))

    def _mask(self, text: Tensor, identity: Tensor, places: int) -> Tensor:
        """[B, n, width], [B, tokens, C] and the target's places → [B, all]: whether a token is attended to;
        or by how much more, where identity is scaled: by the logarithm (arXiv 2411.15098)."""
        scale = self._identity_scale
        there = (identity != 0).any(-1) & (scale > 0)
        before, behind = text.shape[1], places
        mask = nn.functional.pad(there, (before, behind), value=True)
        if scale in (0, 1):
            return mask
        more = torch.full_like(there, math.log(scale), dtype=text.dtype)
        return nn.functional.pad(more, (before, behind)).masked_fill(~mask, -torch.inf)

    @contextmanager
    def generating(
        self, text: Text, identity: Tensor, *, identity_scale: float, cache: bool
    ) -> Iterator[None]:
        """Keys and values of references that stand apart are computed once. Otherwise nothing is: what they
        are to a layer depends on the noisy picture, which they attend to, and on the time."""
        self._identity_scale, self._keeps = identity_scale, cache
        try:
            yield
        finally:
            self._identity_scale, self._keeps, self._kept = 1.0, False, None

    def trained(self) -> dict[str, nn.Parameter]:
        """LoRA, or the transformer."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def blocks(self) -> list[nn.Module]:
        """The transformer's, double ones first."""
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]

    def load_released(self, tensors: Mapping[str, Tensor]) -> None:
        """Everything that begins with transformer."""
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("transformer.")}
        copy_exactly(self.trained(), own_tensors(own, self._lora_scale), "transformer")
