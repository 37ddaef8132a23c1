"""The forward diffusion of Stable Diffusion: what a timestep keeps of signal and adds of noise."""

import torch
from torch import Tensor, nn

TIMESTEPS = 1000


class NoiseSchedule(nn.Module):
    """Betas from 0.00085 to 0.012, linear in their square roots, over 1,000 steps (SDXL base)."""

    signal: Tensor  # float32 [1000], √ᾱ
    noise: Tensor  # float32 [1000], √(1 − ᾱ)

    def __init__(self, first: float = 0.00085, last: float = 0.012) -> None:
        super().__init__()
        betas = torch.linspace(first**0.5, last**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        kept = torch.cumprod(1 - betas, 0)
        self.register_buffer("signal", kept.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - kept).sqrt().float(), persistent=False)

    def forward(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Float [B, C, h, w] twice and int64 [B] → the noised latents."""
        signal, share = (x[timesteps].view(-1, 1, 1, 1) for x in (self.signal, self.noise))
        return signal * latents + share * noise

    def snr(self, timesteps: Tensor) -> Tensor:
        """int64 [B] → ᾱ / (1 − ᾱ), float32 [B]."""
        return (self.signal[timesteps] / self.noise[timesteps]) ** 2
