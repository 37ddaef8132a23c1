"""Photos with planted metadata, in every container: each secret is a byte string that nothing else holds."""

import io
import random
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.drawn_people import draw
from tests.drawn_profiles import P3, rgb_profile
from tests.hostile.pictures import png_chunk

# What is planted where a container has a place for it.
SECRETS: Mapping[str, bytes] = {
    name: b"SECRET-" + name.encode() + b"-48.8583N"
    for name in (
        "gps", "author", "serial", "maker note", "thumbnail", "xmp", "extended xmp", "iptc", "comment",
        "second picture", "trailer", "text chunk", "packed text", "profile", "manifest", "private",
        "inner xmp", "raw profile",
    )
}  # fmt: skip
_PLACE = struct.pack("<6I", 48, 1, 51, 1, 298765, 10007)  # the same of numbers: a latitude in rationals


@dataclass(frozen=True)
class Case:
    """name; data with metadata; container; secrets: those in it, by name."""

    name: str
    data: bytes
    secrets: Mapping[str, bytes] = field(default_factory=dict)


def found_in(data: bytes) -> set[str]:
    """The secrets in some bytes, also in streams of zlib among them."""
    texts = [data, *_unpacked(data)]
    found = {
        name
        for name, secret in SECRETS.items()
        if any(secret in text or secret.hex().encode() in text for text in texts)
    }
    return found | ({"gps"} if any(_PLACE in text for text in texts) else set())


def _unpacked(data: bytes) -> Iterator[bytes]:
    """What PNG chunks other than pixels hold in packed form."""
    for name in (b"zTXt", b"iTXt", b"iCCP", b"tEXt"):
        at = data.find(name)
        while at >= 0:
            for start in range(at + 4, min(at + 90, len(data))):
                if data[start] == 0x78:
                    try:
                        yield zlib.decompressobj().decompress(data[start : start + 2**20])
                    except zlib.error:
                        continue
            at = data.find(name, at + 4)


# --- what is planted ------------------------------------------------------------------------------


def exif(orientation: int | None) -> bytes:
    """A TIFF block as cameras write it, with its orientation, if any, and six secrets."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    block[0x013B] = SECRETS["author"].decode()
    block[0x02BC] = xmp(secret="inner xmp")
    block.get_ifd(0x8769).update({0xA431: SECRETS["serial"].decode(), 0x927C: SECRETS["maker note"]})
    block.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.85), 28: SECRETS["gps"]})
    return (
        block.tobytes().removeprefix(b"Exif\0\0") + _PLACE + b"\xff\xd8" + SECRETS["thumbnail"] + b"\xff\xd9"
    )


def xmp(more: str = "", secret: str = "xmp") -> bytes:
    """A packet with a secret, and what is put in its description."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">{more}'
        f"<dc:creator>{SECRETS[secret].decode()}</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


@cache
def profile(secret: bool = True) -> bytes:
    """Of Display P3 in matrices, with a description and a maker's tag that hold a secret."""
    plain = rgb_profile(P3)
    texts = {b"mmod": SECRETS["profile"], b"dmdd": b"text" + bytes(4) + SECRETS["profile"]}
    return with_tags(plain, texts) if secret else plain


