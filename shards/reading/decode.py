"""Decodes a photo into a slot of a batch: upright, cut, scaled to the slot's size, in sRGB.

JPEGs are decoded by libjpeg-turbo (simplejpeg), which releases Python's lock, and at a reduced scale
where the slot is smaller. All that it does not take (PNG, WebP, CMYK, files that are not quite right)
is decoded by Pillow, as curation decoded it.
"""

import io
import math
import threading
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from shards.format.colour import Kind, conversion_of, rgb_of
from shards.format.embedded import embedded_in
from shards.format.orientation import stated_orientation, turned

Fit = Literal["cover", "contain"]
Box = tuple[float, float, float, float]

_FORMATS = ("JPEG", "PNG", "WEBP")
_INKS = ("CMYK", "YCCK")  # libjpeg-turbo would make RGB of them by no profile
# Scales between 1 and 1/2 are slower in libjpeg-turbo than no scale at all.
_LEAST_REDUCTION = 2


@dataclass(frozen=True)
class Cut:
    """What part of an upright photo goes where in a slot.

    size    (width, height) of the upright photo, px
    source  x0, y0, x1, y1, px of the upright photo
    target  x0, y0, x1, y1, whole px of the slot; outside of it the slot is 0
    """

    size: tuple[int, int]
    source: Box
    target: tuple[int, int, int, int]

    def affine(self) -> tuple[float, float, float, float]:
        """(sx, sy, tx, ty): a point x, y of the upright photo lies at sx·x + tx, sy·y + ty of the slot."""
        x0, y0, x1, y1 = self.source
        left, top, right, bottom = self.target
        sx, sy = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
        return sx, sy, left - sx * x0, top - sy * y0


def cut_of(width: int, height: int, slot: tuple[int, int], fit: Fit, box: Box | None = None) -> Cut:
    """How a photo, or a box of it, is put into a slot of (height, width) px; proportions stay.

    cover     the slot is filled; what does not fit is cut off evenly on both sides
    contain   all is seen; the rest of the slot is 0
    """
    x0, y0, x1, y1 = box or (0, 0, width, height)
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ValueError(f"box {box} lies outside of the photo of {width} × {height} px")
    rows, columns = slot
    scales = columns / (x1 - x0), rows / (y1 - y0)
    if fit == "cover":
        scale = max(scales)
        dx, dy = ((x1 - x0) - columns / scale) / 2, ((y1 - y0) - rows / scale) / 2
        return Cut((width, height), (x0 + dx, y0 + dy, x1 - dx, y1 - dy), (0, 0, columns, rows))
    scale = min(scales)
    wide, high = max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1)
    left, top = (columns - wide) // 2, (rows - high) // 2
    return Cut((width, height), (x0, y0, x1, y1), (left, top, left + wide, top + high))


def decode_photo(
    data: bytes, slot: np.ndarray, orientation: int | None = None, fit: Fit = "cover", box: Box | None = None
) -> Cut:
    """Writes an encoded photo into `slot`, uint8 [height, width, 3], RGB. Returns what went where.

    orientation   EXIF orientation of the bytes, 1 to 8; None looks for it in them
    box           x0, y0, x1, y1, px of the upright photo: the part that is wanted; None is all of it

    Raises ValueError or OSError where the photo is broken, or the box outside of it.
    """
    embedded = embedded_in(data)
    if orientation is None:
        orientation = stated_orientation(embedded)
    rows, columns = slot.shape[:2]
    header = _jpeg_header(data)
    if header is not None:
        width, height, kind = header
        if (height, width) == (rows, columns) and orientation == 1 and box is None:
            if _jpeg_into(slot, data):
                cut = Cut((width, height), (0, 0, width, height), (0, 0, width, height))
                return _in_srgb(slot, cut, embedded.profile, kind)
        else:
            upright = (height, width) if orientation >= 5 else (width, height)
            cut = cut_of(*upright, (rows, columns), fit, box)
            rgb = _reduced_jpeg(data, width, height, cut, orientation)
            if rgb is not None:
                cut = place(turned(rgb, orientation), slot, cut)
                return _in_srgb(slot, cut, embedded.profile, kind)
    rgb = _by_pillow(data, embedded.profile)
    height, width = rgb.shape[:2]
    upright = (height, width) if orientation >= 5 else (width, height)
    cut = cut_of(*upright, (rows, columns), fit, box)
    return place(turned(rgb, orientation), slot, cut)


