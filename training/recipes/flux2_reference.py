"""A person on pictures of reference, for a base that takes pictures as tokens (FLUX.2).

The references' latents stand in the sequence behind the target's, and nothing but the base's own change is
trained (LoRA). First comes the person, cut out on grey, or the whole photo; then crops of head, torso, legs
and shoes. What is missing is masked. Sizes after UNO (arXiv 2504.02160) and Visual Persona; drops are ours.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from shards.format.contents import REGION_NAMES
from training.bases.base import Base
from training.batch import Field
from training.captions import Tokenise
from training.method_settings import CAPTION, Flux2ReferenceSettings
from training.models.local_weights import cast, keep_on_host, lent
from training.randomness import Purpose, uniform
from training.recipes.recipe import NO_DROPOUT, Recipe, keep_conditions, keep_regions

PARTS = tuple(REGION_NAMES.index(name) for name in ("head", "torso", "legs", "shoes"))


class Flux2ReferenceModule(nn.Module):
    """denoiser (the base), and a VAE of its own where the base reads latents and has none."""

    def __init__(self, settings: Flux2ReferenceSettings, base: Base, frozen_dtype: torch.dtype) -> None:
        super().__init__()
        self.settings, self.base = settings, base
        self.identity = nn.Module()  # makes no tokens: pictures are tokens already
        grids = [(height // base.vae.factor, width // base.vae.factor) for height, width in _sizes(settings)]
        tokens = sum(rows * columns for rows, columns in grids)
        self.denoiser = base.build(frozen_dtype, tokens, grids)  # type: ignore[call-arg]
        self.vae = None if self.denoiser.vae is not None else cast(base.vae.build(), frozen_dtype)
        if base.denoising.offload_encoders and self.vae is not None:
            keep_on_host(self, "vae")

    def forward(self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool = True) -> Tensor:
        """Each sample's loss, float32 [B]."""
        settings = self.settings
        dropout = settings.dropout if drop else NO_DROPOUT
        keep_identity, keep_text = keep_conditions(dropout, streams)
        parts = keep_regions(dropout, streams, len(PARTS)) & keep_identity[:, None]
        whole = uniform(streams, Purpose.REFERENCE_KIND)[:, 0] < (settings.whole_photo if drop else 0)
        tokens = self.tokens(fields, keep_identity, parts, whole)
        return self.denoiser(fields, streams, tokens, keep_text)

    @torch.no_grad()
    def tokens(self, fields: Mapping[str, Tensor], body: Tensor, parts: Tensor, whole: Tensor) -> Tensor:
        """Fields of B references → tokens [B, tokens, channels], those of what is missing zero.

        body, parts   bool [B] and [B, 4]: which pictures are taken, where they are there
        whole         bool [B]: who is seen with the whole photo, and not cut out
        """
        made = []
        if "body" in fields or "photo" in fields:
            picture, size = _first(fields, whole)
            encoded = self._encode(picture)
            there = _covered(size, picture.shape[1:3], self.base.vae.factor) & body[:, None]
            made.append(encoded * there[..., None])
        if "crops" in fields:
            crops, there = fields["crops"][:, PARTS], fields["visible"][:, PARTS] & parts
            encoded = self._encode(crops.flatten(0, 1)).unflatten(0, there.shape)
            made.append((encoded * there[..., None, None]).flatten(1, 2))
        return torch.cat(made, dim=1)

    def nobody(self) -> Tensor:
        """[1, tokens, channels]: all missing."""
        places = self.denoiser.places
        return torch.zeros(1, len(places), self.denoiser.token_width, device=places.device)

    def _encode(self, pictures: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] → [B, tokens, channels]."""
        owner = self if self.denoiser.vae is None else self.denoiser
        with lent(owner, "vae", pictures.device) as vae:
            latents, _ = self.base.vae.moments(vae, pictures)
        return self.denoiser.scaled(latents).flatten(2).transpose(1, 2)


def _sizes(settings: Flux2ReferenceSettings) -> list[tuple[int, int]]:
    """Height and width of each picture, px."""
    height, width = settings.body_px
    body = [(height, width)] if settings.references != "parts" else []
    part = [(settings.part_px, settings.part_px)] * len(PARTS)
    return body + (part if settings.references != "body" else [])


def _first(fields: Mapping[str, Tensor], whole: Tensor) -> tuple[Tensor, Tensor]:
    """The picture of the whole person, uint8 [B, H, W, 3], and its size there, int64 [B, 2]."""
    if "photo" not in fields or "body" not in fields:
        name = "body" if "body" in fields else "photo"
        return fields[name], fields[f"{name}_size"]
    return (
        torch.where(whole[:, None, None, None], fields["photo"], fields["body"]),
        torch.where(whole[:, None], fields["photo_size"], fields["body_size"]),
    )


def _covered(size: Tensor, slot: torch.Size, factor: int) -> Tensor:
    """bool [B, tokens]: whether a token shows any of a picture of this size in a slot's upper left corner."""
    rows, columns = (
        torch.arange(0, side, factor, device=size.device) < size[:, place, None]
        for place, side in enumerate(slot)
    )
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


