"""A photo without its metadata: its encoded pixels as they are, what their colours need, which way up it is.

Nothing is encoded anew. What is kept is named here; all else goes, also what nobody has heard of:

    JPEG   tables, frame, scans, restarts; JFIF without its thumbnail, Adobe's transform, ICC
    PNG    IHDR PLTE tRNS IDAT IEND, and the chunks on colours; of an animation the first picture
    WebP   VP8 or VP8L, of VP8 its ALPH, ICCP; of an animation the first picture, where it fills the canvas

Segments and chunks of a fixed length are cut to it, those that may be there once are kept once, and what no
decoder looks at by their specifications goes: palettes of pictures without, pixels behind other chunks.

An orientation other than upright is written as an EXIF block of that one tag. A profile keeps what converts
colours, and its maker's copyright (`shards.format.colour.bare_profile`). What lies behind the end of the
picture goes: second pictures and gain maps of phones (MPF), films, anything else.

Bytes that no decoder looks at may also lie inside of entropy-coded data, in tables that no scan uses and in
the pixels themselves (watermarks): to find them, a photo must be encoded anew.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shards.format.colour import bare_profile, rgb_of
from shards.format.embedded import (
    Embedded,
    embedded_in,
    is_jpeg,
    is_png,
    is_webp,
    jpeg_parts,
    kind_of_segment,
    kind_of_text,
    png_chunks,
    riff_chunks,
)
from shards.format.orientation import FORMATS, stated_orientation, with_orientation

_ICC = b"ICC_PROFILE\0"
_MOST_ICC = 65_519  # bytes of a profile in one segment: 65,533 less the name, the number and the count
_FRAMES_OF_JPEG = frozenset(range(0xC0, 0xD0)) - {0xC8}  # also DHT (C4) and DAC (CC)
_BEGIN, _END, _SCAN, _APP0, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
_NUMBER_OF_LINES = 0xDC  # behind the first scan, two bytes (T.81, B.2.5)
_KEPT_OF_JPEG = _FRAMES_OF_JPEG | {0, _BEGIN, _END, _SCAN, 0xDB, 0xDD}
# Bytes of chunks (PNG, third edition, 11), and by type of colour: grey, RGB, palette, grey or RGB with alpha.
_LENGTHS = {
    b"IHDR": 13, b"IEND": 0, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"cLLI": 8,
}  # fmt: skip
_LENGTHS_BY_COLOUR = {
    b"PLTE": {3: 768},
    b"tRNS": {0: 2, 2: 6, 3: 256},
    b"sBIT": {0: 1, 2: 3, 3: 3, 4: 2, 6: 4},
}
_HAS_PROFILE, _HAS_ALPHA = 0x20, 0x10  # flags of VP8X
_SMALLEST_EXIF = 26  # bytes of a block of one tag


@dataclass(frozen=True)
class Stripped:
    """data: the photo; gone: {kind: bytes that were there of it}, empty where the photo is as it was, and
    only there."""

    data: bytes
    gone: Mapping[str, int]


def without_metadata(data: bytes, *, keep_profile: bool = True, prove: bool = True) -> Stripped:
    """The photo without all that is not its picture. Never larger; stripped once more it stays as it is.

    keep_profile   False drops ICC profiles too; for photos whose profile changes no colour
    prove          decodes both, and compares every pixel, the orientation and the colours

    Raises ValueError for other bytes than a whole JPEG, PNG or WebP, for an animated WebP whose first frame
    does not fill its canvas, and where the pixels would not be the same. OSError where it does not decode.
    """
    embedded = embedded_in(data)
    profile = bare_profile(embedded.profile) if keep_profile and embedded.profile is not None else None
    gone: Counter[str] = Counter()
    if is_jpeg(data):
        bare = _bare_jpeg(data, profile, gone)
    elif is_png(data):
        bare = _bare_png(data, profile, gone)
    elif is_webp(data):
        bare = _bare_webp(data, profile, gone)
    else:
        raise ValueError("no JPEG, PNG or WebP")
    made = with_orientation(bare, stated_orientation(embedded))
    if made == data or (len(made) > len(data) and _is_least(embedded, gone)):
        return Stripped(data, {})
    if prove:
        _prove(data, made, embedded, same_colours=keep_profile)
    if not gone:  # lengths in the container, bytes that pad it
        gone["other"] = max(len(data) - len(made), sum(map(int.__ne__, data, made)), 1)
    return Stripped(made, dict(sorted(gone.items())))


def _is_least(embedded: Embedded, gone: Mapping[str, int]) -> bool:
    """Whether nothing is there but an EXIF block that has no room for anything beside the orientation."""
    return set(gone) == {"exif"} and len(embedded.exif or b"") <= _SMALLEST_EXIF


# --- JPEG -----------------------------------------------------------------------------------------


def _bare_jpeg(data: bytes, profile: bytes | None, gone: Counter[str]) -> bytes:
    kept: list[bytes] = []
    has_jfif = has_profile = False
    at = icc_bytes = 0
    has_scan = is_ended = False
    for marker, start, stop in jpeg_parts(data):
        if stop > len(data):
            if not has_scan or marker in _KEPT_OF_JPEG:
                raise ValueError("a JPEG that is cut short")
            stop = len(data)  # decoders show the picture in front of a segment that is none of it
        gone["other"] += start - at
        at = stop
        part, content = data[start:stop], data[start + 4 : stop]
        has_scan, is_ended = has_scan or marker == _SCAN, marker == _END
        if marker in _KEPT_OF_JPEG:
            kept.append(part)
        elif marker == _NUMBER_OF_LINES and has_scan and len(content) >= 2:
            kept.append(_segment(marker, content[:2]))
            gone["other"] += len(content) - 2
        elif marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 14 and not has_jfif:
            has_jfif = True
            kept.append(_segment(_APP0, content[:12] + bytes(2)))
            gone["thumbnail"] += len(content) - 14
        elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
            kept.append(_segment(_APP14, content[:12]))
            gone["other"] += len(content) - 12
        elif marker == _APP2 and content.startswith(_ICC):
            icc_bytes += len(part)
            if profile is not None and not has_profile:
                has_profile = True
                kept += _icc_segments(profile)
                icc_bytes -= sum(map(len, _icc_segments(profile)))
        else:
            gone[kind_of_segment(marker, content)] += len(part)
    gone["profile"] += max(icc_bytes, 0)
    gone["behind the picture"] += len(data) - at
    if not is_ended and sum(gone.values()) >= 2:
        kept.append(bytes([0xFF, _END]))  # in the place of what stood there
    _drop_empty(gone)
    return b"".join(kept)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _icc_segments(profile: bytes) -> list[bytes]:
    parts = [profile[at : at + _MOST_ICC] for at in range(0, len(profile), _MOST_ICC)]
    return [_segment(_APP2, _ICC + bytes([n, len(parts)]) + part) for n, part in enumerate(parts, 1)]


# --- PNG ------------------------------------------------------------------------------------------


def _bare_png(data: bytes, profile: bytes | None, gone: Counter[str]) -> bytes:
    kept, at, colour = [data[:8]], 8, -1
    names: list[bytes] = []
    has_profile = False
    for start, name, content, stop in png_chunks(data):
        at = stop + 4
        if at > len(data):
            raise ValueError("a PNG that is cut short")
        chunk = data[start:at]
        if name == b"IHDR" and stop - content >= 10:
            colour = data[content + 9]
        most = _LENGTHS.get(name, _LENGTHS_BY_COLOUR.get(name, {}).get(colour))
        if name == b"IDAT" and (b"IDAT" not in names or names[-1] == b"IDAT"):
            kept.append(chunk)
        elif most is not None and name not in names and _is_long_enough(name, stop - content):
            kept.append(chunk if stop - content <= most else _chunk(name, data[content : content + most]))
            gone["other"] += max(stop - content - most, 0)
        elif name == b"iCCP" and profile is not None and not has_profile:
            has_profile = True
            bare = _profile_chunk(profile)
            kept.append(min(bare, chunk, key=len) if _holds_only(data[content:stop], profile) else bare)
            gone["profile"] += max(len(chunk) - len(kept[-1]), 0)
        else:
            gone[_kind_of_chunk(name, data[content:stop])] += len(chunk)
        names.append(name)
    if len(kept) < 2 or kept[1][4:8] != b"IHDR":
        raise ValueError("a PNG without a header")
    gone["behind the picture"] += len(data) - at
    _drop_empty(gone)
    return b"".join(kept)


def _is_long_enough(name: bytes, length: int) -> bool:
    """Whether a chunk has what its kind must have; of another length decoders pass over it."""
    return name not in _LENGTHS or length >= _LENGTHS[name]


def _chunk(name: bytes, content: bytes) -> bytes:
    named = name + content
    return struct.pack(">I", len(content)) + named + struct.pack(">I", zlib.crc32(named))


def _profile_chunk(profile: bytes) -> bytes:
    return _chunk(b"iCCP", b"ICC\0\0" + zlib.compress(profile, 9))


def _holds_only(content: bytes, profile: bytes) -> bool:
    """Whether a chunk is this very profile, without a name of somebody's choice and nothing behind it."""
    name, _, packed = content.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        same = unpacking.decompress(packed[1:], len(profile) + 1) == profile
    except zlib.error:
        return False
    return same and unpacking.eof and not unpacking.unused_data and name.lower() in (b"icc", b"icc profile")


