"""Schedules: what lies between a picture and noise, how a training draws times of it, and how sampling
goes back.

`NoiseSchedule` is the diffusion of Stable Diffusion, whose models predict the noise or v; `FlowSchedule` the
straight line of rectified flow, whose models predict the way from the picture to the noise. `StatedSchedule`
is what a folder's own scheduler says of them.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from training.method_settings import Prediction
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

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network is to predict."""
        ...

    def weighted(self, losses: Tensor, times: Tensor) -> Tensor:
        """float32 [B] losses, each weighted by its time."""
        ...

    def solver(self, steps: int, device: torch.device, places: int = 1) -> Solver:
        """A new solver of so many steps for latents of so many places, height times width; its `timesteps`
        are times."""
        ...


_BETAS = {"linear": 1.0, "scaled_linear": 0.5}  # the power of beta that rises evenly
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "flow_prediction": "flow"}
# Schedulers of diffusers whose noise is that of beta_start, beta_end and beta_schedule.
_OF_BETAS = {
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "TCDScheduler",
    "UniPCMultistepScheduler",
}  # fmt: skip


@dataclass(frozen=True)
class StatedSchedule:
    """What a network was trained to; the defaults are those of SDXL base.

    prediction   what it predicts
    first, last, form   betas of the first and the last time, and how they rise between
    zero_snr     whether they are rescaled so that the last time has no signal
    shift        of flow
    """

    prediction: Prediction = "epsilon"
    first: float = 0.00085
    last: float = 0.012
    form: str = "scaled_linear"
    zero_snr: bool = False
    shift: float = 3.0

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """As diffusers' scheduler/scheduler_config.json says; a folder without one has the defaults.

        Raises ValueError, one line, for a schedule that no training here knows.
        """
        file = folder / "scheduler" / "scheduler_config.json"
        if not file.is_file():
            return cls()
        try:
            config = json.loads(file.read_text())
            if not isinstance(config, dict):
                raise ValueError("is no scheduler's config")
            return cls.of_config(config)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from None

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """Of the config of a scheduler. Raises ValueError."""
        name = config.get("_class_name", "")
        if config.get("num_train_timesteps", TIMESTEPS) != TIMESTEPS:
            raise ValueError(f"{config['num_train_timesteps']} timesteps; a training has {TIMESTEPS}")
        if name == "FlowMatchEulerDiscreteScheduler":
            if config.get("use_dynamic_shifting"):
                raise ValueError("use_dynamic_shifting: a training has one shift")
            return cls(prediction="flow", shift=float(config.get("shift", 1.0)))
        stated, form = config.get("prediction_type", "epsilon"), config.get("beta_schedule", "linear")
        if name not in _OF_BETAS or form not in _BETAS or config.get("trained_betas") is not None:
            raise ValueError(f"{name} with the betas {form}: a training has linear or scaled_linear ones")
        if stated not in _PREDICTIONS or stated == "flow_prediction":
            raise ValueError(f"it predicts {stated}; a training knows epsilon, v_prediction and flow")
        first, last = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
        return cls(_PREDICTIONS[stated], first, last, form, bool(config.get("rescale_betas_zero_snr")))

    def changed(self, prediction: Prediction | None, zero_snr: bool | None, shift: float | None) -> Self:
        """With what is given in place of what is stated."""
        return replace(
            self,
            prediction=self.prediction if prediction is None else prediction,
            zero_snr=self.zero_snr if zero_snr is None else zero_snr,
            shift=self.shift if shift is None else shift,
        )

    def differences(self, stated: "StatedSchedule") -> str:
        """As "prediction is v, the scheduler states epsilon"."""
        return ", ".join(
            f"{name} is {value}, the scheduler states {getattr(stated, name)}"
            for name, value in vars(self).items()
            if value != getattr(stated, name)
        )

    def build(self, min_snr: float | None) -> "NoiseSchedule | FlowSchedule":
        """The schedule. Raises ValueError, one line, for what does not go together."""
        if self.prediction == "flow":
            if min_snr is not None:
                raise ValueError("min_snr weights the times of diffusion; flow has its weights in their draw")
            if self.zero_snr:
                raise ValueError("zero_snr is of diffusion; the last time of flow has no signal anyway")
            return FlowSchedule(self.shift)
        if self.zero_snr and self.prediction == "epsilon":
            raise ValueError("zero_snr: without any signal epsilon says nothing: it takes prediction v")
        return NoiseSchedule(self, min_snr=min_snr)


