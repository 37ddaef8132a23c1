"""EXIF, XMP, IIM, colour profile and C2PA of an encoded photo, found without decoding it.

JPEG keeps them in segments before its first scan, PNG in chunks on either side of its pixels, WebP in chunks
of RIFF. Pillow finds a PNG's only by decoding it where they do not lie before the pixels, or are not there.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PROFILE_BYTES = 4 * 2**20  # those of printers have 3 MB; a larger one counts as none
_MAX_TEXT_BYTES = 2**20  # of EXIF or IIM that is packed
_MAX_XMP_BYTES = 16 * 2**20  # of all packets together; histories of edits have megabytes
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_BEGIN, _END, _SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset([0x00, 0x01, *range(0xD0, 0xD9)])
# What ends entropy-coded data: 0xFF there is followed by 0, or by a restart's number. A pattern that begins
# with `\xff+` is searched for without memchr: 15 times slower.
_NEXT_MARKER = re.compile(rb"\xff\xff*[^\x00\xd0-\xd7\xff]")
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_MORE_XMP, _PHOTOSHOP = b"http://ns.adobe.com/xmp/extension/\0", b"Photoshop 3.0\0"
_IIM_RESOURCE = b"\x04\x04"
_SIGNATURES = (b"8BIM", b"8B64", b"AgHg", b"DCSR", b"MeSa", b"PHUT")  # of Photoshop's resources
_PNG_XMP, _PNG_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
_PNG_IPTC, _PNG_RAW_XMP = b"Raw profile type iptc", b"Raw profile type xmp"
_KINDS_OF_SEGMENTS = (
    (0xE0, b"JFXX\0", "thumbnail"),
    (0xE1, b"Exif\0", "exif"),
    (0xE1, b"http://ns.adobe.com/", "xmp"),
    (0xE2, b"ICC_PROFILE\0", "profile"),
    (0xE2, b"MPF\0", "mpf"),
    (0xEB, b"JP", "c2pa"),
    (0xED, b"Photoshop 3.0\0", "iptc"),
)
_KINDS_OF_TEXTS = {
    _PNG_XMP: "xmp",
    _PNG_EXIF: "exif",
    b"Raw profile type APP1": "exif",
    _PNG_IPTC: "iptc",
    _PNG_RAW_XMP: "xmp",
}
_NO_HEX = re.compile(rb"[^0-9a-fA-F]")


@dataclass(frozen=True)
class Embedded:
    """None where there is none.

    exif             TIFF from its byte order on
    xmp              the first packet; more_xmp: others, and what is too long for one segment of a JPEG
    profile          ICC
    iim              IPTC's records from before XMP
    has_credentials  whether a C2PA manifest is in the file
    has_cut_xmp      whether there is XMP that is not here as a whole: too much, broken, or of missing parts
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    profile: bytes | None = None
    iim: bytes | None = None
    more_xmp: tuple[bytes, ...] = ()
    has_credentials: bool = False
    has_cut_xmp: bool = False


def embedded_in(data: bytes) -> Embedded:
    """EXIF, XMP and profile of a JPEG, PNG or WebP; none of other bytes, and none that is broken.

    A PNG's cICP, gAMA and cHRM are not looked at: writers set the last two to sRGB's by habit.
    """
    if is_jpeg(data):
        return _in_jpeg(data)
    if is_png(data):
        return _in_png(data)
    return _in_webp(data) if is_webp(data) else Embedded()


def is_jpeg(data: bytes) -> bool:
    """Whether bytes begin as a JPEG does."""
    return data.startswith(_JPEG)


def is_png(data: bytes) -> bool:
    """Whether bytes begin as a PNG does."""
    return data.startswith(_PNG)


