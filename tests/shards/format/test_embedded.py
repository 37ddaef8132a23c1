"""What lies in a photo beside its picture is found at a cost that its own bytes bound."""

import random
import struct
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from PIL import Image

from shards.format import embedded
from shards.format.embedded import embedded_in, jpeg_parts, jpeg_segments
from shards.format.orientation import orientation_of
from tests.drawn_metadata import raw_profile, saved, segment
from tests.hostile.pictures import png_chunk

MIB = 2**20
PICTURE = Image.new("RGB", (8, 8))
JPEG, PNG = saved(PICTURE, "JPEG"), saved(PICTURE, "PNG")
WHERE_IT_LIES = {"at the end of the file": b"", "within a scan": b"\0", "before a marker": b"\xd9"}


def png_with(*chunks: bytes) -> bytes:
    """The chunks before the pixels."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def directory(tag: int, content: bytes, ranges: list[tuple[int, int]]) -> bytes:
    """A TIFF with an entry of one tag for each (start, size) in its content."""
    behind = 8 + 2 + 12 * len(ranges) + 4
    entries = b"".join(struct.pack("<HHII", tag, 1, size, behind + start) for start, size in ranges)
    return b"II*\0" + struct.pack("<IH", 8, len(ranges)) + entries + bytes(4) + content


@pytest.mark.parametrize("where", WHERE_IT_LIES)
def test_a_long_run_of_fill_bytes_costs_no_time(where: str) -> None:
    data = JPEG[:-2] + b"\xff" * 40_000 + WHERE_IT_LIES[where]
    began = time.process_time()
    parts = list(jpeg_parts(data))
    assert time.process_time() - began < 1
    stop = next(stop for marker, _, stop in parts if marker == 0)
    assert data[stop:].strip(b"\xff") == (b"\xd9" if where == "before a marker" else b"")


def test_coded_data_ends_at_the_first_of_the_bytes_that_fill_the_place_before_a_marker() -> None:
    drawn = random.Random(5)
    for _ in range(500):
        coded = bytes(drawn.choices((0xFF, 0x00, 0xD3, 0x41), k=drawn.randrange(12)))
        data = b"\xff\xd8" + segment(0xDA, b"ab") + coded + b"\xff\xd9"
        start, stop = next((start, stop) for marker, start, stop in jpeg_parts(data) if marker == 0)
        following = next(
            at
            for at in range(start, len(data))
            if data[at] == 0xFF and (data[at:].lstrip(b"\xff")[0] not in (0x00, *range(0xD0, 0xD8)))
        )
        assert (start, stop) == (8, following)


@pytest.mark.parametrize("tag", [700, 33723, 34377])
@pytest.mark.parametrize("step", [0, 1])
def test_entries_of_exif_that_share_their_bytes_cost_no_memory(tag: int, step: int) -> None:
    content = (b"8BIM\x04\x24\0\0" + struct.pack(">I", 300_000)).ljust(400_000, b" ")
    tiff = directory(tag, content, [(0, len(content) - step * number) for number in range(100)])
    tracemalloc.start()
    try:
        found = embedded_in(png_with(png_chunk(b"eXIf", tiff)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (36 if step else 4) * MIB
    assert found.has_cut_xmp == bool(step)
    assert found.iim if tag == 33723 else found.more_xmp


def test_profiles_in_digits_of_a_png_have_one_limit_in_all() -> None:
    for name in ("exif", "iptc", "8bim"):
        one = raw_profile(name, (b"8BIM\x04\x04\0\0" + struct.pack(">I", 900_000)).ljust(900_012, b" "))
        assert not embedded_in(png_with(*[one] * 5)).has_cut_xmp
        found = embedded_in(png_with(*[one] * 20))
        assert len(found.iim or b"") < 16 * MIB
        assert found.has_cut_xmp


def test_broken_texts_of_a_png_are_unpacked_up_to_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counting:
        def __init__(self) -> None:
            self._inner = zlib.decompressobj()

        def decompress(self, *given: Any) -> bytes:
            made.append(len(text := self._inner.decompress(*given)))
            return text

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    broken = zlib.compress(bytes(4 * MIB))[:-6]
    xmp = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + broken)
    digits = png_chunk(b"zTXt", b"Raw profile type iptc\0\0" + broken)

    class Zlib:
        error, decompressobj = zlib.error, Counting

    monkeypatch.setattr(embedded, "zlib", Zlib)
    assert embedded_in(png_with(*[xmp, digits] * 12)).has_cut_xmp
    assert sum(made) < 34 * MIB


def test_a_photo_whose_xmp_is_broken_is_turned_by_its_exif_all_the_same() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    broken = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(20 * MIB)))
    photo = png_with(broken, raw_profile("exif", b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")))
    assert embedded_in(photo).has_cut_xmp
    assert orientation_of(photo) == 6


def test_exif_in_many_small_segments_is_joined_as_decoders_do() -> None:
    tiff = directory(700, b"<x/>" * 9, [(0, 36)])
    parts = b"".join(segment(0xE1, b"Exif\0\0" + tiff[at : at + 5]) for at in range(0, len(tiff), 5))
    found = embedded_in(JPEG[:2] + parts + JPEG[2:])
    assert (found.exif, found.more_xmp, found.has_cut_xmp) == (tiff, (b"<x/>" * 9,), False)
    assert [marker for _, marker, _ in jpeg_segments(JPEG[:2] + parts + JPEG[2:])].count(0xE1) > 9
