"""One sample: a group, that is one person in one outfit, as members of a WebDataset tar.

    KEY.json                the group: identity, outfit, how many photos
    KEY.000.jpg             the photo as it was collected, without its metadata (or .png, .webp)
    KEY.000.regions.png     palette map of the 18 ATR labels, of the size of the upright photo
    KEY.000.json            the photo: boxes, joints, face points, caption, sizes, scores, source
    KEY.000.latent          what a VAE gives for the photo (training/latents.py); most datasets have none

Coordinates are px of the upright photo: where `orientation` is not 1, a reader turns the photo by
its EXIF tag first. Equal content gives equal bytes.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCHEMA_VERSION = "1.2"  # 1.1: latents may be there; 1.2: diversity
MAX_PHOTOS = 1000  # of one group: their numbers have three digits
_SUFFIX = {"jpeg": "jpg", "png": "png", "webp": "webp"}
# One fixed colour a label, so that a map can be looked at; label 0 is black.
PALETTE = [
    (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85),
    (0, 119, 221), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255),
    (51, 170, 221), (0, 255, 255), (85, 255, 170), (170, 255, 85),
]  # fmt: skip


@dataclass(frozen=True)
class PhotoMember:
    """A photo of a group: encoded bytes, their format, the record, uint8 [height, width] labels."""

    data: bytes
    format: str
    record: dict[str, Any]
    labels: np.ndarray


@dataclass(frozen=True)
class Group:
    """A sample before it is packed. `key` has no dot: WebDataset cuts names there."""

    key: str
    record: dict[str, Any]
    photos: Sequence[PhotoMember]


def members_of(group: Group) -> list[tuple[str, bytes]]:
    """(name, bytes) of the group's members in the order of the tar.

    Raises ValueError for a key that WebDataset would cut, and for more than 1,000 photos.
    """
    if "." in group.key or "/" in group.key or not group.key:
        raise ValueError(f"group key {group.key!r}: must not be empty or hold '.' or '/'")
    if len(group.photos) > MAX_PHOTOS:
        raise ValueError(f"group {group.key}: {len(group.photos)} photos, at most {MAX_PHOTOS} fit")
    record = {"schema": SCHEMA_VERSION, **group.record, "photos": len(group.photos)}
    members = [(f"{group.key}.json", json_bytes(record))]
    for number, photo in enumerate(group.photos):
        stem = f"{group.key}.{number:03d}"
        members.append((f"{stem}.{_SUFFIX[photo.format]}", photo.data))
        members.append((f"{stem}.regions.png", label_png(photo.labels)))
        members.append((f"{stem}.json", json_bytes(photo.record)))
    return members


def json_bytes(record: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no blanks, UTF-8."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def label_png(labels: np.ndarray, compress_level: int = 6) -> bytes:
    """A palette PNG of uint8 labels 0 to 17; levels of compression are those of zlib, 1 to 9."""
    from PIL import Image  # here: whoever draws no labels does not wait for it

    image = Image.fromarray(labels, mode="P")
    image.putpalette([channel for colour in PALETTE for channel in colour])
    sink = io.BytesIO()
    image.save(sink, format="PNG", compress_level=compress_level)
    return sink.getvalue()