class Flux2Reference(Recipe):
    """The recipe."""

    name, kind = "flux2_reference", Flux2ReferenceSettings

    def __init__(self, settings: Flux2ReferenceSettings, base: Base) -> None:
        super().__init__(settings, base)
        if not base.takes_pictures:
            raise ValueError(f"the base {base.name} takes no pictures as references: name flux2 in its place")
        for name, sides in (("body_px", settings.body_px), ("part_px", (settings.part_px,))):
            if any(side < 1 or side % base.vae.factor for side in sides):
                raise ValueError(f"{name} must be of multiples of {base.vae.factor}, px of a token")

    @property
    def guidance_keeps_identity(self) -> bool:
        """As the settings say."""
        return bool(self.settings.guidance_keeps_references)

    def tokeniser(self) -> Tokenise:
        """Of the caption within the prompt."""
        base, prompt = self.base.tokeniser(), self.settings.prompt

        def tokenise(caption: str) -> np.ndarray:
            return base(prompt.replace(CAPTION, caption).strip())

        return tokenise

    def reference_fields(self) -> list[Field]:
        """The person cut out, the whole photo, and the crops, as far as they are drawn."""
        settings, fields = self.settings, []
        if settings.references != "parts":
            shares = {"body": 1 - settings.whole_photo, "photo": settings.whole_photo}
            for name, share in shares.items():
                if share:
                    fields += [
                        Field(name, (*settings.body_px, 3), torch.uint8),
                        Field(f"{name}_size", (2,), torch.int64),
                    ]
        if settings.references != "body":
            side = settings.part_px
            fields += [
                Field("crops", (len(REGION_NAMES), side, side, 3), torch.uint8),
                Field("visible", (len(REGION_NAMES),), torch.bool),
            ]
        return fields

    def build(self, frozen_dtype: torch.dtype) -> Flux2ReferenceModule:
        """The module. Raises WeightsError (a ValueError) where a folder cannot be read."""
        return Flux2ReferenceModule(self.settings, self.base, frozen_dtype)

    def identity(self, module: nn.Module, fields: Mapping[str, Tensor]) -> Tensor:
        """Tokens of the person cut out, where cutting out is trained, and of the parts."""
        some = next(iter(fields.values()))
        everyone = torch.ones(len(some), dtype=torch.bool, device=some.device)
        return module.tokens(fields, everyone, everyone[:, None].expand(-1, len(PARTS)), ~everyone)

    def nobody(self, module: nn.Module) -> Tensor:
        """All tokens missing."""
        return module.nobody()

    def reference_pictures(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The whole person, else the head."""
        for name in ("body", "photo"):
            if name in fields:
                return fields[name]
        return fields["crops"][:, PARTS[0]]