def is_webp(data: bytes) -> bool:
    """Whether bytes begin as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def kind_of_segment(marker: int, content: bytes) -> str:
    """What a segment of a JPEG holds that is no part of the picture, in a word."""
    if marker == 0xFE:
        return "comment"
    for place, beginning, kind in _KINDS_OF_SEGMENTS:
        if marker == place and content.startswith(beginning):
            return kind
    return "other"


def kind_of_text(content: bytes) -> str:
    """The same of a text chunk of a PNG."""
    return _KINDS_OF_TEXTS.get(content.partition(b"\0")[0], "text")


def jpeg_parts(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, stop) of every part of the first picture of a JPEG in order, its 0xFF included.

    The entropy-coded data behind the header of a scan are a part of their own, with the marker 0. What lies
    between two parts is none: decoders pass over it. A part that is cut short stops behind the data.
    """
    yield _BEGIN, 0, 2
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 2 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _END:
            yield marker, at, at + 2
            return
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, stop
        at = max(stop, at + 4)
        if marker == _SCAN:
            following = _NEXT_MARKER.search(data, at)
            stop = len(data) if following is None else following.start()
            yield 0, at, stop
            at = stop


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(place of its 0xFF, marker, content) of the segments before the first scan."""
    for marker, start, stop in jpeg_parts(data):
        if marker in (_SCAN, _END):
            return
        if marker != _BEGIN and start + 4 <= len(data):
            yield start, marker, data[start + 4 : stop]


def _in_jpeg(data: bytes) -> Embedded:
    exif = photoshop = b""
    packets: list[bytes] = []
    extended: dict[bytes, list[tuple[int, bytes]]] = {}
    parts: dict[int, bytes] = {}
    count = 0
    has_credentials = False
    for _, marker, content in jpeg_segments(data):
        if marker == 0xE1 and content.startswith(_EXIF):
            exif += content[len(_EXIF) :]  # more than a segment holds goes on in the next one
        elif marker == 0xE1 and content.startswith(_XMP):
            packets.append(content[len(_XMP) :])
        elif marker == 0xE1 and content.startswith(_MORE_XMP) and len(content) > len(_MORE_XMP) + 40:
            # The digest of the whole, its length, where this part lies in it (XMP part 3, 1.1.3.1).
            name, rest = content[len(_MORE_XMP) :][:36], content[len(_MORE_XMP) + 36 :]
            extended.setdefault(name, []).append((int.from_bytes(rest[:4], "big"), rest[4:]))
        elif marker == 0xED and content.startswith(_PHOTOSHOP):
            photoshop += content[len(_PHOTOSHOP) :]
        elif marker == 0xEB and content.startswith(b"JP") and b"jumb" in content[:32]:
            has_credentials |= b"c2pa" in content[:64]
        elif marker == 0xE2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            number, count = content[len(_ICC)], content[len(_ICC) + 1]
            parts[number] = content[len(_ICC) + 2 :]
    is_whole = count > 0 and all(number in parts for number in range(1, count + 1))
    profile = b"".join(parts[number] for number in range(1, count + 1)) if is_whole else None
    is_cut = False
    for name, pieces in extended.items():
        pieces.sort(key=lambda piece: piece[0])
        packets.append(b"".join(piece for _, piece in pieces))
        is_cut |= len(packets[-1]) < int.from_bytes(name[32:], "big")
    return Embedded(
        exif or None,
        packets[0] if packets else None,
        _of_bearable_size(profile),
        _iim_in(photoshop),
        tuple(packets[1:]),
        has_credentials,
        is_cut,
    )


def _iim_in(photoshop: bytes) -> bytes | None:
    """The IIM of Photoshop's resources, of several one behind the other.

    Each is a signature, a number, a name and a length; padded to two bytes. Behind what is none of them the
    next one of IIM is looked for.
    """
    found, at = [], 0
    while at + 12 <= len(photoshop):
        if photoshop[at : at + 4] not in _SIGNATURES:
            at = photoshop.find(b"8BIM" + _IIM_RESOURCE, at + 1)
            if at < 0:
                break
        named = at + 6
        size_at = named + (photoshop[named] + 2) // 2 * 2
        length = int.from_bytes(photoshop[size_at : size_at + 4], "big")
        start = size_at + 4
        if photoshop[at + 4 : named] == _IIM_RESOURCE:
            found.append(photoshop[start : start + length])
        at = start + length + length % 2
    return b"".join(found) or None


def png_chunks(data: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """(place of its length, name, start and stop of its content) of every chunk."""
    at = len(_PNG)
    while at + 8 <= len(data):
        start = at + 8
        stop = start + int.from_bytes(data[at : at + 4], "big")
        yield at, data[at + 4 : start], start, stop
        if data[at + 4 : start] == b"IEND":
            return
        at = stop + 4


def _in_png(data: bytes) -> Embedded:
    exif = profile = iim = None
    packets: list[bytes] = []
    has_credentials = is_cut = False
    for _, name, start, stop in png_chunks(data):
        if name == b"eXIf":
            exif = data[start:stop]
        elif name == b"caBX":
            has_credentials = True
        elif name == b"iCCP" and profile is None:
            _, _, packed = data[start:stop].partition(b"\0")
            profile = _unpacked(packed[1:], MAX_PROFILE_BYTES)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, content = data[start:stop].partition(b"\0")
            if key in (_PNG_XMP, _PNG_RAW_XMP):  # iTXt by XMP's rule; libvips 8.18 writes zTXt
                room = _MAX_XMP_BYTES - sum(map(len, packets))
                text = None if stop > len(data) else _text_of(name, content, room)
                packet = _from_hex(text) if text and key == _PNG_RAW_XMP else text
                is_cut |= packet is None
                packets += [packet] if packet else []
            elif key in (_PNG_EXIF, _PNG_IPTC):
                block = _from_hex(_text_of(name, content[: 2 * _MAX_TEXT_BYTES], 2 * _MAX_TEXT_BYTES) or b"")
                if key == _PNG_IPTC and block is not None:
                    iim = _iim_in(block) if block.startswith(_SIGNATURES) else block
                elif key == _PNG_EXIF and exif is None:
                    exif = block
    return Embedded(
        (exif or b"").removeprefix(_EXIF) or None,
        packets[0] if packets else None,
        _of_bearable_size(profile),
        iim,
        tuple(packets[1:]),
        has_credentials,
        is_cut,
    )


def _text_of(name: bytes, content: bytes, most: int) -> bytes | None:
    """The whole text of a text chunk behind its key; None where it is broken, cut, or longer than `most`."""
    if name == b"iTXt":
        parts = content[2:].split(b"\0", 2)
        if len(parts) < 3:
            return None
        is_packed, content = content[0] != 0, parts[2]
    else:
        is_packed, content = name == b"zTXt", content[name == b"zTXt" :]
    if not is_packed:
        return content if len(content) <= most else None
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(content, most + 1) if most > 0 else b""
    except zlib.error:
        return None
    return text if unpacking.eof and len(text) <= most else None


def _from_hex(text: bytes) -> bytes | None:
    """EXIF as ImageMagick writes it: a blank line, a name, a length, then lines of hex digits."""
    lines = text.split(b"\n", 3)
    if len(lines) < 4:
        return None
    digits = _NO_HEX.sub(b"", lines[3])
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii")) or None


def _unpacked(packed: bytes, most: int) -> bytes | None:
    """At most one byte more than `most` of a zlib stream; None where it is none."""
    try:
        return zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error:
        return None


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start and stop of its content) of every chunk of a WebP."""
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + length % 2


def _in_webp(data: bytes) -> Embedded:
    found: dict[bytes, bytes] = {}
    packets: list[bytes] = []
    is_cut = False
    for name, start, stop in riff_chunks(data):
        if name == b"XMP ":
            packets.append(data[start:stop])
            is_cut |= stop > len(data)
        elif name in (b"EXIF", b"ICCP", b"C2PA"):
            found.setdefault(name, data[start:stop])
    exif = found.get(b"EXIF", b"").removeprefix(_EXIF)
    return Embedded(
        exif or None,
        packets[0] if packets else None,
        _of_bearable_size(found.get(b"ICCP")),
        None,
        tuple(packets[1:]),
        b"C2PA" in found,
        is_cut,
    )


def _of_bearable_size(profile: bytes | None) -> bytes | None:
    return profile if profile and len(profile) <= MAX_PROFILE_BYTES else None
