"""Bad pictures: each format broken in each structural place, bombs, huge metadata, polyglots."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image

from tests.drawn_people import draw

Named = tuple[str, bytes]  # (what is wrong with it, its bytes)
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "bmp": "BMP"}
_LENGTHS = (0, 1, 2, 0x7FFF, 0xFFFF)


@cache
def base(kind: str, number: int) -> bytes:
    """A good file of a format; its people are not those of the neighbours."""
    picture = Image.fromarray(draw(4711, number, 0, number))
    sink = io.BytesIO()
    options = {"exif": _exif(40), "icc_profile": bytes(400)} if kind in ("jpg", "png", "webp") else {}
    picture.save(sink, _FORMATS[kind], **options)
    return sink.getvalue()


def pictures(seed: int) -> Iterator[Named]:
    """Endlessly: first every structural place of every format and every bomb, then random damage."""
    yield from _bombs()
    yield from _polyglots()
    for kind in _FORMATS:
        yield from _broken_parts(kind, base(kind, 0))
    random_ = random.Random(seed)
    while True:
        kind = random_.choices(list(_FORMATS), weights=(6, 6, 6, 1, 1, 1))[0]  # the last three are refused
        yield random_.choice(_DAMAGES)(random_, kind, bytearray(base(kind, random_.randrange(6))))


# --- each structural place -----------------------------------------------------------------------


def _broken_parts(kind: str, data: bytes) -> Iterator[Named]:
    parts = {"jpg": _jpeg_parts, "png": _png_parts, "webp": _riff_parts}.get(kind)
    cuts = parts(data) if parts else list(range(0, min(len(data), 64), 4))
    for place, (start, stop) in enumerate(zip(cuts, [*cuts[1:], len(data)], strict=True)):
        what = f"{kind}-part{place}"
        yield f"{what}-cut", data[:start]
        yield f"{what}-half", data[: (start + stop) // 2]
        yield f"{what}-left-out", data[:start] + data[stop:]
        yield f"{what}-twice", data[:stop] + data[start:]
        yield f"{what}-zeros", data[:start] + bytes(stop - start) + data[stop:]
        yield f"{what}-ones", data[:start] + b"\xff" * (stop - start) + data[stop:]
        for length in _LENGTHS:
            size = struct.pack(">H" if kind == "jpg" else ">I" if kind == "png" else "<I", length)
            at = start + (0 if kind == "png" else 2 if kind == "jpg" else 4)
            yield f"{what}-length{length}", data[:at] + size + data[at + len(size) :]


def _jpeg_parts(data: bytes) -> list[int]:
    """Where the segments of a JPEG begin; the scan is one."""
    cuts, at = [0], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        cuts.append(at)
        if data[at + 1] == 0xDA:
            cuts += [at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"), len(data) - 2]
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return cuts


def _png_parts(data: bytes) -> list[int]:
    cuts, at = [0], 8
    while at + 8 <= len(data):
        cuts.append(at)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return cuts


def _riff_parts(data: bytes) -> list[int]:
    cuts, at = [0], 12
    while at + 8 <= len(data):
        cuts.append(at)
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return cuts


# --- bombs ----------------------------------------------------------------------------------------


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, pixels: bytes, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunks)
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def _zeros(mib: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(mib)) + packer.flush()


def _bombs() -> Iterator[Named]:
    some = base("png", 1)
    head, rest = some[:33], some[33:]
    yield "bomb-pixels-png", _png(65_535, 65_535, _zeros(1))
    yield "bomb-largest-png", _png(2**31 - 1, 2**31 - 1, b"")
    yield "bomb-thin-png", _png(2**31 - 1, 1, _zeros(1))
    yield "bomb-at-the-limit-png", _png(8000, 7999, _zeros(62))
    yield "bomb-too-many-rows", _png(100, 100, _zeros(64))
    for name in (b"zTXt", b"iCCP"):
        yield f"bomb-{name.decode()}", head + png_chunk(name, b"x\0\0" + _zeros(96)) + rest
    yield "bomb-iTXt", head + png_chunk(b"iTXt", b"x\0\1\0\0\0" + _zeros(96)) + rest
    yield "many-text-chunks", head + png_chunk(b"tEXt", b"a\0" + b"b" * 1000) * 3000 + rest
    yield "many-empty-idat", head + png_chunk(b"IDAT", b"") * 20_000 + rest
    frames = [Image.new("L", (16, 16), value) for value in range(200)]
    for kind in ("WEBP", "PNG"):
        sink = io.BytesIO()
        frames[0].save(sink, kind, save_all=True, append_images=frames[1:] * 5)
        yield f"bomb-frames-{kind.lower()}", sink.getvalue()
    yield "apng-a-billion-frames", head + png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + rest
    jpeg = base("jpg", 1)
    yield "bomb-pixels-jpg", _with_size(jpeg, 65_500, 65_500)
    yield "jpg-of-no-height", _with_size(jpeg, 0, 160)
    for title, marker, head_ in (
        ("exif", 0xE1, b"Exif\0\0"),
        ("icc", 0xE2, b"ICC_PROFILE\0\1\1"),
        ("com", 0xFE, b""),
    ):
        segment = bytes([0xFF, marker]) + struct.pack(">H", 65_000) + (head_ + bytes(65_000))[:64_998]
        yield f"huge-{title}", jpeg[:2] + segment * 250 + jpeg[2:]
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    for what, exif in (("loop", loop), ("of-noise", bytes(range(256)) * 40), ("of-many", _exif(4000))):
        data = exif if exif.startswith(b"Exif") else b"Exif\0\0" + exif
        yield (
            f"exif-{what}",
            jpeg[:2] + b"\xff\xe1" + struct.pack(">H", min(len(data) + 2, 65_535)) + data[:65_533] + jpeg[2:],
        )
    yield "jpg-of-many-scans", _many_scans(200)


def _with_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = next(at for at in _jpeg_parts(jpeg) if jpeg[at + 1] in (0xC0, 0xC2))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def _many_scans(times: int) -> bytes:
    """A progressive JPEG that refines one picture again and again."""
    sink = io.BytesIO()
    Image.fromarray(draw(4711, 9, 0, 9)).resize((1600, 2400)).save(sink, "JPEG", progressive=True, quality=30)
    data = sink.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * times + data[-2:]


def _exif(tags: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", 0x0100 + number, 3, 1, number) for number in range(tags))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)


# --- polyglots, and damage at random --------------------------------------------------------------


def _polyglots() -> Iterator[Named]:
    html = b"<!DOCTYPE html><script>alert(1)</script>"
    archive = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    for kind in ("jpg", "png", "webp"):
        good = base(kind, 2)
        yield f"{kind}-then-html", good + html
        yield f"{kind}-then-zip", good + archive
        yield f"{kind}-after-html", html + good
        yield f"{kind}-after-pdf", b"%PDF-1.7\n" + good
        for other in ("jpg", "png", "gif"):
            yield f"{kind}-in-front-of-{other}", good[:12] + base(other, 3)
            yield f"{kind}-then-{other}", good + base(other, 3)
    comment = b"\xff\xfe" + struct.pack(">H", len(html) + 2) + html
    yield "jpg-with-script", base("jpg", 2)[:2] + comment + base("jpg", 2)[2:]
    for start in (
        b"",
        b"\0",
        b"<svg/>",
        b"#!/bin/sh\nid",
        b"RIFF",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
    ):
        yield "only-a-start", start
    for brand in (b"ftypavif", b"ftypheic", b"ftypmif1"):
        yield "box-of-a-kind", b"\0\0\0\x18" + brand + bytes(200)
    yield "jxl", b"\xff\x0a" + bytes(100)


Damage = Callable[[random.Random, str, bytearray], Named]


def _flip(random_: random.Random, kind: str, data: bytearray) -> Named:
    for _ in range(random_.choice((1, 4, 40))):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    return f"{kind}-flipped", bytes(data)


def _flip_head(random_: random.Random, kind: str, data: bytearray) -> Named:
    data[random_.randrange(min(len(data), 700))] = random_.randrange(256)
    return f"{kind}-head", bytes(data)


def _cut(random_: random.Random, kind: str, data: bytearray) -> Named:
    return f"{kind}-cut", bytes(data[: random_.randrange(len(data))])


def _splice(random_: random.Random, kind: str, data: bytearray) -> Named:
    other = base(random_.choice(list(_FORMATS)), random_.randrange(6))
    at, start = random_.randrange(len(data)), random_.randrange(len(other))
    return f"{kind}-spliced", bytes(data[:at]) + other[start:]


def _stretch(random_: random.Random, kind: str, data: bytearray) -> Named:
    at, size = random_.randrange(len(data)), random_.choice((1, 64, 4096))
    fill = np.random.default_rng(random_.randrange(2**32)).bytes(size)
    return f"{kind}-stretched", bytes(data[:at]) + fill + bytes(data[at:])


_DAMAGES: tuple[Damage, ...] = (_flip, _flip, _flip_head, _flip_head, _cut, _splice, _stretch)
