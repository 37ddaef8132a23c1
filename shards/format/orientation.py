"""Which way up a photo is: the EXIF orientation in its bytes or its record, read, applied and written."""

import io
import json
import re
import struct
import zlib
from typing import Any

import numpy as np

from shards.format.embedded import Embedded, embedded_in, jpeg_segments, png_chunks, riff_chunks

ORIENTATION = 0x0112  # the tag of EXIF
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_VALUES = {1: "B", 3: "H", 4: "I"}  # type of a tag: how a value of it is packed
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


# Names of exifread, which img2dataset keeps.
_IN_WORDS = {
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}
FORMATS = ("JPEG", "PNG", "WEBP")  # of Pillow: only these parsers see bytes of strangers
_APP0, _APP1 = 0xE0, 0xE1
_HAS_EXIF, _HAS_ALPHA = 0x08, 0x10  # flags of a WebP


def orientation_of(data: bytes, record: Any = None) -> int:
    """EXIF orientation of an encoded photo, 1 to 8; 1 where it is not stated, or nonsense. Decodes nothing.

    record   what lies beside the photo in its sample. Ours states the orientation; a foreign one may tell
             it of bytes that carry no EXIF (`told_orientation`)
    """
    stated = record.get("orientation") if isinstance(record, dict) else None
    if isinstance(stated, int) and not isinstance(stated, bool) and 1 <= stated <= 8:
        return stated  # records of others say `landscape` under that name
    return stated_orientation(embedded_in(data), told_orientation(record))


def told_orientation(record: Any) -> int:
    """The orientation that img2dataset's record states of a photo that was encoded anew, 1 to 8; 1 for none.

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
    """The orientation in EXIF, or in XMP where EXIF has none, as in Pillow; `told` where there is neither.

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
    import cv2  # here: whoever reads no pixels, as the tools, needs no OpenCV

    if orientation in (5, 7):
        picture = cv2.transpose(picture)
    if orientation in (2, 4):
        return cv2.flip(picture, 1 if orientation == 2 else 0)
    if orientation in (3, 7):
        return cv2.rotate(picture, cv2.ROTATE_180)
    if orientation == 6:
        return cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE)
    if orientation == 8:
        return cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return picture


def upright_size(data: bytes, record: Any = None) -> tuple[int, int] | None:
    """(width, height) of an encoded photo, px, turned as `orientation_of` says; None for a broken header."""
    from PIL import Image  # here: whoever opens no photo does not wait for it

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (height, width) if orientation_of(data, record) >= 5 else (width, height)


def with_orientation(data: bytes, orientation: int) -> bytes:
    """The photo with an EXIF orientation in its bytes; its pixels stay as they are.

    data          as collected; returned as it is where it has EXIF or XMP, or says the same
    orientation   1 to 8

    Raises ValueError for other bytes, OSError for a broken WebP.
    """
    embedded = embedded_in(data)
    has_own = embedded.exif is not None or embedded.xmp is not None
    if has_own or stated_orientation(embedded) == orientation:
        return data
    # A directory of one tag, a SHORT, and no directory behind it.
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)
    if data.startswith(b"\xff\xd8"):
        return _tagged_jpeg(data, b"Exif\0\0" + tiff)
    if data.startswith(b"\x89PNG"):
        return _tagged_png(data, tiff)
    if data[:4] == b"RIFF":
        return _tagged_webp(data, tiff)
    raise ValueError("no JPEG, PNG or WebP")


def _tagged_jpeg(data: bytes, exif: bytes) -> bytes:
    """As the first segment, or behind that of JFIF, which claims to be first."""
    at = 2
    place, marker, content = next(jpeg_segments(data), (0, 0, b""))
    if marker == _APP0:
        at = place + 4 + len(content)
    return data[:at] + struct.pack(">BBH", 0xFF, _APP1, len(exif) + 2) + exif + data[at:]


def _tagged_png(data: bytes, tiff: bytes) -> bytes:
    """Behind IHDR."""
    _, _, _, stop = next(png_chunks(data))
    named = b"eXIf" + tiff
    chunk = struct.pack(">I", len(tiff)) + named + struct.pack(">I", zlib.crc32(named))
    return data[: stop + 4] + chunk + data[stop + 4 :]


def _tagged_webp(data: bytes, tiff: bytes) -> bytes:
    """At the end; a file of the simple layout becomes one of the extended layout."""
    body = data[12 : 8 + int.from_bytes(data[4:8], "little")]
    name, start, _ = next(riff_chunks(data))
    if name == b"VP8X":
        extended = body[:8] + bytes([data[start] | _HAS_EXIF]) + body[9:]
    else:
        from PIL import Image

        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            flags = _HAS_EXIF | (_HAS_ALPHA if image.mode == "RGBA" else 0)
            sides = b"".join((side - 1).to_bytes(3, "little") for side in image.size)
        extended = struct.pack("<4sII", b"VP8X", 10, flags) + sides + body
    extended += bytes(len(extended) % 2) + struct.pack("<4sI", b"EXIF", len(tiff)) + tiff
    return struct.pack("<4sI4s", b"RIFF", len(extended) + 4, b"WEBP") + extended
