"""What photos carry beside their pixels is found wherever each format keeps it, and without decoding."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from shards.format.embedded import embedded_in
from shards.format.orientation import orientation_of
from shards.reading.decode import decode_photo
from tests.hostile.pictures import png_chunk

PLAIN = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def saved(kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(PLAIN).save(sink, kind, **options)
    return sink.getvalue()


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def png_with(*chunks: bytes, behind: bool) -> bytes:
    """A PNG with chunks on one side of its pixels."""
    data = saved("PNG")
    at = len(data) - 12 if behind else data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def raw_profile(exif: bytes) -> bytes:
    """EXIF in a tEXt chunk, as ImageMagick writes it."""
    digits = exif.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n" % len(exif) + "\n".join(lines).encode())


TURNED = {
    "JPEG, EXIF": lambda: saved("JPEG", exif=exif_of(6)),
    "JPEG, XMP": lambda: saved("JPEG", xmp=XMP),
    "PNG, before its pixels": lambda: png_with(png_chunk(b"eXIf", exif_of(6)[6:]), behind=False),
    "PNG, behind its pixels": lambda: png_with(png_chunk(b"eXIf", exif_of(6)[6:]), behind=True),
    "PNG, as text": lambda: png_with(raw_profile(exif_of(6)), behind=True),
    "PNG, XMP": lambda: png_with(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), behind=True),
    "WebP, EXIF": lambda: saved("WEBP", exif=exif_of(6)),
    "WebP, XMP": lambda: saved("WEBP", xmp=XMP),
}  # fmt: skip


@pytest.mark.parametrize("where", TURNED)
def test_the_orientation_is_found_wherever_a_format_keeps_it_as_pillow_finds_it(where: str) -> None:
    data = TURNED[where]()
    assert orientation_of(data) == 6
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    slot = np.empty((32, 24, 3), np.uint8)
    decode_photo(data, slot)
    assert np.abs(slot.astype(int) - np.asarray(upright)).mean() < 1


def test_the_orientation_of_a_png_is_found_where_its_pixels_cannot_be_decoded() -> None:
    data = bytearray(TURNED["PNG, behind its pixels"]())
    at = data.index(b"IDAT") + 4
    data[at : at + 40] = bytes(40)
    with pytest.raises((OSError, SyntaxError)):
        Image.open(io.BytesIO(data)).load()
    assert orientation_of(bytes(data)) == 6


def test_exif_that_says_upright_rules_over_xmp_and_nonsense_is_upright() -> None:
    assert orientation_of(saved("JPEG", exif=exif_of(1), xmp=XMP)) == 1
    assert orientation_of(saved("JPEG", exif=exif_of(9))) == 1
    assert orientation_of(saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_profile_is_found_whole_or_not_at_all(kind: str) -> None:
    profile = np.random.default_rng(1).bytes(150_000)  # three segments of a JPEG
    data = saved(kind, icc_profile=profile)
    assert embedded_in(data).profile == profile
    assert embedded_in(saved(kind)).profile is None
    assert embedded_in(data[:100_000]).profile != profile
    if kind == "JPEG":
        last = data.rindex(b"ICC_PROFILE\0") - 4
        length = int.from_bytes(data[last + 2 : last + 4], "big")
        assert embedded_in(data[:last] + data[last + 2 + length :]).profile is None
