"""From noise to latents by the base's own solver, with classifier-free guidance.

Guidance leads away from a picture of nobody without text, which is what dropping both conditions in
training means to the base and to the recipe; or, where the recipe says so, from one without text alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.bases.base import Denoiser, Text
from training.randomness import Purpose, normal, streams
from training.run_settings import SamplingSettings


@dataclass(frozen=True)
class Conditions:
    """What B pictures are led to.

    text        as the base makes it; `no_text` the same of what guidance leads away from: of a negative
                prompt, or what the base takes for no text
    identity    [B, tokens, width]
    nobody      [1 or B, tokens, width]: what guidance leads away from; identity again where that stays
    """

    text: Text
    no_text: Text
    identity: Tensor
    nobody: Tensor


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """float32 [len(seeds), *shape]: a picture's noise depends on its seed alone, on any device."""
    drawn = torch.cat([streams(seed, 0, ["generated picture"]) for seed in seeds]).to(device)
    return normal(drawn, Purpose.NOISE, shape)


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser,
    conditions: Conditions,
    noise: Tensor,
    settings: SamplingSettings,
    *,
    cache: bool = True,
    stepped: Callable[[int], None] | None = None,
) -> Tensor:
    """Noise [B, C, h, w] → latents, scaled as the network takes them.

    stepped   told how many steps are made, after each of them
    cache     whether the base may compute once what depends on the conditions alone; the result is the same
    """
    samples, guided = len(noise), settings.guidance > 1
    text, identity = conditions.text, conditions.identity
    if guided:
        text = tuple(torch.cat(pair) for pair in zip(conditions.no_text, conditions.text, strict=True))
        identity = torch.cat([conditions.nobody.expand_as(identity), identity])
    solver = denoiser.schedule.solver(settings.steps, noise.device, noise.shape[2] * noise.shape[3])
    x = noise
    with denoiser.generating(text, identity, identity_scale=settings.identity_scale, cache=cache):
        for made, time in enumerate(solver.timesteps, 1):
            noised = torch.cat([x, x]) if guided else x
            predicted = denoiser.predict(noised, time.expand(len(noised)), text, identity).float()
            if guided:
                away, towards = predicted.split(samples)
                predicted = away + settings.guidance * (towards - away)
            x = solver.step(predicted, time, x).prev_sample
            if stepped is not None:
                stepped(made)
    return x
