"""A trained model as a pipeline in the manner of diffusers: `from_pretrained`, then call it.

pipeline = PersonaPipeline.from_pretrained("runs/b")
references = [LabelledPhoto(photo, labels)]
pictures = pipeline("A woman reads on a bench.", references, regions=("head", "torso"), seed=3)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from training.export import adapter_of, last_checkpoint
from training.generation.references import LabelledPhoto, RegionChoice, reference_fields
from training.generation.sampler import (
    Conditions,
    SamplingSettings,
    initial_noise,
    pictures_of,
    sample_latents,
)
from training.models.local_weights import cast
from training.models.sdxl import VAE_FACTOR
from training.recipes import recipe_of
from training.recipes.recipe import Recipe

# What the paper generates from: the full body is left out.
PLAIN_REGIONS: RegionChoice = {"head": None, "torso": None, "legs": None, "shoes": None}


class PersonaPipeline:
    """Pictures of a person out of text and reference photos.

    recipe, module   as `recipe.build` made it, with its adapter loaded, on its device
    vae              where the module has none, because it trains on cached latents
    """

    def __init__(self, recipe: Recipe, module: nn.Module, vae: nn.Module | None = None) -> None:
        self.recipe, self.module = recipe, module
        self.vae = vae or module.denoiser.vae
        self.device = next(module.parameters()).device
        self._tokenise = recipe.tokeniser()
        self._nobody: Tensor | None = None

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        *,
        recipe: str | None = None,
        method: dict[str, Any] | None = None,
        averaged: bool = True,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "PersonaPipeline":
        """From a training's folder or checkpoint, or from a published file.

        recipe, method   of a published file, which does not say how it was made
        averaged         of a checkpoint: the moving averages, not the last step's weights

        Raises ValueError, one line, where it cannot be read or does not fit.
        """
        place = Path(place)
        if place.is_file():
            if recipe is None:
                raise ValueError(f"{place}: a published file does not say its recipe: give a config")
            made = recipe_of(recipe, _for_generation(method or {}))
            module = made.build(dtype)
            made.load_export(module, place)
        else:
            checkpoint = last_checkpoint(place)
            made = recipe_of(
                checkpoint.record["recipe"], _for_generation(checkpoint.record["recipe_settings"])
            )
            module = made.build(dtype)
            made.load_adapter(module, adapter_of(checkpoint, averaged=averaged))
        return cls(made, cast(module, dtype).to(device).eval())

    def __call__(
        self,
        prompt: str,
        references: Sequence[LabelledPhoto],
        *,
        regions: RegionChoice | Sequence[str] = PLAIN_REGIONS,
        negative_prompt: str | None = None,
        height: int = 1024,
        width: int = 1024,
        seeds: Sequence[int] = (0,),
        sampling: SamplingSettings | None = None,
        cache: bool = True,
    ) -> list[Image.Image]:
        """One picture for each seed, all of them in one batch.

        references   one photo of a person, or several of one person in one outfit
        regions      names of the regions to take; {name: number of a reference, or None for the one that
                     shows most of it}. Regions of different people dress one in the other's clothes
        height, width   px, multiples of 32 (of what the UNet halves its latents by)

        Raises ValueError, one line, for a size, a region or references that will not do.
        """
        fields = reference_fields(self.recipe.fields(height, width), references, regions)
        identity = self.identity({name: tensor.to(self.device) for name, tensor in fields.items()})
        conditions = self.conditions(
            self.caption_ids([prompt] * len(seeds)),
            identity.expand(len(seeds), -1, -1),
            no_caption_ids=self.caption_ids([negative_prompt] * len(seeds)) if negative_prompt else None,
        )
        made = self.generate(conditions, seeds, height, width, sampling or SamplingSettings(), cache=cache)
        return [Image.fromarray(picture) for picture in made.cpu().numpy()]

    @torch.no_grad()
    def identity(self, fields: dict[str, Tensor]) -> Tensor:
        """The recipe's fields of B references → identity tokens [B, tokens, width]."""
        return self.recipe.identity(self.module, fields)

    @torch.no_grad()
    def conditions(
        self, caption_ids: Tensor, identity: Tensor, *, no_caption_ids: Tensor | None = None
    ) -> Conditions:
        """int64 [B, 2, 77] and [B, tokens, width] → conditions of B pictures.

        Tokens of nobody are computed once for the life of the pipeline.
        """
        if self._nobody is None:
            self._nobody = self.recipe.nobody(self.module)
        texts = self.module.denoiser.texts
        text = texts(caption_ids.to(self.device))
        away = (torch.zeros_like(text[0]), torch.zeros_like(text[1]))
        if no_caption_ids is not None:
            away = texts(no_caption_ids.to(self.device))
        return Conditions(text, away, identity, self._nobody)

    def caption_ids(self, prompts: Sequence[str]) -> Tensor:
        """int64 [B, 2, 77]."""
        return torch.stack([torch.from_numpy(self._tokenise(prompt)) for prompt in prompts])

    def generate(
        self,
        conditions: Conditions,
        seeds: Sequence[int],
        height: int,
        width: int,
        sampling: SamplingSettings,
        *,
        cache: bool = True,
    ) -> Tensor:
        """RGB, uint8 [B, height, width, 3], a seed for each. Raises ValueError for sizes that will not do."""
        denoiser = self.module.denoiser
        side = VAE_FACTOR * 2 ** (len(denoiser.unet.config.block_out_channels) - 1)
        if height < side or width < side or height % side or width % side:
            raise ValueError(f"{height} × {width} px: height and width must be multiples of {side}")
        shape = (denoiser.unet.config.in_channels, height // VAE_FACTOR, width // VAE_FACTOR)
        noise = initial_noise(seeds, shape, self.device)
        latents = sample_latents(denoiser, conditions, noise, sampling, cache=cache)
        return pictures_of(self.vae, latents / denoiser.latent_scale)


def _for_generation(method: dict[str, Any]) -> dict[str, Any]:
    """Settings of a recipe with the VAE, which a training on cached latents does not need."""
    denoising = {**method.get("denoising", {}), "cached_latents": False, "checkpoint_activations": False}
    return {**method, "denoising": denoising}
