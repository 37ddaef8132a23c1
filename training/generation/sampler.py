"""From noise to pictures: DPM-Solver multistep with classifier-free guidance.

Guidance leads away from a picture of nobody without text, which is what dropping both conditions in
training means: zeros for the text, the decoder's tokens of the zero image for identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DPMSolverMultistepScheduler
from pydantic import Field
from torch import Tensor, nn

from training.models.constant_attention import constant_conditions
from training.models.identity_attention import set_identity_scale
from training.models.own_precision import own_precision
from training.models.sdxl import VAE_FACTOR
from training.randomness import Purpose, normal, streams
from training.settings import Settings


class SamplingSettings(Settings):
    """The defaults are those of the paper's inference code; it takes guidance 8 for stories."""

    steps: int = Field(50, ge=1, le=1000)
    guidance: float = Field(12.0, ge=1, description="1: none, and half of the work")
    identity_scale: float = Field(0.7, ge=0, description="of identity attention; 1 in training")


@dataclass(frozen=True)
class Conditions:
    """What B pictures are led to.

    text        [B, 77, width] tokens and pooled [B, projection]; `no_text` the same of what guidance leads
                away from, zeros where there is no negative prompt
    identity    [B, tokens, width]; nobody [1, tokens, width]
    """

    text: tuple[Tensor, Tensor]
    no_text: tuple[Tensor, Tensor]
    identity: Tensor
    nobody: Tensor


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """float32 [len(seeds), *shape]: a picture's noise depends on its seed alone, on any device."""
    drawn = torch.cat([streams(seed, 0, ["generated picture"]) for seed in seeds]).to(device)
    return normal(drawn, Purpose.NOISE, shape)


@torch.no_grad()
def sample_latents(
    denoiser: nn.Module,
    conditions: Conditions,
    noise: Tensor,
    settings: SamplingSettings,
    *,
    cache: bool = True,
) -> Tensor:
    """Noise [B, C, h, w] → latents, scaled as the UNet sees them.

    cache   computes keys and values of the conditions once and not in every step; the result is the same
    """
    samples, _, height, width = noise.shape
    guided = settings.guidance > 1
    size = (height * VAE_FACTOR, width * VAE_FACTOR)
    time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=noise.device)
    text, pooled = conditions.text
    identity = conditions.identity
    if guided:
        text, pooled = (torch.cat(pair) for pair in zip(conditions.no_text, conditions.text, strict=True))
        identity = torch.cat([conditions.nobody.expand_as(identity), identity])
    time_ids = time_ids.expand(len(text), -1)
    dtype = denoiser.unet.conv_in.weight.dtype
    context = torch.cat([text.to(dtype), identity.to(dtype)], dim=1)
    scheduler = _scheduler(settings.steps, noise.device)
    latents = noise * scheduler.init_noise_sigma

    def denoised() -> Tensor:
        x = latents
        for timestep in scheduler.timesteps:
            noised = scheduler.scale_model_input(torch.cat([x, x]) if guided else x, timestep)
            at = timestep.expand(len(noised))
            epsilon = denoiser.predict(noised, at, text, pooled, time_ids, identity).float()
            if guided:
                away, towards = epsilon.split(samples)
                epsilon = away + settings.guidance * (towards - away)
            x = scheduler.step(epsilon, timestep, x).prev_sample
        return x

    set_identity_scale(denoiser.unet, settings.identity_scale)
    try:
        if not cache:
            return denoised()
        with constant_conditions(denoiser.unet, context):
            return denoised()
    finally:
        set_identity_scale(denoiser.unet, 1.0)


@torch.no_grad()
def pictures_of(vae: nn.Module, latents: Tensor) -> Tensor:
    """Latents as the VAE made them, [B, C, h, w] → RGB, uint8 [B, 8 h, 8 w, 3], one at a time: decoding
    takes the most memory of all. In the VAE's own dtype; SDXL's first VAE overflows in float16."""
    made = []
    with own_precision(latents.device):
        for one in latents.split(1):
            image = vae.decode(one.to(vae.dtype)).sample
            made.append(((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(made).movedim(1, -1)


def _scheduler(steps: int, device: torch.device) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ 2M on SDXL base's betas, its timesteps spaced as SDXL base's own scheduler has them."""
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    scheduler.set_timesteps(steps, device=device)
    return scheduler
