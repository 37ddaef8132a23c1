"""A photo made smaller once, before it is packed, and its record and label map with it."""

import io
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from curation.photos.decode import decode_rgb
from shards.format.sample import PhotoMember

_COORDINATES = {"box": 2, "face_box": 2, "face_points": 2, "keypoints": 3}  # numbers a point


def smaller(photo: PhotoMember, max_side_px: int, jpeg_quality: int) -> PhotoMember:
    """The photo with its longer side at most so many px, upright, as a JPEG; the same one if it is.

    The record's coordinates are those of the new photo and `resized_from` is the old [width, height];
    photo_id stays the hash of what was collected. Raises OSError or ValueError for a broken photo.
    """
    width, height = photo.record["width"], photo.record["height"]
    scale = max_side_px / max(width, height)
    if scale >= 1:
        return photo
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    pixels = cv2.resize(decode_rgb(photo.data), size, interpolation=cv2.INTER_AREA)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="JPEG", quality=jpeg_quality)
    labels = cv2.resize(photo.labels, size, interpolation=cv2.INTER_NEAREST)
    factors = (size[0] / width, size[1] / height)
    record = {**photo.record, "width": size[0], "height": size[1], "orientation": 1}
    record["resized_from"] = [width, height]
    for name, numbers in _COORDINATES.items():
        record[name] = _scaled(record[name], factors, numbers)
    return replace(photo, data=sink.getvalue(), format="jpeg", record=record, labels=np.asarray(labels))


def _scaled(values: list[float] | None, factors: tuple[float, float], numbers: int) -> Any:
    """x and y of each point scaled; a third number of a point, its score, stays."""
    if values is None:
        return None
    return [
        round(value * factors[place % numbers], 2) if place % numbers < 2 else value
        for place, value in enumerate(values)
    ]
