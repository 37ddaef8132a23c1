"""EXIF, XMP, IIM, colour profile and C2PA of an encoded photo, found without decoding it.

JPEG keeps them in segments before its first scan, PNG in chunks on either side of its pixels, WebP in chunks
of RIFF. Pillow finds a PNG's only by decoding it where they do not lie before the pixels, or are not there.
XMP and IIM may lie inside of one another: in a tag of EXIF, in a resource of Photoshop, as text in a PNG; and
behind scans of a JPEG, where no decoder looks.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

MAX_PROFILE_BYTES = 4 * 2**20  # those of printers have 3 MB; a larger one counts as none
_MAX_HEX_BYTES = 2 * 2**20  # of a PNG's text with EXIF or IIM as digits
# Of all packets of a PNG, all its texts of digits, and all in tags of EXIF; an edit's history has megabytes.
_MAX_XMP_BYTES = 16 * 2**20
_MAX_RATIO = 1032  # of what zlib unpacks to what it is given
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_BEGIN, _END, _SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset([0x00, 0x01, *range(0xD0, 0xD9)])
# What ends entropy-coded data: 0xFF there is followed by 0, or by a restart's number. Bytes of 0xFF before it
# are no part of the pattern: each of a run would be a beginning of its own, and a run cost its square.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_MORE_XMP, _PHOTOSHOP = b"http://ns.adobe.com/xmp/extension/\0", b"Photoshop 3.0\0"
_IIM_RESOURCE, _XMP_RESOURCE = b"\x04\x04", b"\x04\x24"
# Tags of EXIF's first directory: XMPPacket, IPTC-NAA, Photoshop's resources (Adobe, TIFF technical notes).
_XMP_TAG, _IIM_TAG, _PHOTOSHOP_TAG = _INNER_TAGS = 0x02BC, 0x83BB, 0x8649
_TIFF = (b"II*\0", b"MM\0*")
_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 9: 4}  # of TIFF
_SIGNATURES = (b"8BIM", b"8B64", b"AgHg", b"DCSR", b"MeSa", b"PHUT")  # of Photoshop's resources
_PNG_XMP, _PNG_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
_PNG_IPTC, _PNG_RAW_XMP = b"Raw profile type iptc", b"Raw profile type xmp"
_PNG_8BIM, _PNG_APP1 = b"Raw profile type 8bim", b"Raw profile type APP1"
_PNG_PACKETS = (_PNG_XMP, _PNG_RAW_XMP, _PNG_APP1)
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
    _PNG_APP1: "exif",
    _PNG_IPTC: "iptc",
    _PNG_8BIM: "iptc",
    _PNG_RAW_XMP: "xmp",
}
_KNOWN_RESOURCE = re.compile(b"8BIM\x04[\x04\x24]")
_NO_HEX = re.compile(rb"[^0-9a-fA-F]")


@dataclass(frozen=True)
class Embedded:
    """None where there is none.

    exif             TIFF from its byte order on; of several where decoders look for it
    xmp              the first packet where decoders look for it
    more_xmp         others: of further segments, in EXIF or Photoshop's resources, behind scans
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


def embedded_in(data: bytes, behind_scans: bool = False) -> Embedded:
    """EXIF, XMP and profile of a JPEG, PNG or WebP; none of other bytes, and none that is broken.

    A PNG's cICP, gAMA and cHRM are not looked at: writers set the last two to sRGB's by habit.

    behind_scans   looks for XMP and IIM also between the scans of a JPEG and behind the last one, for which
                   all of its bytes are read
    """
    if is_jpeg(data):
        return _in_jpeg(data, behind_scans)
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
            while following is not None and stop > at and data[stop - 1] == 0xFF:
                stop -= 1  # bytes that fill the place before a marker
            yield 0, at, stop
            at = stop


def jpeg_segments(data: bytes, behind_scans: bool = False) -> Iterator[tuple[int, int, bytes]]:
    """(place of its 0xFF, marker, content) of the segments before the first scan, or of all of them.

    Headers of scans are among the latter, what is coded is not.
    """
    for marker, start, stop in jpeg_parts(data):
        if marker == _END or (marker == _SCAN and not behind_scans):
            return
        if marker not in (_BEGIN, 0) and start + 4 <= len(data):
            yield start, marker, data[start + 4 : stop]