class NoiseSchedule(nn.Module):
    """Betas that rise over 1,000 steps.

    stated    prediction, epsilon or v (arXiv 2202.00512, appendix D), and the betas
    min_snr   γ of Min-SNR weighting (arXiv 2303.09556); None: every time weighs the same
    """

    signal: Tensor  # float32 [1000], √ᾱ
    noise: Tensor  # float32 [1000], √(1 − ᾱ)

    def __init__(self, stated: StatedSchedule | None = None, *, min_snr: float | None = None) -> None:
        super().__init__()
        self._stated, self._min_snr = stated or StatedSchedule(), min_snr
        kept = torch.cumprod(1 - self._betas(), 0)
        if self._stated.zero_snr:
            kept = _without_last_signal(kept)
        self.register_buffer("signal", kept.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - kept).sqrt().float(), persistent=False)

    def _betas(self) -> Tensor:
        first, last, power = self._stated.first, self._stated.last, _BETAS[self._stated.form]
        return torch.linspace(first**power, last**power, TIMESTEPS, dtype=torch.float64) ** (1 / power)

    def times(self, streams: Tensor) -> Tensor:
        """int64 [B], 0 to 999, none likelier than another."""
        return integers(streams, Purpose.TIMESTEP, TIMESTEPS)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """√ᾱ of the latents and √(1 − ᾱ) of the noise."""
        signal, share = self._shares(times)
        return signal * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The noise (epsilon), or v: √ᾱ of the noise less √(1 − ᾱ) of the latents."""
        if self._stated.prediction == "epsilon":
            return noise
        signal, share = self._shares(times)
        return signal * noise - share * latents

    def weighted(self, losses: Tensor, times: Tensor) -> Tensor:
        """min(SNR, γ) / SNR of the loss of epsilon; min(SNR, γ) / (SNR + 1) of that of v, which for the same
        error of the picture is SNR + 1 times as large."""
        if self._min_snr is None:
            return losses
        snr = self.snr(times)
        return losses * snr.clamp(max=self._min_snr) / (snr + (self._stated.prediction == "v"))

    def snr(self, times: Tensor) -> Tensor:
        """int64 [B] → ᾱ / (1 − ᾱ), float32 [B]."""
        return (self.signal[times] / self.noise[times]) ** 2

    def solver(self, steps: int, device: torch.device, places: int = 1) -> Solver:
        """DPM-Solver++ 2M, its timesteps spaced as SDXL base's own scheduler has them; from the last time on
        where that one has no signal (arXiv 2305.08891, section 3.3)."""
        stated = self._stated
        solver = DPMSolverMultistepScheduler(
            beta_start=stated.first,
            beta_end=stated.last,
            beta_schedule=stated.form,
            prediction_type="v_prediction" if stated.prediction == "v" else "epsilon",
            rescale_betas_zero_snr=stated.zero_snr,
            timestep_spacing="trailing" if stated.zero_snr else "leading",
            steps_offset=1,
        )
        solver.set_timesteps(steps, device=device)
        return solver

    def _shares(self, times: Tensor) -> tuple[Tensor, Tensor]:
        signal, share = (x[times].view(-1, 1, 1, 1) for x in (self.signal, self.noise))
        return signal, share


def _without_last_signal(kept: Tensor) -> Tensor:
    """float64 [1000] ᾱ: √ᾱ moved so that the last is 0 and stretched so that the first stays
    (arXiv 2305.08891, algorithm 1)."""
    root = kept.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class FlowSchedule:
    """Rectified flow (arXiv 2209.03003): x = (1 − σ) · latents + σ · noise, times are 1000 · σ.

    shift      of σ towards noise (arXiv 2403.03206, section 5.3.2): σ' = shift · σ / (1 + (shift − 1) · σ),
               in training and in sampling alike. σ itself is drawn logit-normal (section 3.1 there)
    sampling   the shift in sampling, of (places of a latent, steps), where it is another
    """

    def __init__(self, shift: float, sampling: Callable[[int, int], float] | None = None) -> None:
        self._shift, self._sampling = shift, sampling

    def times(self, streams: Tensor) -> Tensor:
        """float32 [B], above 0 and below 1000."""
        sigma = torch.sigmoid(normal(streams, Purpose.TIMESTEP, (1,))[:, 0])
        return TIMESTEPS * self._shift * sigma / (1 + (self._shift - 1) * sigma)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """A place on the line from the latents to the noise."""
        sigma = (times / TIMESTEPS).view(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The way from the latents to the noise (velocity)."""
        return noise - latents

    def weighted(self, losses: Tensor, times: Tensor) -> Tensor:
        """All weigh the same: the draw of times is the weighting."""
        return losses

    def solver(self, steps: int, device: torch.device, places: int = 1) -> Solver:
        """Euler's steps. With a shift of sampling they are even from 1 to 1 / steps before it is applied."""
        if self._sampling is not None:
            mu = math.log(self._sampling(places, steps))
            solver = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, use_dynamic_shifting=True)
            solver.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu, device=device)
            return solver
        solver = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=self._shift)
        solver.set_timesteps(steps, device=device)
        return solver
