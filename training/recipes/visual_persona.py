"""Visual Persona (arXiv 2503.15406): a person's whole appearance, from crops of their body regions.

Two stages. In the first all regions share one set of queries and some samples are reconstructions
(the reference is the target itself), a share that falls to zero. The second starts from it with a set
of queries for each region, and learns from pairs of different photos of one outfit. The paper states
neither rates nor steps nor a schedule: the defaults are ours.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shards.format.contents import REGION_NAMES
from training.bases.base import Base
from training.batch import Field
from training.method_settings import DropoutSettings, VisualPersonaSettings
from training.models.region_decoder import RegionDecoder
from training.models.region_encoder import RegionEncoder
from training.recipes.recipe import NO_DROPOUT, Recipe, keep_conditions, keep_regions
from training.released_layout import copy_exactly


class VisualPersonaModule(nn.Module):
    """encoder (frozen) → identity (trained) → denoiser (the base)."""

    def __init__(self, settings: VisualPersonaSettings, base: Base, frozen_dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = settings
        offload = base.denoising.offload_encoders
        self.encoder = RegionEncoder(settings.dino, frozen_dtype, offload=offload)
        self.identity = RegionDecoder(settings.decoder)
        self.denoiser = base.build(frozen_dtype, settings.decoder.tokens)
        shared = settings.stage == "shared_queries"
        self.identity.pos_embed.requires_grad_(shared)
        self.identity.new_pos_embed.requires_grad_(not shared)

    def forward(
        self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool = True, seen: int | None = None
    ) -> Tensor:
        """Each sample's loss, float32 [B]. A dropped region is a missing one, a dropped identity five.

        seen   regions of the batch that are there, at least; none: all may be
        """
        dropout = self.settings.dropout if drop else NO_DROPOUT
        _, keep_text = keep_conditions(dropout, streams)
        there = regions_there(dropout, fields["visible"], streams)
        tokens = self.tokens(fields["crops"], there, seen)
        return self.denoiser(fields, streams, tokens, keep_text)

    def tokens(self, crops: Tensor, visible: Tensor, seen: int | None = None) -> Tensor:
        """uint8 [B, 5, px, px, 3], bool [B, 5] → identity tokens [B, tokens, width].

        seen   of the B · 5 regions so many are computed, the visible ones first: all that are missing have
               the same features, so what they become is computed once for each set of queries. Where more
               are visible the result is NaN: a device that looked would be waited for
        """
        if seen is None:
            return self._decode(self.encoder(crops, visible))
        regions, decoder = visible.shape[1], self.identity
        shared = self.settings.stage == "shared_queries"
        flat = visible.flatten()
        first = torch.argsort(~flat, stable=True)[:seen]
        features = self.encoder(crops.flatten(0, 1)[first, None], flat[first, None])[:, 0]
        features = torch.where(flat.sum() > seen, torch.nan, features)
        sets = torch.arange(1 if shared else regions, device=flat.device)
        nobody = self.encoder.nothing().expand(len(sets), -1, -1)
        made = decoder.of_regions(
            torch.cat([features, nobody]).to(decoder.pos_embed.dtype),
            torch.cat([first % regions, sets]),
            shared_queries=shared,
        )
        own, missing = made.split([len(first), len(sets)])
        missing = missing.expand(regions, -1, -1)
        tokens = missing.expand(len(visible), -1, -1, -1).flatten(0, 1).index_copy(0, first, own)
        return tokens.unflatten(0, visible.shape).flatten(1, 2)

    def unconditional_tokens(self) -> Tensor:
        """[1, tokens, width]: nobody's. Constant while the decoder is: compute them once a generation."""
        return self._decode(self.encoder.of_nobody(self.settings.decoder.regions))

    def _decode(self, features: Tensor) -> Tensor:
        dtype = self.identity.pos_embed.dtype
        return self.identity(features.to(dtype), shared_queries=self.settings.stage == "shared_queries")


def regions_there(dropout: DropoutSettings, visible: Tensor, streams: Tensor) -> Tensor:
    """bool [B, 5] → bool [B, 5]: visible, and neither the region nor the identity is dropped."""
    keep_identity, _ = keep_conditions(dropout, streams)
    return visible & keep_regions(dropout, streams, visible.shape[1]) & keep_identity[:, None]


class VisualPersona(Recipe):
    """The recipe."""

    name, kind = "visual_persona", VisualPersonaSettings

    def __init__(self, settings: VisualPersonaSettings, base: Base) -> None:
        super().__init__(settings, base)
        if base.token_width not in (None, settings.decoder.width):
            raise ValueError(
                f"decoder.width {settings.decoder.width} is not the width of a text token "
                f"({base.token_width})"
            )

    def reference_fields(self) -> list[Field]:
        """crops and visible of the reference."""
        regions, side = self.settings.decoder.regions, self.settings.dino.crop_px
        return [
            Field("crops", (regions, side, side, 3), torch.uint8),
            Field("visible", (regions,), torch.bool),
        ]

    def counts(self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool) -> dict[str, int]:
        """seen: regions that are there; two at least, because compiled layers are made anew for one."""
        visible = fields["visible"]
        there = regions_there(self.settings.dropout if drop else NO_DROPOUT, visible, streams)
        return {"seen": max(int(there.sum()), 2)}

    def reconstruction_share(self, progress: float) -> float:
        """Falls linearly to zero, which it is from `reconstruction_until` on."""
        settings = self.settings
        return float(settings.reconstruction * max(0.0, 1 - progress / settings.reconstruction_until))

    def build(self, frozen_dtype: torch.dtype) -> VisualPersonaModule:
        """The module. Raises WeightsError (a ValueError) where a folder cannot be read."""
        return VisualPersonaModule(self.settings, self.base, frozen_dtype)

    def adapter(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The decoder with the queries of its stage, and what is trained of the base."""
        adapter = super().adapter(module)
        if self.settings.stage == "shared_queries":
            del adapter["identity.new_pos_embed"]
        return adapter

    def load_adapter(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """An adapter of the first stage gives each region the shared queries to start the second from."""
        own, given = self.adapter(module), dict(tensors)
        if "identity.pos_embed" in given and "identity.new_pos_embed" in own:
            shared = given["identity.pos_embed"]
            given.setdefault("identity.new_pos_embed", _copies(shared, self.settings.decoder.regions))
        copy_exactly(own, given, "adapter")

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The base's, the decoder's and DINOv2's."""
        dino = list(module.encoder.dino.encoder.layer)
        return [*super().blocks(module), *module.identity.transformer.layers, *dino]

    def identity(self, module: nn.Module, fields: Mapping[str, Tensor]) -> Tensor:
        """Tokens of the regions that are visible."""
        return module.tokens(fields["crops"], fields["visible"])

    def nobody(self, module: nn.Module) -> Tensor:
        """Tokens of five missing regions."""
        return module.unconditional_tokens()

    def reference_pictures(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The crops of the full body."""
        return fields["crops"][:, REGION_NAMES.index("full_body")]

    def released(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' layout. Shared queries are written as the five sets that they stand for."""
        tensors = super().released(adapter)
        shared = tensors["image_proj.pos_embed"]
        tensors.setdefault("image_proj.new_pos_embed", _copies(shared, self.settings.decoder.regions))
        return tensors


def _copies(shared: Tensor, regions: int) -> Tensor:
    """[1, Q, width] → [regions, Q, width]."""
    return shared.detach().repeat(regions, 1, 1)