def with_tags(icc: bytes, more: Mapping[bytes, bytes]) -> bytes:
    """A profile with further tags."""
    count = int.from_bytes(icc[128:132], "big")
    shift, table, body = 12 * len(more), b"", icc[132 + 12 * count :]
    for at in range(132, 132 + 12 * count, 12):
        start, size = struct.unpack(">II", icc[at + 4 : at + 12])
        table += icc[at : at + 4] + struct.pack(">II", start + shift, size)
    end = 132 + 12 * (count + len(more))
    for name, content in more.items():
        table += name + struct.pack(">II", end + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    whole = icc[:128] + struct.pack(">I", count + len(more)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def planted(data: bytes, orientation: int | None, icc: bool = False) -> bytes:
    """A plain photo with all the secrets that its container has places for."""
    if data.startswith(b"\xff\xd8"):
        return _planted_jpeg(data, orientation, icc)
    if data.startswith(b"\x89PNG"):
        return _planted_png(data, orientation, icc)
    return _planted_webp(data, orientation, icc)


def _planted_jpeg(data: bytes, orientation: int | None, icc: bool) -> bytes:
    second = b"\xff\xd8" + segment(0xFE, SECRETS["second picture"]) + data[2:]
    iim = b"\x1c\x02\x50" + struct.pack(">H", len(SECRETS["iptc"])) + SECRETS["iptc"]
    long, inner = xmp(secret="extended xmp"), xmp(secret="inner xmp")
    rest = data[2:]
    head = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\4\4" + SECRETS["thumbnail"].ljust(48))
    if data[2:4] == b"\xff\xe0":
        rest = data[4 + int.from_bytes(data[4:6], "big") :]
    else:
        head = b""
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", len(long), 0)
    parts = [
        head,
        segment(0xE0, b"JFXX\0\x10" + SECRETS["thumbnail"]),
        segment(0xE1, b"Exif\0\0" + exif(orientation)),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp()),
        segment(0xE1, extension + long),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iim)) + iim),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x24\0\0" + struct.pack(">I", len(inner)) + inner),
        segment(0xE2, b"ICC_PROFILE\0\1\1" + profile()) if icc else b"",
        segment(0xE2, b"MPF\0II*\0" + SECRETS["second picture"]),
        segment(0xEB, b"JP\0\1\0\0\0\1" + b"\0\0\0\0jumb" + SECRETS["manifest"]),
        segment(0xE7, SECRETS["private"]),
        b"\xff\xff" + segment(0xFE, SECRETS["comment"])[1:],  # with a fill byte
    ]
    # Progressive files have places between their scans.
    between = segment(0xFE, SECRETS["comment"]) + segment(
        0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(secret="inner xmp")
    )
    at = rest.rfind(b"\xff\xda")
    rest = rest[:at] + between + rest[at:]
    return b"\xff\xd8" + b"".join(parts) + rest + second + SECRETS["trailer"]


def _planted_png(data: bytes, orientation: int | None, icc: bool) -> bytes:
    text = SECRETS["text chunk"]
    front = [
        png_chunk(b"iCCP", b"of Ann's display\0\0" + zlib.compress(profile())) if icc else b"",
        png_chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        png_chunk(b"tEXt", b"Author\0" + text),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(SECRETS["packed text"])),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp()),
        *(raw_profile(name, SECRETS["raw profile"]) for name in ("APP1", "xmp", "iptc", "8bim")),
        png_chunk(b"caBX", b"\0\0\0\0jumb" + SECRETS["manifest"]),
        png_chunk(b"prVt", SECRETS["private"]),
    ]
    back = [png_chunk(b"tEXt", b"Comment\0" + SECRETS["comment"])]
    # Pillow looks for EXIF behind the pixels, but not in an animation.
    (front if b"acTL" in data else back).append(png_chunk(b"eXIf", exif(orientation)))
    return data[:33] + b"".join(front) + data[33:-12] + b"".join(back) + data[-12:] + SECRETS["trailer"]


def raw_profile(name: str, content: bytes) -> bytes:
    """A text chunk of hex digits, as ImageMagick keeps what PNG has no place for."""
    text = f"\n{name}\n{len(content):8}\n{content.hex()}\n".encode()
    return png_chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text))


def _planted_webp(data: bytes, orientation: int | None, icc: bool) -> bytes:
    """Written by Pillow, which orders the chunks, and then added to."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        flags = 0x08 | 0x04 | (0x20 if icc else 0) | (0x10 if image.mode == "RGBA" else 0)
    body = data[12:]
    if body[:4] == b"VP8X":
        flags |= body[8] & 0x02
        body = body[18:]
    chunks = [(b"ICCP", profile())] if icc else []
    behind = [
        (b"EXIF", exif(orientation)), (b"XMP ", xmp()), (b"C2PA", b"\0\0\0\0jumb" + SECRETS["manifest"]),
        (b"priv", SECRETS["private"]),
    ]  # fmt: skip
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    whole = riff(b"VP8X", bytes([flags, 0, 0, 0]) + sides) + b"".join(riff(*each) for each in chunks)
    whole += body + b"".join(riff(*each) for each in behind)
    return b"RIFF" + struct.pack("<I", len(whole) + 4) + b"WEBP" + whole + SECRETS["trailer"]


def riff(name: bytes, content: bytes) -> bytes:
    """A chunk of a WebP."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


