"""Tiny models of the real architectures, and batches of random pictures, for tests of training."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from training.batch import Batch
from training.recipes import recipe_of
from training.recipes.recipe import Recipe

# Models this small are faster on one thread, and results to the bit need a fixed number of them.
torch.set_num_threads(1)

TEXT = {"width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "projection": 16, "vocabulary": 64}
SDXL: dict[str, Any] = {
    "channels": [16, 32],
    "transformer_depths": [0, 1],
    "head_width": 8,
    "layers_per_block": 1,
    "norm_groups": 8,
    "time_id_width": 8,
    "text": TEXT,
    "text_2": {**TEXT, "activation": "gelu"},
    "vae_channels": [8, 8, 8, 8],
    "vae_layers": 1,
}
DINO = {"width": 24, "depth": 2, "heads": 2, "trained_px": 28, "crop_px": 28}
DECODER = {"queries": 4, "width": 32, "feature_width": 24, "depth": 2, "heads": 2, "mlp_width": 64}
VISUAL_PERSONA: dict[str, Any] = {"sdxl": SDXL, "dino": DINO, "decoder": DECODER}
CLIP = {"width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "projection": 16, "crop_px": 28}
IP_ADAPTER: dict[str, Any] = {"sdxl": SDXL, "clip": CLIP}
FLUX2: dict[str, Any] = {
    "double_blocks": 1,
    "single_blocks": 2,
    "heads": 2,
    "head_width": 16,
    "rope_widths": [4, 4, 4, 4],
    "time_width": 8,
    "text": {"width": 16, "heads": 2, "key_heads": 1, "head_width": 8, "mlp_width": 32, "vocabulary": 64},
    "text_layers": [1, 2],
    "text_tokens": 12,
    "vae_channels": [8, 8, 8, 8],
    "vae_layers": 1,
    "vae_norm_groups": 4,
    "latent_channels": 4,
}
FLUX2_REFERENCE: dict[str, Any] = {
    "flux2": FLUX2,
    "body_px": [48, 32],
    "part_px": 16,
    "denoising": {"lora": {"rank": 4}, "person_weight": 2.0},
}
SETTINGS = {"visual_persona": VISUAL_PERSONA, "ip_adapter": IP_ADAPTER, "flux2_reference": FLUX2_REFERENCE}
TARGET_PX = 64


def tiny(name: str, **changed: Any) -> Recipe:
    """The recipe in its tiny size; `denoising` is changed key by key."""
    if "denoising" in changed:
        changed["denoising"] = {**SETTINGS[name].get("denoising", {}), **changed["denoising"]}
    return recipe_of(name, {**SETTINGS[name], **changed})


def built(recipe: Recipe, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Its module; equal seeds give equal weights. LoRA is moved from where it begins, B of zeros, which lets
    no gradient through to A."""
    torch.manual_seed(seed)
    module = recipe.build(dtype)
    for name, parameter in module.named_parameters():
        if name.endswith("lora_B.weight"):
            nn.init.normal_(parameter, std=0.1)
    return module


def samples(recipe: Recipe, keys: Sequence[str], *, seed: int = 0, epoch: int = 0) -> Batch:
    """A batch in which the fields of a sample are a function of its key."""
    fields: dict[str, list[torch.Tensor]] = {}
    for key in keys:
        generator = torch.Generator().manual_seed(int.from_bytes(key.encode()[-7:]))
        for field in recipe.fields(TARGET_PX, TARGET_PX):
            if field.dtype == torch.uint8:
                drawn = torch.randint(0, 256, field.shape, generator=generator, dtype=torch.uint8)
            elif field.dtype == torch.int64:
                drawn = torch.randint(0, TEXT["vocabulary"], field.shape, generator=generator)
            elif field.dtype == torch.bool:
                drawn = torch.rand(field.shape, generator=generator) < 0.8
            else:
                drawn = torch.rand(field.shape, generator=generator).to(field.dtype)
            fields.setdefault(field.name, []).append(drawn)
    stacked = {name: torch.stack(tensors) for name, tensors in fields.items()}
    return Batch.of(stacked, keys, seed=seed, epoch=epoch)


class DrawnBatches:
    """Endless batches of one rank over `people` samples; its position is the number of samples consumed."""

    def __init__(
        self, recipe: Recipe, batch: int, *, people: int = 16, rank: int = 0, world: int = 1, seed: int = 0
    ) -> None:
        self.recipe, self.batch, self.people = recipe, batch, people
        self.rank, self.world, self.seed = rank, world, seed
        self.consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        first = self.consumed + self.rank * self.batch
        self.consumed += self.batch * self.world
        epoch = first // self.people
        keys = [f"person-{place % self.people:03d}-a" for place in range(first, first + self.batch)]
        return samples(self.recipe, keys, seed=self.seed, epoch=epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]