def _kind_of_chunk(name: bytes, content: bytes) -> str:
    if name in (b"tEXt", b"zTXt", b"iTXt"):
        return kind_of_text(content)
    if name in (b"acTL", b"fcTL", b"fdAT"):
        return "further frames"
    return {b"eXIf": "exif", b"iCCP": "profile", b"caBX": "c2pa"}.get(name, "other")


# --- WebP -----------------------------------------------------------------------------------------


def _bare_webp(data: bytes, profile: bytes | None, gone: Counter[str]) -> bytes:
    end = min(8 + int.from_bytes(data[4:8], "little"), len(data))
    extended, canvas, flags = False, b"", 0
    pictures: list[tuple[bytes, bytes]] = []
    at = 12
    for name, start, stop in riff_chunks(data[:end]):
        if stop > len(data):
            raise ValueError("a WebP that is cut short")
        at = min(stop + (stop - start) % 2, len(data))
        content, size = data[start:stop], at - start + 8
        if name == b"VP8X" and len(content) >= 10 and not extended:
            extended, canvas, flags = True, content[4:10], content[0] & _HAS_ALPHA
        elif name in (b"VP8 ", b"VP8L", b"ALPH") and not _has_picture(pictures):
            pictures.append((name, content))
        elif name == b"ANMF" and not _has_picture(pictures):
            pictures = _first_frame(content, canvas)
            gone["further frames"] += size - sum(8 + len(part) + len(part) % 2 for _, part in pictures)
        elif name == b"ICCP" and profile is not None:
            gone["profile"] += max(len(content) - len(profile), 0)
        else:
            gone[_KINDS_OF_RIFF.get(name, "other")] += size
    gone["behind the picture"] += len(data) - at
    if not _has_picture(pictures):
        raise ValueError("a WebP without a picture")
    # A picture's transparency is in one chunk before it, where the header says so; VP8L has its own.
    has_alpha = flags & _HAS_ALPHA and pictures[-1][0] == b"VP8 "
    shown = [*[part for part in pictures if has_alpha and part[0] == b"ALPH"][:1], pictures[-1]]
    gone["other"] += sum(8 + len(part) + len(part) % 2 for _, part in pictures)
    gone["other"] -= sum(8 + len(part) + len(part) % 2 for _, part in shown)
    pictures = shown
    _drop_empty(gone)
    if extended:
        flags |= _HAS_PROFILE if profile else 0
        head = [(b"VP8X", bytes([flags, 0, 0, 0]) + canvas), *([(b"ICCP", profile)] if profile else [])]
        pictures = [*head, *pictures]
    body = b"".join(
        name + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for name, part in pictures
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


_KINDS_OF_RIFF = {
    b"EXIF": "exif", b"XMP ": "xmp", b"ICCP": "profile", b"C2PA": "c2pa",
    b"ANIM": "further frames", b"ANMF": "further frames",
}  # fmt: skip


def _has_picture(parts: list[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"VP8 ", b"VP8L") for name, _ in parts)


def _first_frame(content: bytes, canvas: bytes) -> list[tuple[bytes, bytes]]:
    """The picture of an ANMF chunk: 16 bytes of place, size and timing, then chunks."""
    if content[:6] != bytes(6) or content[6:12] != canvas:
        raise ValueError("an animated WebP whose first frame does not fill its canvas")
    inner = bytes(12) + content[16:]
    return [
        (name, inner[start:stop])
        for name, start, stop in riff_chunks(inner)
        if name in (b"ALPH", b"VP8 ", b"VP8L")
    ]


def _drop_empty(gone: Counter[str]) -> None:
    for kind in [kind for kind, count in gone.items() if count <= 0]:
        del gone[kind]


# --- the same pixels ------------------------------------------------------------------------------


def _prove(before: bytes, after: bytes, embedded: Embedded, *, same_colours: bool) -> None:
    """Raises ValueError where a viewer would see another picture. Both are decoded as they are encoded."""
    left = embedded_in(after)
    if stated_orientation(left) != stated_orientation(embedded):
        raise ValueError("the photo would be turned otherwise without its metadata")
    if same_colours and (left.profile is None) != (bare_profile(embedded.profile) is None):
        raise ValueError("the photo would lose its profile of colours")
    if not np.array_equal(_pixels(before), _pixels(after)):
        raise ValueError("the photo would have other pixels without its metadata")


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        return rgb_of(image, None)
