"""What recipes on Stable Diffusion XL share: its frozen parts and the loss of predicting noise."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field as Setting
from torch import Tensor, nn

from training.batch import Field
from training.models.identity_attention import install_identity_attention
from training.models.local_weights import cast
from training.models.noise_schedule import TIMESTEPS, NoiseSchedule
from training.models.own_precision import own_precision
from training.models.sdxl import (
    TEXT_TOKENS,
    VAE_FACTOR,
    SdxlSettings,
    TextEncoders,
    build_unet,
)
from training.models.vae import build_vae, latent_scale, moments_of
from training.randomness import Purpose, integers, normal
from training.settings import Settings


class DenoisingSettings(Settings):
    """The loss; the defaults are the plain mean squared error on epsilon."""

    min_snr: float | None = Setting(None, gt=0, description="γ of Min-SNR weighting (arXiv 2303.09556); 5")
    noise_offset: float = Setting(0.0, ge=0, description="noise of a whole channel besides; 0.05 is usual")
    person_weight: float = Setting(1.0, ge=0, description="of an error on the person, background being 1")
    cached_latents: bool = Setting(False, description="read target_latents; there is no VAE then")
    tune_unet: bool = Setting(False, description="train the UNet too")
    checkpoint_activations: bool = Setting(False, description="compute the UNet's activations twice")

    def with_latents(self) -> "DenoisingSettings":
        """The same, reading latents."""
        return self.model_copy(update={"cached_latents": True})


class Denoiser(nn.Module):
    """UNet with identity attention, text encoders and VAE: tokens of identity → each sample's loss."""

    def __init__(
        self, sdxl: SdxlSettings, settings: DenoisingSettings, tokens: int, frozen_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.settings = settings
        self.schedule = NoiseSchedule()
        self.texts = cast(TextEncoders(sdxl), frozen_dtype)
        self.latent_scale = latent_scale(sdxl)
        self.vae = None if settings.cached_latents else cast(build_vae(sdxl), frozen_dtype)
        self.unet = build_unet(sdxl)
        if settings.tune_unet:
            self.unet.requires_grad_(True)
        else:
            cast(self.unet, frozen_dtype)
        if settings.checkpoint_activations:
            self.unet.enable_gradient_checkpointing()
        install_identity_attention(self.unet, tokens)

    def forward(
        self, fields: Mapping[str, Tensor], streams: Tensor, identity: Tensor, keep_text: Tensor
    ) -> Tensor:
        """Fields (see `denoising_fields`), int64 [B], [B, tokens, width], bool [B] → float32 [B].

        Text that is left out is zero, tokens and pooled vector: so SDXL itself was trained.
        """
        latents = self._latents(fields, streams)
        shape = latents.shape[1:]
        noise = normal(streams, Purpose.NOISE, shape)
        if self.settings.noise_offset:
            offset = normal(streams, Purpose.NOISE_OFFSET, (shape[0], 1, 1))
            noise = noise + self.settings.noise_offset * offset
        timesteps = integers(streams, Purpose.TIMESTEP, TIMESTEPS)
        text, pooled = self.texts(fields["caption_ids"])
        text = text * keep_text[:, None, None]
        pooled = pooled * keep_text[:, None]
        epsilon = self.predict(
            self.schedule(latents, noise, timesteps), timesteps, text, pooled, fields["time_ids"], identity
        )
        return self._loss(epsilon, noise, timesteps, fields.get("person"))

    def predict(
        self,
        noised: Tensor,
        timesteps: Tensor,
        text: Tensor,
        pooled: Tensor,
        time_ids: Tensor,
        identity: Tensor,
    ) -> Tensor:
        """[B, C, h, w] at int64 [B] → epsilon [B, C, h, w].

        text [B, 77, width], pooled [B, projection], time_ids [B, 6], identity [B, tokens, width]
        """
        dtype = self.unet.conv_in.weight.dtype
        with own_precision(noised.device, own=not self.settings.tune_unet):
            return self.unet(
                noised.to(dtype),
                timesteps,
                encoder_hidden_states=torch.cat([text.to(dtype), identity.to(dtype)], dim=1),
                added_cond_kwargs={"text_embeds": pooled.to(dtype), "time_ids": time_ids},
            ).sample

    def _latents(self, fields: Mapping[str, Tensor], streams: Tensor) -> Tensor:
        """Drawn from what the VAE gave, now or when the dataset was made, and scaled for the UNet."""
        if self.vae is None:
            mean, std = fields["target_latents"].unbind(1)
        else:
            mean, std = moments_of(self.vae, fields["target"])
        noise = normal(streams, Purpose.LATENT, mean.shape[1:])
        return (mean + std * noise) * self.latent_scale

    def _loss(self, epsilon: Tensor, noise: Tensor, timesteps: Tensor, person: Tensor | None) -> Tensor:
        error = (epsilon.float() - noise) ** 2
        if person is None:
            loss = error.mean(dim=(1, 2, 3))
        else:
            weight = (1 + (self.settings.person_weight - 1) * person).expand_as(error)
            loss = (weight * error).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)
        if self.settings.min_snr is not None:
            snr = self.schedule.snr(timesteps)
            loss = loss * snr.clamp(max=self.settings.min_snr) / snr
        return loss


def denoising_fields(
    sdxl: SdxlSettings, settings: DenoisingSettings, height_px: int, width_px: int
) -> Sequence[Field]:
    """What a `Denoiser` reads: caption_ids, time_ids, the target, and the person where it is weighted.

    caption_ids      both tokenizers' ids of the caption
    time_ids         height and width of the source, top and left of the crop, height and width of the
                     target, px (SDXL's micro-conditioning)
    target           RGB; or target_latents: mean and standard deviation as the VAE gave them, not scaled
    person           share of each latent pixel that is the person, 0 to 1
    """
    height, width = height_px // VAE_FACTOR, width_px // VAE_FACTOR
    fields = [
        Field("caption_ids", (2, TEXT_TOKENS), torch.int64),
        Field("time_ids", (6,), torch.float32),
        Field("target_latents", (2, sdxl.latent_channels, height, width), torch.float32)
        if settings.cached_latents
        else Field("target", (height_px, width_px, 3), torch.uint8),
    ]
    if settings.person_weight != 1:
        fields.append(Field("person", (1, height, width), torch.float32))
    return fields


def processor_parameters(module: nn.Module, settings: DenoisingSettings) -> dict[str, nn.Parameter]:
    """By module path: the identity attention of `module.denoiser`, and its UNet where that is tuned."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if name.startswith("denoiser.unet.") and (settings.tune_unet or ".processor." in name)
    }


def transformer_blocks(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks of `module.denoiser.unet`."""
    found = []
    for name, child in module.denoiser.unet.named_modules():
        if name.rsplit(".", 2)[-2:-1] == ["transformer_blocks"]:
            found.append(child)
    return found
