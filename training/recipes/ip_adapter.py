"""IP-Adapter (arXiv 2308.06721): one CLIP embedding of a reference picture, as a few tokens."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from training.bases.base import Base
from training.batch import Field
from training.method_settings import ClipVisionSettings, IpAdapterSettings
from training.models.local_weights import (
    cast,
    freeze,
    from_folder,
    keep_on_host,
    lent,
    own_precision,
    same_random_weights,
)
from training.models.region_crops import Normalise
from training.recipes.recipe import NO_DROPOUT, Recipe, keep_conditions


class ImageTokens(nn.Module):
    """One embedding → a few tokens. Keys as published: proj, norm."""

    def __init__(self, embedding_width: int, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(embedding_width, tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, embedding_width] → [B, tokens, width]."""
        return self.norm(self.proj(embedding).unflatten(-1, (self.tokens, -1)))


class IpAdapterModule(nn.Module):
    """encoder (frozen) → identity (trained) → denoiser (the base)."""

    def __init__(self, settings: IpAdapterSettings, base: Base, frozen_dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = settings
        self.normalise = Normalise()
        self.encoder = cast(_build_clip(settings.clip), frozen_dtype)
        if base.denoising.offload_encoders:
            keep_on_host(self, "encoder")
        self.denoiser = base.build(frozen_dtype, settings.tokens)
        projection, width = self.encoder.config.projection_dim, self.denoiser.token_width
        self.identity = ImageTokens(projection, settings.tokens, width)

    def forward(self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool = True) -> Tensor:
        """Each sample's loss, float32 [B]. A dropped identity is an embedding of zeros."""
        dropout = self.settings.dropout if drop else NO_DROPOUT
        keep_identity, keep_text = keep_conditions(dropout, streams)
        tokens = self.tokens(fields["reference"], keep_identity)
        return self.denoiser(fields, streams, tokens, keep_text)

    def tokens(self, reference: Tensor, keep: Tensor) -> Tensor:
        """uint8 [B, px, px, 3], bool [B] → identity tokens [B, tokens, width]."""
        with torch.no_grad(), own_precision(keep.device), lent(self, "encoder", keep.device) as encoder:
            pixels = self.normalise(reference, torch.ones_like(keep))
            embedding = encoder(pixel_values=pixels.to(self.encoder.dtype)).image_embeds
        return self._project(embedding * keep[:, None])

    def unconditional_tokens(self) -> Tensor:
        """[1, tokens, width]: nobody's."""
        width = self.encoder.config.projection_dim
        return self._project(torch.zeros(1, width, device=self.normalise.mean.device))

    def _project(self, embedding: Tensor) -> Tensor:
        return self.identity(embedding.to(self.identity.proj.weight.dtype))


class IpAdapter(Recipe):
    """The recipe."""

    name, kind = "ip_adapter", IpAdapterSettings

    def reference_fields(self) -> list[Field]:
        """The reference picture."""
        side = self.settings.clip.crop_px
        return [Field("reference", (side, side, 3), torch.uint8)]

    def reconstruction_share(self, progress: float) -> float:
        """The same all the time."""
        return float(self.settings.reconstruction)

    def build(self, frozen_dtype: torch.dtype) -> IpAdapterModule:
        """The module. Raises WeightsError (a ValueError) where a folder cannot be read."""
        return IpAdapterModule(self.settings, self.base, frozen_dtype)

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The base's and CLIP's."""
        return [*super().blocks(module), *module.encoder.vision_model.encoder.layers]

    def identity(self, module: nn.Module, fields: Mapping[str, Tensor]) -> Tensor:
        """Tokens of the reference picture."""
        reference = fields["reference"]
        everyone = torch.ones(len(reference), dtype=torch.bool, device=reference.device)
        return module.tokens(reference, everyone)

    def nobody(self, module: nn.Module) -> Tensor:
        """Tokens of an embedding of zeros."""
        return module.unconditional_tokens()

    def reference_pictures(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The references themselves."""
        return fields["reference"]


def _build_clip(settings: ClipVisionSettings) -> nn.Module:
    if settings.folder is not None:
        return freeze(from_folder(CLIPVisionModelWithProjection.from_pretrained, settings.folder))
    config = CLIPVisionConfig(
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        intermediate_size=settings.mlp_width,
        hidden_act=settings.activation,
        projection_dim=settings.projection,
        patch_size=settings.patch_px,
        image_size=settings.crop_px,
    )
    with same_random_weights():
        return freeze(CLIPVisionModelWithProjection(config))
