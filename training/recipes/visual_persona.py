"""Visual Persona (arXiv 2503.15406): a person's whole appearance, from crops of their body regions.

Two stages. In the first all regions share one set of queries and some samples are reconstructions
(the reference is the target itself), a share that falls to zero. The second starts from it with a set
of queries for each region, and learns from pairs of different photos of one outfit. The paper states
neither rates nor steps nor a schedule: the defaults are ours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field as Setting
from pydantic import model_validator
from torch import Tensor, nn

from shards.format.contents import REGION_NAMES
from training.batch import Field
from training.captions import Tokenise, tokeniser_of
from training.models.region_decoder import DecoderSettings, RegionDecoder
from training.models.region_encoder import DinoSettings, RegionEncoder
from training.models.sdxl import SdxlSettings
from training.recipes.condition_dropout import NO_DROPOUT, DropoutSettings, keep_conditions, keep_regions
from training.recipes.denoising import (
    Denoiser,
    DenoisingSettings,
    denoising_fields,
    processor_parameters,
    transformer_blocks,
)
from training.released_layout import (
    Shapes,
    copy_exactly,
    load_released,
    processor_shapes,
    released_names,
    write_released,
)
from training.settings import Settings


class VisualPersonaSettings(Settings):
    """All that the method depends on; the sizes default to the released model's."""

    stage: Literal["shared_queries", "region_queries"] = "region_queries"
    sdxl: SdxlSettings = SdxlSettings()
    dino: DinoSettings = DinoSettings()
    decoder: DecoderSettings = DecoderSettings()
    denoising: DenoisingSettings = DenoisingSettings()
    dropout: DropoutSettings = DropoutSettings()
    reconstruction: float = Setting(
        0.0, ge=0, le=1, description="share of samples at the start whose reference is the target"
    )
    reconstruction_until: float = Setting(
        0.5, gt=0, le=1, description="part of the training after which that share is zero"
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "VisualPersonaSettings":
        if self.decoder.regions != len(REGION_NAMES):
            raise ValueError(f"decoder.regions must be {len(REGION_NAMES)}: {', '.join(REGION_NAMES)}")
        if self.sdxl.folder is None and self.decoder.width != self.sdxl.token_width:
            raise ValueError(
                f"decoder.width {self.decoder.width} is not the width of a text token "
                f"({self.sdxl.token_width})"
            )
        if self.dino.folder is None and self.decoder.feature_width != self.dino.width:
            raise ValueError(
                f"decoder.feature_width {self.decoder.feature_width} is not dino.width ({self.dino.width})"
            )
        return self


class VisualPersonaModule(nn.Module):
    """encoder (frozen) → identity (trained) → denoiser (identity attention trained)."""

    def __init__(self, settings: VisualPersonaSettings, frozen_dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = RegionEncoder(settings.dino, frozen_dtype)
        self.identity = RegionDecoder(settings.decoder)
        self.denoiser = Denoiser(settings.sdxl, settings.denoising, settings.decoder.tokens, frozen_dtype)
        shared = settings.stage == "shared_queries"
        self.identity.pos_embed.requires_grad_(shared)
        self.identity.new_pos_embed.requires_grad_(not shared)

    def forward(self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool = True) -> Tensor:
        """Each sample's loss, float32 [B]. A dropped region is a missing one, a dropped identity five."""
        dropout = self.settings.dropout if drop else NO_DROPOUT
        keep_identity, keep_text = keep_conditions(dropout, streams)
        seen = fields["visible"] & keep_regions(dropout, streams, self.settings.decoder.regions)
        tokens = self.tokens(fields["crops"], seen & keep_identity[:, None])
        return self.denoiser(fields, streams, tokens, keep_text)

    def tokens(self, crops: Tensor, visible: Tensor) -> Tensor:
        """uint8 [B, 5, px, px, 3], bool [B, 5] → identity tokens [B, tokens, width]."""
        return self._decode(self.encoder(crops, visible))

    def unconditional_tokens(self) -> Tensor:
        """[1, tokens, width]: nobody's. Constant while the decoder is: compute them once a generation."""
        return self._decode(self.encoder.of_nobody(self.settings.decoder.regions))

    def _decode(self, features: Tensor) -> Tensor:
        dtype = self.identity.pos_embed.dtype
        return self.identity(features.to(dtype), shared_queries=self.settings.stage == "shared_queries")


class VisualPersona:
    """The recipe."""

    name: ClassVar[str] = "visual_persona"

    def __init__(self, settings: VisualPersonaSettings) -> None:
        self.settings = settings

    def fields(self, height_px: int, width_px: int) -> Sequence[Field]:
        """crops and visible of the reference, and what the denoiser reads of the target."""
        regions, side = self.settings.decoder.regions, self.settings.dino.crop_px
        return [
            Field("crops", (regions, side, side, 3), torch.uint8),
            Field("visible", (regions,), torch.bool),
            *denoising_fields(self.settings.sdxl, self.settings.denoising, height_px, width_px),
        ]

    def tokeniser(self) -> Tokenise:
        """SDXL's, or hashed words for text encoders with random weights."""
        return tokeniser_of(self.settings.sdxl)

    def sdxl(self) -> SdxlSettings:
        """The base that the method is trained on."""
        return self.settings.sdxl

    def with_latents(self) -> "VisualPersona":
        """Reads what `persona shards precompute` wrote, and builds no VAE."""
        denoising = self.settings.denoising.with_latents()
        return VisualPersona(self.settings.model_copy(update={"denoising": denoising}))

    def reconstruction_share(self, progress: float) -> float:
        """Falls linearly to zero, which it is from `reconstruction_until` on."""
        settings = self.settings
        return settings.reconstruction * max(0.0, 1 - progress / settings.reconstruction_until)

    def build(self, frozen_dtype: torch.dtype) -> VisualPersonaModule:
        """The module. Raises WeightsError (a ValueError) where a folder cannot be read."""
        return VisualPersonaModule(self.settings, frozen_dtype)

    def adapter(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The decoder with the queries of its stage, the identity attention, and a tuned UNet."""
        decoder = {f"identity.{name}": tensor for name, tensor in module.identity.named_parameters()}
        if self.settings.stage == "shared_queries":
            del decoder["identity.new_pos_embed"]
        return decoder | processor_parameters(module, self.settings.denoising)

    def load_adapter(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """An adapter of the first stage gives each region the shared queries to start the second from."""
        own, given = self.adapter(module), dict(tensors)
        if "identity.pos_embed" in given and "identity.new_pos_embed" in own:
            shared = given["identity.pos_embed"]
            given.setdefault("identity.new_pos_embed", _copies(shared, self.settings.decoder.regions))
        copy_exactly(own, given, "adapter")

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The UNet's transformer blocks, the decoder's and DINOv2's."""
        dino = list(module.encoder.dino.encoder.layer)
        return [*transformer_blocks(module), *module.identity.transformer.layers, *dino]

    def identity(self, module: nn.Module, fields: Mapping[str, Tensor]) -> Tensor:
        """Tokens of the regions that are visible."""
        return module.tokens(fields["crops"], fields["visible"])

    def nobody(self, module: nn.Module) -> Tensor:
        """Tokens of five missing regions."""
        return module.unconditional_tokens()

    def reference_pictures(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The crops of the full body."""
        return fields["crops"][:, REGION_NAMES.index("full_body")]

    def export(self, adapter: Mapping[str, Tensor], path: Path) -> None:
        """The authors' layout. Shared queries are written as the five sets that they stand for."""
        names = released_names(adapter)
        tensors = {names[path_]: tensor for path_, tensor in adapter.items()}
        shared = tensors["image_proj.pos_embed"]
        tensors.setdefault("image_proj.new_pos_embed", _copies(shared, self.settings.decoder.regions))
        write_released(path, tensors)

    def load_export(self, module: nn.Module, path: Path) -> None:
        """Reads the authors' layout strictly: image_proj, ip_adapter by place, unet where it is tuned."""
        load_released(module.identity, module.denoiser.unet, path)


def visual_persona_layout(settings: DecoderSettings, widths: Sequence[int]) -> Shapes:
    """Keys and shapes of a released file, from numbers alone. `widths` are those of the UNet's
    cross-attention layers, in the order down, up, mid (`released_layout.SDXL_WIDTHS`)."""
    width, feature, mlp = settings.width, settings.feature_width, settings.mlp_width
    shapes: Shapes = {
        "pos_embed": (1, settings.queries, width),
        "new_pos_embed": (settings.regions, settings.queries, width),
        "transformer.norm.weight": (width,),
        "transformer.norm.bias": (width,),
    }
    for number in range(settings.depth):
        layer: Shapes = {f"norm{norm}.{part}": (width,) for norm in (1, 2, 3) for part in ("weight", "bias")}
        layer |= {
            "cross_attn.q_proj_weight": (width, width),
            "cross_attn.k_proj_weight": (width, feature),
            "cross_attn.v_proj_weight": (width, feature),
            "cross_attn.out_proj.weight": (width, width),
            "self_attn.in_proj_weight": (3 * width, width),
            "self_attn.out_proj.weight": (width, width),
            "mlp.0.weight": (mlp, width),
            "mlp.0.bias": (mlp,),
            "mlp.3.weight": (width, mlp),
            "mlp.3.bias": (width,),
        }
        shapes |= {f"transformer.layers.{number}.{name}": shape for name, shape in layer.items()}
    named = {f"image_proj.{name}": shape for name, shape in shapes.items()}
    return named | processor_shapes(widths, width)


def _copies(shared: Tensor, regions: int) -> Tensor:
    """[1, Q, width] → [regions, Q, width]."""
    return shared.detach().repeat(regions, 1, 1)