# --- the photos -----------------------------------------------------------------------------------

_JPEGS: Mapping[str, Mapping[str, Any]] = {
    "baseline": {},
    "whole chroma": {"subsampling": 0, "quality": 97},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive, restarts": {"progressive": True, "restart_marker_rows": 1},
    "optimised": {"optimize": True, "quality": 40},
    "RGB in RGB": {"keep_rgb": True},
}


def drawn_photos(seed: int) -> Iterator[tuple[str, bytes, bool]]:
    """(kind, a photo without metadata, whether a profile of RGB fits it): one of each, drawn by the seed."""
    people = Image.fromarray(draw(seed, seed, 0, seed))
    people = people.resize((97 + seed % 40, 131 - seed % 23))  # no multiples of a block
    for name, options in _JPEGS.items():
        yield f"jpeg, {name}", saved(people, "JPEG", **options), True
    for mode in ("L", "CMYK"):
        yield f"jpeg, {mode}", saved(people.convert(mode), "JPEG"), False
    second = people.rotate(180)
    yield "jpeg, two pictures", saved(people, "MPO", save_all=True, append_images=[second]), True
    clear = people.convert("RGBA")
    clear.putalpha(people.convert("L"))
    grey16 = Image.fromarray((np.asarray(people.convert("L"), np.uint16) * 257).astype(np.uint16))
    pngs = {
        "RGB": people, "RGBA": clear, "grey": people.convert("L"), "grey and alpha": clear.convert("LA"),
        "palette": people.quantize(40), "one bit": people.convert("1"), "16 bits": grey16,
    }  # fmt: skip
    for name, picture in pngs.items():
        yield f"png, {name}", saved(picture, "PNG"), name in ("RGB", "RGBA", "palette")
    yield "png, palette with clear", saved(people.quantize(40), "PNG", transparency=3), True
    frames = [people, second, people.rotate(90)]
    yield "png, animated", saved(people, "PNG", save_all=True, append_images=frames[1:]), True
    for name, picture, options in (
        ("lossy", people, {}), ("lossless", people, {"lossless": True}), ("lossy, clear", clear, {}),
        ("lossless, clear", clear, {"lossless": True}),
        ("animated", people, {"save_all": True, "append_images": frames[1:]}),
    ):  # fmt: skip
        yield f"webp, {name}", saved(picture, "WEBP", **options), True


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture in a file of that kind."""
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def real_photos(folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Files in three formats below some folders, at most 2 MB each; in order."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") and path.stat().st_size < 2 * 2**20:
                yield f"real, {path.name}", path.read_bytes()


def cases(seeds: int, folders: list[Path]) -> Iterator[Case]:
    """Real files as they are and with secrets, then drawn ones of every kind, turned by lot."""
    turns = random.Random(4)
    for name, data in real_photos(folders):
        yield Case(name, data)
        with Image.open(io.BytesIO(data)) as image:
            has_none = not (image.info.keys() & {"exif", "xmp", "icc_profile"})
        if has_none:
            yield _with_secrets(f"{name}, planted", data, turns.choice([None, *range(1, 9)]), False)
    for seed in range(seeds):
        for name, data, fits in drawn_photos(seed):
            yield _with_secrets(
                f"{name}, {seed}", data, turns.choice([None, *range(1, 9)]), fits and seed % 2 == 0
            )


def _with_secrets(name: str, data: bytes, orientation: int | None, icc: bool) -> Case:
    made = planted(data, orientation, icc)
    return Case(name, made, {secret: SECRETS[secret] for secret in found_in(made)})
