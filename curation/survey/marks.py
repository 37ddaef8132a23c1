"""What the bytes of a photo say of rights: EXIF, XMP (IPTC, PLUS, TDM) and Content Credentials.

Terms of XMP: PLUS 2.0 (`plus:DataMining`), IPTC Photo Metadata 2023.1 (`Iptc4xmpExt:DigitalSourceType`), TDM
Reservation Protocol (`tdm:reservation`); a C2PA manifest is a JUMBF box of the type `c2pa` (C2PA 2.1, 11.1).
XMP that a PNG holds compressed is not seen.
"""

import io
import re
from collections.abc import Iterator

from PIL import Image

from curation.photos.decode import ALLOWED

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
    return {*_of_exif(data), *_of_xmp(data), *(["Content Credentials (C2PA)"] if _C2PA in data else [])}


def _of_exif(data: bytes) -> Iterator[str]:
    try:
        with Image.open(io.BytesIO(data), formats=ALLOWED) as image:
            block: bytes = image.info["exif"]  # not getexif(): of a PNG that would decode the picture
        exif = Image.Exif()
        exif.load(block)
    except Exception:  # there is none, or it is broken: decoders raise anything at all
        return
    for tag, says in ((_COPYRIGHT, "EXIF copyright"), (_ARTIST, "EXIF author"), (_GPS, "EXIF place (GPS)")):
        if exif.get(tag):
            yield says


def _of_xmp(data: bytes) -> Iterator[str]:
    for name, pattern in _TERMS:
        for match in pattern.finditer(data):
            said = match[1].decode("utf-8", "replace").strip().rstrip("/").rpartition("/")[2]
            if said:
                yield f"{name} {said[:_MOST_CHARS]}"
