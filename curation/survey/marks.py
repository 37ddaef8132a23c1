"""What the bytes of a photo say of rights: EXIF, XMP (IPTC, PLUS, TDM) and Content Credentials.

Terms of XMP: PLUS 2.0 (`plus:DataMining`), IPTC Photo Metadata 2023.1 (`Iptc4xmpExt:DigitalSourceType`), TDM
Reservation Protocol (`tdm:reservation`); a C2PA manifest is a JUMBF box of the type `c2pa` (C2PA 2.1, 11.1).
"""

import re
from collections.abc import Iterator

from PIL import Image

from shards.format.embedded import embedded_in

_TERMS = (
    ("plus:DataMining", re.compile(rb"plus:DataMining(?:\s*=\s*[\"']|[^<>]*>\s*)([^\"'<>]+)")),
    ("digital source type", re.compile(rb"DigitalSourceType(?:\s*=\s*[\"']|[^<>]*>\s*)([^\"'<>]+)")),
    ("tdm:reservation", re.compile(rb"tdm:reservation(?:\s*=\s*[\"']|[^<>]*>\s*)([^\"'<>]+)")),
)
_C2PA = b"jumdc2pa"
_COPYRIGHT, _ARTIST, _GPS = 0x8298, 0x013B, 0x8825
_MOST_CHARS = 100


def marks_of(data: bytes) -> set[str]:
    """Short names of the marks in a photo's bytes, as "EXIF copyright", "plus:DataMining DMI-PROHIBITED"."""
    embedded = embedded_in(data)
    found = {"Content Credentials (C2PA)"} if _C2PA in data else set[str]()
    return found | {*_of_exif(embedded.exif or b""), *_of_xmp(embedded.xmp or b"")}


def _of_exif(block: bytes) -> Iterator[str]:
    exif = Image.Exif()
    try:
        exif.load(block)
    except Exception:  # it is broken: decoders raise anything at all
        return
    for tag, says in ((_COPYRIGHT, "EXIF copyright"), (_ARTIST, "EXIF author"), (_GPS, "EXIF place (GPS)")):
        if exif.get(tag):
            yield says


def _of_xmp(packet: bytes) -> Iterator[str]:
    for name, pattern in _TERMS:
        for match in pattern.finditer(packet):
            said = match[1].decode("utf-8", "replace").strip().rstrip("/").rpartition("/")[2]
            if said:
                yield f"{name} {said[:_MOST_CHARS]}"
