"""A trained model as a pipeline in the manner of diffusers: `from_pretrained`, then call it.

pipeline = PersonaPipeline.from_pretrained("runs/b")
references = [LabelledPhoto(photo, labels)]
pictures = pipeline("A woman reads on a bench.", references, regions=("head", "torso"), seed=3)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from shards.reading.buckets import Size
from training.bases.base import Text
from training.captions import Tokenise
from training.export import adapter_of, last_checkpoint, recipe_of_checkpoint
from training.generation.references import LabelledPhoto, RegionChoice, reference_fields
from training.generation.sampler import Conditions, initial_noise, sample_latents
from training.models.local_weights import cast, lent
from training.recipes import recipe_of
from training.recipes.recipe import Recipe
from training.run_settings import SamplingSettings

# What the paper generates from: the full body is left out.
PLAIN_REGIONS: RegionChoice = {"head": None, "torso": None, "legs": None, "shoes": None}


class PersonaPipeline:
    """Pictures of a person out of text and reference photos.

    recipe, module   as `recipe.build` made it, with its adapter loaded, on its device
    vae              where the module has none, because it trains on cached latents
    size             height and width of the pictures that it was trained on, px, where that is known
    """

    def __init__(
        self, recipe: Recipe, module: nn.Module, vae: nn.Module | None = None, size: Size | None = None
    ) -> None:
        self.size = size
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
        size = None
        if place.is_file():
            if recipe is None:
                raise ValueError(f"{place}: a published file does not say its recipe: give a config")
            made = _for_generation(recipe_of(recipe, method or {}))
            module = made.build(dtype)
            made.load_export(module, place)
        else:
            checkpoint = last_checkpoint(place)
            data = checkpoint.record.get("data", {})
            if "height_px" in data and "width_px" in data:
                size = (int(data["height_px"]), int(data["width_px"]))
            made = _for_generation(recipe_of_checkpoint(checkpoint))
            module = made.build(dtype)
            made.load_adapter(module, adapter_of(checkpoint, averaged=averaged))
        return cls(made, cast(module, dtype).to(device).eval(), size=size)

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
        stepped: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture for each seed, all of them in one batch.

        references   one photo of a person, or several of one person in one outfit
        regions      names of the regions to take; {name: number of a reference, or None for the one that
                     shows most of it}. Regions of different people dress one in the other's clothes
        height, width   px, multiples of the base's `size_step_px` (SDXL: 32)
        stepped      told how many steps of denoising are made, after each of them

        Raises ValueError, one line, for a size, a region or references that will not do.
        """
        fields = reference_fields(self.recipe.fields(height, width), references, regions)
        away = None
        if negative_prompt:  # shows nobody: the base's own words for it, not the recipe's
            away = _ids(self.recipe.base.tokeniser(), [negative_prompt] * len(seeds))
        identity = self.identity({name: tensor.to(self.device) for name, tensor in fields.items()})
        conditions = self.conditions(
            self.caption_ids([prompt] * len(seeds)),
            identity.expand(len(seeds), -1, -1),
            (height, width),
            no_caption_ids=away,
        )
        made = self.generate(
            conditions, seeds, height, width, sampling or SamplingSettings(), cache=cache, stepped=stepped
        )
        return [Image.fromarray(picture) for picture in made.cpu().numpy()]

    @torch.no_grad()
    def identity(self, fields: dict[str, Tensor]) -> Tensor:
        """The recipe's fields of B references → identity tokens [B, tokens, width]."""
        return self.recipe.identity(self.module, fields)

    @torch.no_grad()
    def conditions(
        self,
        caption_ids: Tensor,
        identity: Tensor,
        size: Size,
        *,
        no_caption_ids: Tensor | None = None,
    ) -> Conditions:
        """Ids [B, …] as the base's tokeniser makes them and identity [B, tokens, width] → conditions of B
        pictures of this height and width, px.

        Tokens of nobody are computed once for the life of the pipeline.
        """
        if self._nobody is None:
            self._nobody = self.recipe.nobody(self.module)
        nobody = identity if self.recipe.guidance_keeps_identity else self._nobody
        denoiser = self.module.denoiser
        # A generated picture is all of a photo of its own size.
        cut = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self.device)
        sizes = cut.expand(len(caption_ids), -1)

        def text_of(ids: Tensor) -> Text:
            return denoiser.text({"caption_ids": ids.to(self.device), "target_cut": sizes})

        text = text_of(caption_ids)
        if no_caption_ids is not None:
            away = text_of(no_caption_ids)
        else:
            away = denoiser.keep_text(text, torch.zeros(len(sizes), dtype=torch.bool, device=self.device))
        return Conditions(text, away, identity, nobody)

    def caption_ids(self, prompts: Sequence[str]) -> Tensor:
        """int64 [B, …], of the recipe's tokeniser."""
        return _ids(self._tokenise, prompts)

    def generate(
        self,
        conditions: Conditions,
        seeds: Sequence[int],
        height: int,
        width: int,
        sampling: SamplingSettings,
        *,
        cache: bool = True,
        stepped: Callable[[int], None] | None = None,
    ) -> Tensor:
        """RGB, uint8 [B, height, width, 3], a seed for each. Raises ValueError for sizes that will not do."""
        base, denoiser = self.recipe.base, self.module.denoiser
        base.check_size(height, width)
        noise = initial_noise(seeds, base.latent_shape(height, width), self.device)
        latents = sample_latents(denoiser, conditions, noise, sampling, cache=cache, stepped=stepped)
        return self.decoded(denoiser.unscaled(latents))

    def decoded(self, latents: Tensor) -> Tensor:
        """Latents as the VAE gives them → RGB, uint8 [B, height, width, 3]."""
        assert self.vae is not None
        denoiser = self.module.denoiser
        if self.vae is denoiser.vae:
            with lent(denoiser, "vae", latents.device) as vae:
                return self.recipe.base.vae.pictures(vae, latents)
        return self.recipe.base.vae.pictures(self.vae, latents)


def _ids(tokenise: Tokenise, prompts: Sequence[str]) -> Tensor:
    return torch.stack([torch.from_numpy(tokenise(prompt)) for prompt in prompts])


def _for_generation(recipe: Recipe) -> Recipe:
    """The recipe with the VAE, which a training on cached latents does not need, and with all of the base."""
    return recipe.with_denoising(
        cached_latents=False, checkpoint_activations=False, offload_encoders=False, quantise=None
    )
