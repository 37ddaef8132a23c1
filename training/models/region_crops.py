"""Crops of body regions: from a photo and its label map to what the image encoder takes.

Black and missing are two things. What is not the person inside a crop is *black*: the pixel value 0
before normalisation. A region that is *missing* (not visible, dropped, or not chosen) is a zero
tensor after normalisation, that is a picture of the mean colour. All regions missing at once is what
"no identity" means.
"""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from shards.format.contents import REGION_NAMES

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

GREY = 128  # around whoever is cut out to be encoded by a VAE

# Of each label: its regions as bits, in the order of REGION_NAMES.
_BITS = np.zeros(256, np.uint8)
for _place, _name in enumerate(REGION_NAMES):
    _BITS[list(REGION_LABELS[_name])] |= 1 << _place


def cut_regions(photo: np.ndarray, labels: np.ndarray, size_px: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """A photo → its regions: uint8 [5, size_px, size_px, 3], and which are visible: bool [5].

    photo    uint8 [height, width, 3], upright
    labels   uint8 [height, width], ATR labels 0 to 17

    Everything but the person is blacked out. Each region's bounding box is then cut, with what of the
    person's neighbouring parts is inside it, set in the middle of a black square and resized. A region
    without a pixel is all 0 and not visible. Raises ValueError where the two differ in size.
    """
    crops = np.empty((len(REGION_NAMES), size_px, size_px, 3), np.uint8)
    visible = np.empty(len(REGION_NAMES), bool)
    cut_regions_into(photo, labels, crops, visible)
    return crops, visible


def cut_regions_into(photo: np.ndarray, labels: np.ndarray, crops: np.ndarray, visible: np.ndarray) -> None:
    """`cut_regions` into arrays that are there: uint8 [5, size_px, size_px, 3] and bool [5]."""
    if photo.shape[:2] != labels.shape or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"a photo of shape {photo.shape} and a label map of shape {labels.shape}")
    regions = cv2.LUT(labels, _BITS)
    person = cv2.copyTo(photo, cv2.bitwise_and(regions, 1))  # full_body is the lowest bit
    in_rows, in_columns = np.bitwise_or.reduce(regions, 1), np.bitwise_or.reduce(regions, 0)
    for place in range(len(REGION_NAMES)):
        rows, columns = (np.flatnonzero(bits >> place & 1) for bits in (in_rows, in_columns))
        visible[place] = len(rows) > 0
        if len(rows):
            cut = person[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            crops[place] = _square(cut, crops.shape[1])
        else:
            crops[place] = 0


def person_on_grey(photo: np.ndarray, labels: np.ndarray, into: np.ndarray) -> tuple[int, int]:
    """Fills uint8 [H, W, 3] with a photo's person, cut out and as large as fits, from the upper left corner
    on; all else is grey. Returns height and width that the person's box has there, 0 and 0 of nobody.

    photo, labels   as `cut_regions` takes them
    """
    body = cv2.LUT(labels, _BITS) & 1
    x, y, wide, high = cv2.boundingRect(body)
    into[...] = GREY
    if not wide:
        return 0, 0
    cut = np.full((high, wide, 3), GREY, np.uint8)
    cv2.copyTo(photo[y : y + high, x : x + wide], body[y : y + high, x : x + wide], cut)
    height, width = fitting(high, wide, into.shape[:2])
    into[:height, :width] = _resized(cut, (height, width))
    return height, width


def fitting(height: int, width: int, slot: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a picture, made as large as a slot of (height, width) holds."""
    scale = min(slot[0] / height, slot[1] / width)
    return min(max(round(height * scale), 1), slot[0]), min(max(round(width * scale), 1), slot[1])


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


def _square(cut: np.ndarray, size_px: int) -> np.ndarray:
    """uint8 [h, w, 3] in the middle of a black square, resized."""
    height, width = cut.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    around = (top, side - height - top, left, side - width - left)
    return _resized(cv2.copyMakeBorder(cut, *around, cv2.BORDER_CONSTANT), (size_px, size_px))


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w, 3] → uint8 [*size, 3], with antialiasing (bicubic).

    By torch, for bytes are resized by vector instructions there: Pillow's result but for a level here and
    there, in a fifth of its time, and without Python's lock.
    """
    # The batch's dimension comes first of all: so torch sees that colours lie last, and leaves them there.
    pixels = torch.from_numpy(picture)[None].permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)[0].numpy()
