"""EXIF, XMP and profiles of photos, the orientation in them, and the photo without them."""

import io
from contextlib import suppress

from PIL import Image

from shards.format.embedded import embedded_in
from shards.format.orientation import stated_orientation
from shards.format.stripped import without_metadata
from tests.hostile.pictures import png_chunk

MODULES = ("shards.format.embedded", "shards.format.orientation", "shards.format.stripped")


def seeds() -> list[bytes]:
    """One photo of each format with all three, and a PNG that has EXIF as text."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (4, 4))
    found = []
    for kind in ("JPEG", "PNG", "WEBP"):
        sink = io.BytesIO()
        picture.save(sink, kind, exif=exif, xmp=b'tiff:Orientation="6"', icc_profile=bytes(300))
        found.append(sink.getvalue())
    text = b"Raw profile type exif\0\nexif\n%8d\n%s" % (len(exif.tobytes()), exif.tobytes().hex().encode())
    return [*found, b"\x89PNG\r\n\x1a\n" + png_chunk(b"tEXt", text) + png_chunk(b"IEND", b"")]


def parse(data: bytes) -> None:
    """It finds something or nothing, without an error; what cannot be stripped is a ValueError or OSError."""
    assert 1 <= stated_orientation(embedded_in(data)) <= 8
    with suppress(ValueError, OSError):
        without_metadata(data, prove=False)
