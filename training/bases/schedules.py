"""Schedules: what lies between a picture and noise, how a training draws times of it, and how sampling
goes back.

`NoiseSchedule` is the diffusion of Stable Diffusion, whose models predict the noise; `FlowSchedule` the
straight line of rectified flow, whose models predict the way from the picture to the noise.
"""

from typing import Any, Protocol

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from training.randomness import Purpose, integers, normal

TIMESTEPS = 1000


class Solver(Protocol):
    """A scheduler of diffusers, ready for so many steps; it begins with noise of variance 1."""

    timesteps: Tensor

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any:
        """An object whose `prev_sample` is the sample one step nearer to a picture."""
        ...


class Schedule(Protocol):
    """Latents and noise are float [B, C, h, w]; times [B] are as the base's network takes them."""

    def times(self, streams: Tensor) -> Tensor:
        """int64 [B] random streams → times [B] to train at."""
        ...

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network is given."""
        ...

    def target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """What the network is to predict."""
        ...

    def weighted(self, losses: Tensor, times: Tensor) -> Tensor:
        """float32 [B] losses, each weighted by its time."""
        ...

    def solver(self, steps: int, device: torch.device) -> Solver:
        """A new solver of so many steps; its `timesteps` are times."""
        ...


class NoiseSchedule(nn.Module):
    """Betas from 0.00085 to 0.012, linear in their square roots, over 1,000 steps (SDXL base).

    min_snr   γ of Min-SNR weighting (arXiv 2303.09556); None: every time weighs the same
    """

    signal: Tensor  # float32 [1000], √ᾱ
    noise: Tensor  # float32 [1000], √(1 − ᾱ)

    def __init__(self, first: float = 0.00085, last: float = 0.012, *, min_snr: float | None = None) -> None:
        super().__init__()
        self._betas, self._min_snr = (first, last), min_snr
        betas = torch.linspace(first**0.5, last**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        kept = torch.cumprod(1 - betas, 0)
        self.register_buffer("signal", kept.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - kept).sqrt().float(), persistent=False)

    def times(self, streams: Tensor) -> Tensor:
        """int64 [B], 0 to 999, none likelier than another."""
        return integers(streams, Purpose.TIMESTEP, TIMESTEPS)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """√ᾱ of the latents and √(1 − ᾱ) of the noise."""
        signal, share = (x[times].view(-1, 1, 1, 1) for x in (self.signal, self.noise))
        return signal * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The noise (epsilon)."""
        return noise

    def weighted(self, losses: Tensor, times: Tensor) -> Tensor:
        """min(SNR, γ) / SNR of the loss."""
        if self._min_snr is None:
            return losses
        snr = self.snr(times)
        return losses * snr.clamp(max=self._min_snr) / snr

    def snr(self, times: Tensor) -> Tensor:
        """int64 [B] → ᾱ / (1 − ᾱ), float32 [B]."""
        return (self.signal[times] / self.noise[times]) ** 2

    def solver(self, steps: int, device: torch.device) -> Solver:
        """DPM-Solver++ 2M, its timesteps spaced as SDXL base's own scheduler has them."""
        first, last = self._betas
        solver = DPMSolverMultistepScheduler(
            beta_start=first,
            beta_end=last,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        )
        solver.set_timesteps(steps, device=device)
        return solver


class FlowSchedule:
    """Rectified flow (arXiv 2209.03003): x = (1 − σ) · latents + σ · noise, times are 1000 · σ.

    shift   of σ towards noise (arXiv 2403.03206, section 5.3.2): σ' = shift · σ / (1 + (shift − 1) · σ), in
            training and in sampling alike. σ itself is drawn logit-normal (section 3.1 there)
    """

    def __init__(self, shift: float) -> None:
        self._shift = shift

    def times(self, streams: Tensor) -> Tensor:
        """float32 [B], above 0 and below 1000."""
        sigma = torch.sigmoid(normal(streams, Purpose.TIMESTEP, (1,))[:, 0])
        return TIMESTEPS * self._shift * sigma / (1 + (self._shift - 1) * sigma)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """A place on the line from the latents to the noise."""
        sigma = (times / TIMESTEPS).view(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The way from the latents to the noise (velocity)."""
        return noise - latents

    def weighted(self, losses: Tensor, times: Tensor) -> Tensor:
        """All weigh the same: the draw of times is the weighting."""
        return losses

    def solver(self, steps: int, device: torch.device) -> Solver:
        """Euler's steps."""
        solver = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=self._shift)
        solver.set_timesteps(steps, device=device)
        return solver