def _in_jpeg(data: bytes, behind_scans: bool) -> Embedded:
    exif: list[bytes] = []
    photoshop: list[bytes] = []
    packets: list[bytes] = []
    inner = _Inner()
    extended: dict[bytes, list[tuple[int, bytes]]] = {}
    parts: dict[int, bytes] = {}
    count = 0
    has_credentials = is_behind = False
    for place, marker, content in jpeg_segments(data, behind_scans):
        is_behind |= marker == _SCAN
        if marker in (0xE1, 0xED):
            inner.is_cut |= len(content) + 2 < int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xE1 and content.startswith(_EXIF):
            if is_behind:
                inner.take_exif(content[len(_EXIF) :])
            else:
                exif.append(content[len(_EXIF) :])
        elif marker == 0xE1 and content.startswith(_XMP):
            (inner.packets if is_behind else packets).append(content[len(_XMP) :])
        elif marker == 0xE1 and content.startswith(_MORE_XMP) and len(content) > len(_MORE_XMP) + 40:
            # The digest of the whole, its length, where this part lies in it (XMP part 3, 1.1.3.1).
            name, rest = content[len(_MORE_XMP) :][:36], content[len(_MORE_XMP) + 36 :]
            extended.setdefault(name, []).append((int.from_bytes(rest[:4], "big"), rest[4:]))
        elif marker == 0xED and content.startswith(_PHOTOSHOP):
            photoshop.append(content[len(_PHOTOSHOP) :])
        elif is_behind:
            continue
        elif marker == 0xEB and content.startswith(b"JP") and b"jumb" in content[:32]:
            has_credentials |= b"c2pa" in content[:64]
        elif marker == 0xE2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            number, count = content[len(_ICC)], content[len(_ICC) + 1]
            parts[number] = content[len(_ICC) + 2 :]
    is_whole = count > 0 and all(number in parts for number in range(1, count + 1))
    profile = b"".join(parts[number] for number in range(1, count + 1)) if is_whole else None
    for name, pieces in extended.items():
        pieces.sort(key=lambda piece: piece[0])
        inner.packets.append(b"".join(piece for _, piece in pieces))
        inner.is_cut |= len(inner.packets[-1]) < int.from_bytes(name[32:], "big")
    begins = [at for at, part in enumerate(exif) if part.startswith(_TIFF)]
    for start, stop in pairwise([*begins, len(exif)]):  # more than a segment holds goes on in the next one
        inner.take_exif(b"".join(exif[start:stop]))
    inner.take_photoshop(b"".join(photoshop))
    return inner.embedded(b"".join(exif), packets, _of_bearable_size(profile), has_credentials)


@dataclass
class _Inner:
    """XMP and IIM where no decoder looks for them: inside of EXIF and of Photoshop's resources.

    room   bytes that may still be taken out of EXIF, whose entries may all point at the same ones
    """

    packets: list[bytes] = field(default_factory=list)
    iim: list[bytes] = field(default_factory=list)
    is_cut: bool = False
    room: int = _MAX_XMP_BYTES

    def take_exif(self, tiff: bytes) -> None:
        """What tags of the first directory of a TIFF hold, from its byte order on; the same bytes once."""
        for tag, start, stop in dict.fromkeys(_first_directory(tiff)):
            if tag not in _INNER_TAGS or start == stop:
                continue
            if stop > len(tiff):
                self.is_cut |= tag == _XMP_TAG
                continue
            self.room -= stop - start
            if self.room < 0:
                self.is_cut = True
                return
            content = tiff[start:stop]
            if tag == _XMP_TAG:
                self.packets.append(content)
            elif tag == _IIM_TAG:
                self.iim.append(content)
            else:
                self.take_photoshop(content)

    def take_app1(self, content: bytes) -> None:
        """The content of such a segment of a JPEG, as ImageMagick keeps it."""
        if content.startswith(_XMP):
            self.packets.append(content[len(_XMP) :])
        elif content.startswith(_EXIF):
            self.take_exif(content[len(_EXIF) :])

    def take_photoshop(self, block: bytes) -> None:
        """What Photoshop's resources hold."""
        for number, content, is_whole in _resources(block):
            if number == _IIM_RESOURCE:
                self.iim.append(content)
            elif number == _XMP_RESOURCE:
                self.packets.append(content)
                self.is_cut |= not is_whole

    def embedded(
        self, exif: bytes, packets: list[bytes], profile: bytes | None, has_credentials: bool
    ) -> Embedded:
        """All of it, with what lies where it belongs."""
        return Embedded(
            exif or None,
            packets[0] if packets else None,
            profile,
            b"".join(self.iim) or None,
            (*packets[1:], *self.packets),
            has_credentials,
            self.is_cut,
        )


