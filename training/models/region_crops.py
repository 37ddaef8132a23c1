"""Crops of body regions: from a photo and its label map to what the image encoder takes.

Black and missing are two things. What is not the person inside a crop is *black*: the pixel value 0
before normalisation. A region that is *missing* (not visible, dropped, or not chosen) is a zero
tensor after normalisation, that is a picture of the mean colour. All regions missing at once is what
"no identity" means.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from shards.facets import REGION_NAMES

# Labels of ATR. The bag (16) belongs to no region: a person may carry one in one photo only.
REGION_LABELS: dict[str, tuple[int, ...]] = {
    "full_body": tuple(label for label in range(1, 18) if label != 16),
    "head": (1, 2, 3, 11),
    "torso": (4, 7, 14, 15, 17),
    "legs": (5, 6, 8, 12, 13),
    "shoes": (9, 10),
}
# CLIP's; the released model feeds DINOv2 with them too.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# [regions, labels]: whether a region has a label.
_MEMBERS = np.zeros((len(REGION_NAMES), 256), bool)
for _place, _name in enumerate(REGION_NAMES):
    _MEMBERS[_place, list(REGION_LABELS[_name])] = True


def cut_regions(photo: np.ndarray, labels: np.ndarray, size_px: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """A photo → its regions: uint8 [5, size_px, size_px, 3], and which are visible: bool [5].

    photo    uint8 [height, width, 3], upright
    labels   uint8 [height, width], ATR labels 0 to 17

    Everything but the person is blacked out. Each region's bounding box is then cut, with what of the
    person's neighbouring parts is inside it, set in the middle of a black square and resized. A region
    without a pixel is all 0 and not visible. Raises ValueError where the two differ in size.
    """
    if photo.shape[:2] != labels.shape or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"a photo of shape {photo.shape} and a label map of shape {labels.shape}")
    person = np.where(_MEMBERS[0][labels][:, :, None], photo, 0).astype(np.uint8)
    crops = np.zeros((len(REGION_NAMES), size_px, size_px, 3), np.uint8)
    visible = np.zeros(len(REGION_NAMES), bool)
    for place, members in enumerate(_MEMBERS):
        inside = members[labels]
        columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
        if not len(rows):
            continue
        cut = person[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crops[place] = np.asarray(_square(cut, size_px))
        visible[place] = True
    return crops, visible


class Normalise(nn.Module):
    """Pixels → what CLIP and DINOv2 take."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Buffers lie on the device already: a step must not wait for a copy.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, crops: Tensor, visible: Tensor) -> Tensor:
        """uint8 [..., H, W, 3] and bool [...] → float32 [..., 3, H, W]; a missing region is zero."""
        pixels = (crops.movedim(-1, -3).float() / 255 - self.mean) / self.std
        return torch.where(visible[..., None, None, None], pixels, 0.0)


def _square(cut: np.ndarray, size_px: int) -> Image.Image:
    """uint8 [h, w, 3] in the middle of a black square, resized with antialiasing (bicubic)."""
    height, width = cut.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side))
    square.paste(Image.fromarray(cut), ((side - width) // 2, (side - height) // 2))
    return square.resize((size_px, size_px), Image.Resampling.BICUBIC)
