"""IP-Adapter (arXiv 2308.06721): one CLIP embedding of a reference picture, as a few tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field as Setting
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from training.batch import Field
from training.captions import Tokenise, tokeniser_of
from training.models.local_weights import cast, freeze, from_folder, same_random_weights
from training.models.own_precision import own_precision
from training.models.region_crops import Normalise
from training.models.sdxl import SdxlSettings
from training.recipes.condition_dropout import NO_DROPOUT, DropoutSettings, keep_conditions
from training.recipes.denoising import (
    Denoiser,
    DenoisingSettings,
    denoising_fields,
    processor_parameters,
    transformer_blocks,
)
from training.released_layout import (
    copy_exactly,
    load_released,
    released_names,
    write_released,
)
from training.settings import Settings


class ClipVisionSettings(Settings):
    """CLIP's image encoder; the defaults are ViT-H/14. With a folder, the sizes are those of its config."""

    folder: str | None = Setting(None, description="a local transformers folder; None: random weights")
    width: int = Setting(1280, ge=1)
    depth: int = Setting(32, ge=1)
    heads: int = Setting(16, ge=1)
    mlp_width: int = Setting(5120, ge=1)
    activation: str = "gelu"
    projection: int = Setting(1024, ge=1)
    patch_px: int = Setting(14, ge=1)
    crop_px: int = Setting(224, ge=1)


class IpAdapterSettings(Settings):
    """All that the method depends on. `dropout.region` means nothing here."""

    sdxl: SdxlSettings = SdxlSettings()
    clip: ClipVisionSettings = ClipVisionSettings()
    tokens: int = Setting(4, ge=1)
    denoising: DenoisingSettings = DenoisingSettings()
    reconstruction: float = Setting(
        1.0, ge=0, le=1, description="share of samples that are their own reference"
    )
    dropout: DropoutSettings = DropoutSettings(region=0.0)


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
    """encoder (frozen) → identity (trained) → denoiser (identity attention trained)."""

    def __init__(self, settings: IpAdapterSettings, frozen_dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = settings
        self.normalise = Normalise()
        self.encoder = cast(_build_clip(settings.clip), frozen_dtype)
        self.denoiser = Denoiser(settings.sdxl, settings.denoising, settings.tokens, frozen_dtype)
        token_width = self.denoiser.unet.config.cross_attention_dim
        self.identity = ImageTokens(self.encoder.config.projection_dim, settings.tokens, token_width)

    def forward(self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool = True) -> Tensor:
        """Each sample's loss, float32 [B]. A dropped identity is an embedding of zeros."""
        dropout = self.settings.dropout if drop else NO_DROPOUT
        keep_identity, keep_text = keep_conditions(dropout, streams)
        tokens = self.tokens(fields["reference"], keep_identity)
        return self.denoiser(fields, streams, tokens, keep_text)

    def tokens(self, reference: Tensor, keep: Tensor) -> Tensor:
        """uint8 [B, px, px, 3], bool [B] → identity tokens [B, tokens, width]."""
        with torch.no_grad(), own_precision(keep.device):
            pixels = self.normalise(reference, torch.ones_like(keep))
            embedding = self.encoder(pixel_values=pixels.to(self.encoder.dtype)).image_embeds
        return self._project(embedding * keep[:, None])

    def unconditional_tokens(self) -> Tensor:
        """[1, tokens, width]: nobody's."""
        width = self.encoder.config.projection_dim
        return self._project(torch.zeros(1, width, device=self.normalise.mean.device))

    def _project(self, embedding: Tensor) -> Tensor:
        return self.identity(embedding.to(self.identity.proj.weight.dtype))


class IpAdapter:
    """The recipe."""

    name: ClassVar[str] = "ip_adapter"

    def __init__(self, settings: IpAdapterSettings) -> None:
        self.settings = settings

    def fields(self, height_px: int, width_px: int) -> Sequence[Field]:
        """The reference picture, and what the denoiser reads of the target."""
        side = self.settings.clip.crop_px
        reference = Field("reference", (side, side, 3), torch.uint8)
        return [
            reference,
            *denoising_fields(self.settings.sdxl, self.settings.denoising, height_px, width_px),
        ]

    def tokeniser(self) -> Tokenise:
        """SDXL's, or hashed words for text encoders with random weights."""
        return tokeniser_of(self.settings.sdxl)

    def sdxl(self) -> SdxlSettings:
        """The base that the method is trained on."""
        return self.settings.sdxl

    def with_latents(self) -> "IpAdapter":
        """Reads what `persona shards precompute` wrote, and builds no VAE."""
        denoising = self.settings.denoising.with_latents()
        return IpAdapter(self.settings.model_copy(update={"denoising": denoising}))

    def reconstruction_share(self, progress: float) -> float:
        """The same all the time."""
        return self.settings.reconstruction

    def build(self, frozen_dtype: torch.dtype) -> IpAdapterModule:
        """The module. Raises WeightsError (a ValueError) where a folder cannot be read."""
        return IpAdapterModule(self.settings, frozen_dtype)

    def adapter(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The token maker, the identity attention, and a tuned UNet."""
        tokens = {f"identity.{name}": tensor for name, tensor in module.identity.named_parameters()}
        return tokens | processor_parameters(module, self.settings.denoising)

    def load_adapter(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Keys and shapes must be this module's."""
        copy_exactly(self.adapter(module), tensors, "adapter")

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The UNet's transformer blocks and CLIP's."""
        return [*transformer_blocks(module), *module.encoder.vision_model.encoder.layers]

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

    def export(self, adapter: Mapping[str, Tensor], path: Path) -> None:
        """The layout of IP-Adapter's own releases."""
        names = released_names(adapter)
        write_released(path, {names[path_]: tensor for path_, tensor in adapter.items()})

    def load_export(self, module: nn.Module, path: Path) -> None:
        """Reads that layout, strictly."""
        load_released(module.identity, module.denoiser.unet, path)


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