def _in_srgb(slot: np.ndarray, cut: Cut, profile: bytes | None, kind: Kind) -> Cut:
    """Converts the pixels of a cut where they lie: a slot has fewer than the photo had. Returns the cut."""
    conversion = conversion_of(profile, kind)
    if conversion is not None:
        left, top, right, bottom = cut.target
        slot[top:bottom, left:right] = conversion.pixels(slot[top:bottom, left:right])
    return cut


def place(content: np.ndarray, slot: np.ndarray, cut: Cut, shrink: int = cv2.INTER_AREA) -> Cut:
    """Writes the part of a picture that a cut names into a slot of the same kind.

    content   uint8 [h, w, …], upright, at any scale of the photo that the cut is of
    shrink    cv2's interpolation; INTER_AREA becomes INTER_LINEAR where the picture grows

    Returns the cut that was made: its source consists of whole pixels of the content.
    """
    high, wide = content.shape[:2]
    fx, fy = wide / cut.size[0], high / cut.size[1]
    x0, y0, x1, y1 = cut.source
    left, top = min(round(x0 * fx), wide - 1), min(round(y0 * fy), high - 1)
    right, bottom = max(round(x1 * fx), left + 1), max(round(y1 * fy), top + 1)
    part = content[top:bottom, left:right]
    into = slot
    if cut.target != (0, 0, slot.shape[1], slot.shape[0]):
        slot[...] = 0
        into = slot[cut.target[1] : cut.target[3], cut.target[0] : cut.target[2]]
    if part.shape[:2] == into.shape[:2]:
        into[...] = part
    else:
        growing = into.shape[0] > part.shape[0] or into.shape[1] > part.shape[1]
        how = cv2.INTER_LINEAR if growing and shrink == cv2.INTER_AREA else shrink
        target = (into.shape[1], into.shape[0])
        if into.flags.c_contiguous:
            cv2.resize(part, target, dst=into, interpolation=how)
        else:
            into[...] = cv2.resize(part, target, interpolation=how)
    return Cut(cut.size, (left / fx, top / fy, right / fx, bottom / fy), cut.target)


class _Scratch(threading.local):
    """Memory of one thread for a photo that is larger than its slot."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, height: int, width: int) -> np.ndarray:
        size = height * width * 3
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(height, width, 3)


_scratch = _Scratch()


def _jpeg_header(data: bytes) -> tuple[int, int, Kind] | None:
    """Width and height as encoded, and grey or RGB; None for CMYK, and what libjpeg-turbo does not take."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return None if space in _INKS else (width, height, "L" if space == "Gray" else "RGB")


def _jpeg_into(slot: np.ndarray, data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, "RGB", buffer=slot)
    except ValueError:
        return False
    return True


def _reduced_jpeg(data: bytes, width: int, height: int, cut: Cut, orientation: int) -> np.ndarray | None:
    """The photo as it is encoded, RGB, at the smallest scale that still has the cut's resolution."""
    sx, sy, _, _ = cut.affine()
    if orientation >= 5:
        sx, sy = sy, sx
    least = {
        "min_height": min(math.ceil(height * sy), height),
        "min_width": min(math.ceil(width * sx), width),
        "min_factor": _LEAST_REDUCTION,
    }
    try:
        rows, columns, _, _ = simplejpeg.decode_jpeg_header(data, **least)
        found: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", buffer=_scratch.take(rows, columns), **least)
    except ValueError:
        return None
    return found


def _by_pillow(data: bytes, profile: bytes | None) -> np.ndarray:
    """uint8 [h, w, 3] as it is encoded."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.load()
        return rgb_of(image, profile)
