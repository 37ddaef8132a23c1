"""EXIF, XMP and profiles of photos: `shards.format.embedded` and the orientation in them."""

import io

from PIL import Image

from shards.format.embedded import embedded_in
from shards.format.orientation import stated_orientation
from tests.hostile.pictures import png_chunk

MODULES = ("shards.format.embedded", "shards.format.orientation")


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
    """It finds something or nothing; no error is allowed."""
    assert 1 <= stated_orientation(embedded_in(data)) <= 8
