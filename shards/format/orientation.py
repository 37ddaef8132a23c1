"""Which way up a photo is: its EXIF orientation, in its bytes or its record, and how it is turned by it."""

import json
import re
import struct
from typing import Any

import cv2
import numpy as np

from shards.format.embedded import Embedded, embedded_in

ORIENTATION = 0x0112  # the tag of EXIF
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_VALUES = {1: "B", 3: "H", 4: "I"}  # type of a tag: how a value of it is packed
_FLIPS = {2: 1, 4: 0}  # OpenCV's words for columns and rows
_TURNS = {
    3: cv2.ROTATE_180,
    6: cv2.ROTATE_90_CLOCKWISE,
    7: cv2.ROTATE_180,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


# The words of exifread, which img2dataset keeps.
_IN_WORDS = {
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}


def orientation_of(data: bytes, record: Any = None) -> int:
    """EXIF orientation of an encoded photo, 1 to 8; 1 where nothing says it, or nonsense. Decodes nothing.

    record   what lies beside the photo in its sample. Ours states the orientation; a foreign one may tell
             it of bytes that carry no EXIF (`told_orientation`)
    """
    stated = record.get("orientation") if isinstance(record, dict) else None
    if isinstance(stated, int) and not isinstance(stated, bool) and 1 <= stated <= 8:
        return stated  # records of others say `landscape` under that name
    return stated_orientation(embedded_in(data), told_orientation(record))


def told_orientation(record: Any) -> int:
    """What img2dataset's record tells of a photo that it has encoded anew, 1 to 8; 1 where it tells nothing.

    img2dataset (1.47) encodes the pixels as they lay in the file, drops EXIF, and keeps its tags in words as
    JSON under `exif`. Where it left the bytes as they came, the record has no `width`.
    """
    if not isinstance(record, dict) or record.get("width") is None:
        return 1
    tags = record.get("exif")
    if isinstance(tags, str):
        try:
            tags = json.loads(tags)
        except (ValueError, RecursionError):
            return 1
    words = tags.get("Image Orientation") if isinstance(tags, dict) else None
    return _IN_WORDS.get(words, 1) if isinstance(words, str) else 1


def stated_orientation(embedded: Embedded, told: int = 1) -> int:
    """What EXIF says, or XMP where EXIF says nothing, as in Pillow; `told` where there is neither.

    1 where they do not say it, or nonsense: who turned a photo upright may have left that of its record.
    """
    if embedded.exif is None and embedded.xmp is None:
        return told
    value = None if embedded.exif is None else _in_exif(embedded.exif)
    if value is None and embedded.xmp is not None:
        found = _IN_XMP.search(embedded.xmp)
        value = int(found[1]) if found else None
    return value if value is not None and 1 <= value <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    """The tag in the first directory; None where it is not, or the directory is broken before it."""
    order = _ORDERS.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, at)
            if tag == ORIENTATION and kind in _VALUES:
                return int(struct.unpack_from(f"{order}{_VALUES[kind]}", exif, at + 8)[0])
    except struct.error:  # it points out of itself
        pass
    return None


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture of what was decoded, uint8 [h, w] or [h, w, 3], by its EXIF orientation, 1 to 8.

    By OpenCV, which goes by blocks: to copy a turned view of numpy takes seven times as long.
    """
    if orientation in (5, 7):
        picture = cv2.transpose(picture)
    if orientation in _FLIPS:
        picture = cv2.flip(picture, _FLIPS[orientation])
    elif orientation in _TURNS:
        picture = cv2.rotate(picture, _TURNS[orientation])
    return picture
