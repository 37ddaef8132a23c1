"""The frozen image encoder: crops of regions → DINOv2's patch features."""

import torch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from training.method_settings import DinoSettings
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


def build_dino(settings: DinoSettings) -> nn.Module:
    """Dinov2Model, frozen. Raises WeightsError where the folder cannot be read."""
    if settings.folder is not None:
        return freeze(from_folder(Dinov2Model.from_pretrained, settings.folder))
    config = Dinov2Config(
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        mlp_ratio=settings.mlp_ratio,
        use_swiglu_ffn=settings.swiglu,
        patch_size=settings.patch_px,
        image_size=settings.trained_px,
    )
    with same_random_weights():
        return freeze(Dinov2Model(config))


class RegionEncoder(nn.Module):
    """Crops of regions and which are there → patch features, without gradients."""

    of_nothing: Tensor | None

    def __init__(
        self, settings: DinoSettings, dtype: torch.dtype = torch.float32, *, offload: bool = False
    ) -> None:
        super().__init__()
        self.settings = settings
        self.normalise = Normalise()
        self.register_buffer("of_nothing", None, persistent=False)
        self.dino = cast(build_dino(settings), dtype)
        if offload:
            keep_on_host(self, "dino")

    @torch.no_grad()
    def forward(self, crops: Tensor, visible: Tensor) -> Tensor:
        """uint8 [B, R, crop_px, crop_px, 3], bool [B, R] → [B, R, patches, width], the class token left out.

        A region that is not visible is the zero image, whatever its crop holds.
        """
        pixels = self.normalise(crops, visible).flatten(0, 1).to(self.dino.dtype)
        with own_precision(pixels.device), lent(self, "dino", pixels.device) as dino:
            features = dino(pixel_values=pixels).last_hidden_state[:, 1:]
        return features.unflatten(0, visible.shape)

    def of_nobody(self, regions: int) -> Tensor:
        """[1, regions, patches, width]: the features of the zero image, computed for one crop."""
        side, device = self.settings.crop_px, self.normalise.mean.device
        crop = torch.zeros(1, 1, side, side, 3, dtype=torch.uint8, device=device)
        nothing = torch.zeros(1, 1, dtype=torch.bool, device=device)
        return self(crop, nothing).expand(-1, regions, -1, -1)

    def nothing(self) -> Tensor:
        """[1, patches, width]: the same of one region, which a training computes once and keeps."""
        if self.of_nothing is None:
            self.of_nothing = self.of_nobody(1)[0]
        return self.of_nothing
