"""Bytes of a photo that state its orientation by themselves, where only a record stated it before."""

import io
import struct
import zlib

from PIL import Image

from shards.format.embedded import embedded_in, jpeg_segments, png_chunks, riff_chunks
from shards.format.orientation import ORIENTATION, stated_orientation

_APP0, _APP1 = 0xE0, 0xE1
_HAS_EXIF, _HAS_ALPHA = 0x08, 0x10  # flags of a WebP


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG, PNG or WebP that says by EXIF how it is turned upright; its pixels stay as they are.

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
        return _in_jpeg(data, b"Exif\0\0" + tiff)
    if data.startswith(b"\x89PNG"):
        return _in_png(data, tiff)
    if data[:4] == b"RIFF":
        return _in_webp(data, tiff)
    raise ValueError("no JPEG, PNG or WebP")


def _in_jpeg(data: bytes, exif: bytes) -> bytes:
    """As the first segment, or behind that of JFIF, which claims to be first."""
    at = 2
    place, marker, content = next(jpeg_segments(data), (0, 0, b""))
    if marker == _APP0:
        at = place + 4 + len(content)
    return data[:at] + struct.pack(">BBH", 0xFF, _APP1, len(exif) + 2) + exif + data[at:]


def _in_png(data: bytes, tiff: bytes) -> bytes:
    """Behind IHDR."""
    _, _, _, stop = next(png_chunks(data))
    named = b"eXIf" + tiff
    chunk = struct.pack(">I", len(tiff)) + named + struct.pack(">I", zlib.crc32(named))
    return data[: stop + 4] + chunk + data[stop + 4 :]


def _in_webp(data: bytes, tiff: bytes) -> bytes:
    """At the end; a file of the simple layout becomes one of the extended layout."""
    body = data[12 : 8 + int.from_bytes(data[4:8], "little")]
    name, start, _ = next(riff_chunks(data))
    if name == b"VP8X":
        extended = body[:8] + bytes([data[start] | _HAS_EXIF]) + body[9:]
    else:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            flags = _HAS_EXIF | (_HAS_ALPHA if image.mode == "RGBA" else 0)
            sides = b"".join((side - 1).to_bytes(3, "little") for side in image.size)
        extended = struct.pack("<4sII", b"VP8X", 10, flags) + sides + body
    extended += bytes(len(extended) % 2) + struct.pack("<4sI", b"EXIF", len(tiff)) + tiff
    return struct.pack("<4sI4s", b"RIFF", len(extended) + 4, b"WEBP") + extended
