"""`python benchmarks/generate.py`: what keys and values that are computed once save a generation.

FLOPs of one denoising step with guidance are counted on torch's meta device at full size (SDXL base,
1,280 identity tokens, 1,024 px): exact, on any machine. Seconds are those of a small model on this
machine, cached and not in turns, the fastest of each; or of the full size, with random weights, where
there is a GPU. Last line: JSON.
"""

import argparse
import json
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.bases.sdxl_parts import TEXT_TOKENS, build_unet, sdxl_vae
from training.generation.sampler import Conditions, initial_noise, sample_latents
from training.method_settings import SdxlSettings
from training.models.identity_attention import constant_conditions, install_identity_attention
from training.recipes import recipe_of
from training.run_settings import SamplingSettings, read_settings

FULL_TOKENS = 1280


def step_tflop(*, cached: bool, side_px: int = 1024) -> float:
    """TFLOP of one step of one picture with guidance, at full size."""
    settings = SdxlSettings()
    side = side_px // sdxl_vae(settings).factor
    with torch.device("meta"):
        unet = build_unet(settings)
        install_identity_attention(unet, FULL_TOKENS)
        context = torch.empty(2, TEXT_TOKENS + FULL_TOKENS, settings.token_width)
        arguments = (torch.empty(2, 4, side, side), torch.zeros(2, dtype=torch.int64))
        added = {"text_embeds": torch.empty(2, settings.text_2.projection), "time_ids": torch.empty(2, 6)}

    def counted() -> float:
        with FlopCounterMode(display=False) as counter:
            unet(*arguments, encoder_hidden_states=context, added_cond_kwargs=added)
        return counter.get_total_flops() / 1e12

    with torch.no_grad():
        if not cached:
            return counted()
        with constant_conditions(unet, context):
            return counted()


def seconds(steps: int, rounds: int, config: str) -> dict[str, float]:
    """{'cached', 'uncached'}: seconds of one picture's denoising."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    # Full size has random weights, so that no folder is needed.
    random: dict[str, Any] = {"method.sdxl": {}, "method.dino": {}} if device.type == "cuda" else {}
    settings = read_settings(config, random)
    recipe = recipe_of(settings.recipe, settings.method)
    module = recipe.build(dtype).to(device, dtype).eval()
    denoiser, data = module.denoiser, settings.data
    nobody = recipe.nobody(module).detach()
    fields = {
        field.name: torch.zeros(1, *field.shape, dtype=field.dtype, device=device)
        for field in recipe.base.text_fields()
    }
    text = denoiser.text(fields)
    away = denoiser.keep_text(text, torch.zeros(1, dtype=torch.bool, device=device))
    conditions = Conditions(text, away, nobody, nobody)
    shape = recipe.base.latent_shape(data.height_px, data.width_px)
    noise = initial_noise([0], shape, device)
    sampling = SamplingSettings(steps=steps)
    fastest = {"cached": float("inf"), "uncached": float("inf")}
    for _ in range(rounds):
        for name in fastest:
            began = time.perf_counter()
            sample_latents(denoiser, conditions, noise, sampling, cache=name == "cached").sum().item()
            fastest[name] = min(fastest[name], time.perf_counter() - began)
    return fastest


def main() -> None:
    """Prints a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    config = "visual_persona_stage_b" if cuda else "visual_persona_demo"
    flop = {name: step_tflop(cached=name == "cached") for name in ("cached", "uncached")}
    found = seconds(given.steps, given.rounds, config)
    for name in ("uncached", "cached"):
        print(
            f"{name:<9} {flop[name]:7.2f} TFLOP a step at full size, {found[name]:.3f} s a picture, {config}"
        )
    record = {
        "tflop_uncached": round(flop["uncached"], 3),
        "tflop_cached": round(flop["cached"], 3),
        "seconds_uncached": round(found["uncached"], 4),
        "seconds_cached": round(found["cached"], 4),
        "speedup": round(found["uncached"] / found["cached"], 3),
        "steps": given.steps,
        "config": config,
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