def _first_directory(tiff: bytes) -> Iterator[tuple[int, int, int]]:
    """(tag, start, stop) of the entries of a TIFF's first directory; they may stop behind its bytes."""
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    if tiff[:4] not in _TIFF:
        return
    at = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[at : at + 2], order)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = (int.from_bytes(tiff[entry + 2 * i : entry + 2 * i + 2], order) for i in (0, 1))
        size = int.from_bytes(tiff[entry + 4 : entry + 8], order) * _BYTES_OF_TYPE.get(kind, 0)
        start = entry + 8 if size <= 4 else int.from_bytes(tiff[entry + 8 : entry + 12], order)
        yield tag, start, start + size


def _resources(photoshop: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(number, content, whether it is whole) of Photoshop's resources.

    Each is a signature, a number, a name and a length; padded to two bytes. Behind what is none of them the
    next one of IIM or XMP is looked for.
    """
    at = 0
    while at + 12 <= len(photoshop):
        if photoshop[at : at + 4] not in _SIGNATURES:
            following = _KNOWN_RESOURCE.search(photoshop, at + 1)
            if following is None:
                return
            at = following.start()
        named = at + 6
        size_at = named + (photoshop[named : named + 1] or b"\0")[0] // 2 * 2 + 2
        length = int.from_bytes(photoshop[size_at : size_at + 4], "big")
        start = size_at + 4
        yield photoshop[at + 4 : named], photoshop[start : start + length], start + length <= len(photoshop)
        at = start + length + length % 2


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
    exif = profile = None
    packets: list[bytes] = []
    inner = _Inner()
    has_credentials = False
    room = room_for_hex = _MAX_XMP_BYTES
    for _, name, start, stop in png_chunks(data):
        if name == b"eXIf":
            exif = data[start:stop].removeprefix(_EXIF)
            inner.take_exif(exif)
        elif name == b"caBX":
            has_credentials = True
        elif name == b"iCCP" and profile is None:
            _, _, packed = data[start:stop].partition(b"\0")
            profile = _unpacked(packed[1:], MAX_PROFILE_BYTES)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, content = data[start:stop].partition(b"\0")
            if key in _PNG_PACKETS:  # XMP is iTXt by its rule; libvips 8.18 writes zTXt
                text = None if stop > len(data) else _text_of(name, content, room)
                room -= _cost(text, content, room)
                packet = _from_hex(text) if text and key != _PNG_XMP else text
                inner.is_cut |= packet is None
                if key == _PNG_APP1:
                    inner.take_app1(packet or b"")
                else:
                    packets += [packet] if packet else []
            elif key in (_PNG_EXIF, _PNG_IPTC, _PNG_8BIM):
                most = min(_MAX_HEX_BYTES, room_for_hex)
                text = None if stop > len(data) else _text_of(name, content, most)
                room_for_hex -= _cost(text, content, most)
                inner.is_cut |= text is None
                block = _from_hex(text or b"") or b""
                if key == _PNG_EXIF:
                    block = block.removeprefix(_EXIF)
                    exif = exif or block
                    inner.take_exif(block)
                elif block.startswith(_SIGNATURES):
                    inner.take_photoshop(block)
                else:
                    inner.iim.append(block)
    return inner.embedded(exif or b"", packets, _of_bearable_size(profile), has_credentials)


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


def _cost(text: bytes | None, content: bytes, most: int) -> int:
    """The bytes that a text has, or may have had before it turned out to be broken or too long."""
    return min(most, _MAX_RATIO * len(content)) if text is None else len(text)


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
    inner = _Inner()
    for name, start, stop in riff_chunks(data):
        if name == b"XMP ":
            packets.append(data[start:stop])
            inner.is_cut |= stop > len(data)
        elif name == b"EXIF":
            tiff = data[start:stop].removeprefix(_EXIF)
            inner.take_exif(tiff)
            found.setdefault(name, tiff)
        elif name in (b"ICCP", b"C2PA"):
            found.setdefault(name, data[start:stop])
    return inner.embedded(
        found.get(b"EXIF", b""), packets, _of_bearable_size(found.get(b"ICCP")), b"C2PA" in found
    )


def _of_bearable_size(profile: bytes | None) -> bytes | None:
    return profile if profile and len(profile) <= MAX_PROFILE_BYTES else None
