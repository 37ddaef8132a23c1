"""Photos that say whether they may be mined and what made them, in every container and spelling."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shards.format.embedded import jpeg_segments
from tests.drawn_credentials import NEWSCODES, signed
from tests.drawn_metadata import raw_profile, riff, saved, segment
from tests.hostile.pictures import png_chunk

PICTURE = Image.fromarray(np.arange(40 * 56 * 3).reshape(40, 56, 3).astype(np.uint8) // 3)
# Written by `python -m tests.drawn_rights` with pyvips 3.2.0 and libvips 8.18.
BY_LIBVIPS = Path(__file__).parent / "saved_by_libvips"
KINDS = ("JPEG", "PNG", "WEBP")
_HEAD = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
)
_TAIL = "</rdf:RDF></x:xmpmeta>"
_SPACES = {
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/", "ext": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "tdm": "http://www.w3.org/ns/tdmrep/", "photoshop": "http://ns.adobe.com/photoshop/1.0/",
}  # fmt: skip
RESERVED, MADE = "mining_reserved", "synthetic"
_DMI = "http://ns.useplus.org/ldf/vocab/"


class Marked(NamedTuple):
    """A photo, and the reason by which it must be rejected; None: it stays."""

    name: str
    data: bytes
    reason: str | None


def packet(inside: str = "", attributes: str = "") -> bytes:
    """XMP of one description."""
    spaces = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in _SPACES.items())
    description = f'<rdf:Description rdf:about="" {spaces} {attributes}>{inside}</rdf:Description>'
    return f"{_HEAD}{description}{_TAIL}".encode()


_OTHER_TDM = packet(f'<q:reservation xmlns:q="{_SPACES["tdm"]}">1</q:reservation>')
PACKETS: Mapping[str, tuple[bytes, str | None]] = {
    "prohibited, attribute": (
        packet(attributes=f'plus:DataMining="{_DMI}DMI-PROHIBITED"'),
        RESERVED,
    ),
    "prohibited, element": (
        packet(f"<plus:DataMining>{_DMI}DMI-PROHIBITED</plus:DataMining>"),
        RESERVED,
    ),
    "prohibited, resource": (
        packet(f'<plus:DataMining rdf:resource="{_DMI}DMI-PROHIBITED-AIMLTRAINING"/>'),
        RESERVED,
    ),
    "prohibited, label": (
        packet("<plus:DataMining>Prohibited for AI/ML training</plus:DataMining>"),
        RESERVED,
    ),
    "prohibited, constraints": (
        packet(attributes='plus:DataMining="DMI-PROHIBITED-SEECONSTRAINT"'),
        RESERVED,
    ),
    "prohibited, other prefix": (
        packet(f'<q:DataMining xmlns:q="{_SPACES["plus"]}">{_DMI}DMI-PROHIBITED</q:DataMining>'),
        RESERVED,
    ),
    "not of PLUS": (packet('<q:DataMining xmlns:q="urn:other">DMI-PROHIBITED</q:DataMining>'), None),
    "allowed": (packet(attributes=f'plus:DataMining="{_DMI}DMI-ALLOWED"'), None),
    "unspecified": (packet(attributes=f'plus:DataMining="{_DMI}DMI-UNSPECIFIED"'), None),
    "tdm, reserved": (packet(attributes='tdm:reservation="1"'), RESERVED),
    "tdm, element": (packet("<tdm:reservation>1</tdm:reservation>"), RESERVED),
    "tdm, not reserved": (packet("<tdm:reservation>0</tdm:reservation>"), None),
    "synthetic, attribute": (
        packet(attributes=f'ext:DigitalSourceType="{NEWSCODES}trainedAlgorithmicMedia"'),
        MADE,
    ),
    "synthetic, composite": (
        packet(
            f"<ext:DigitalSourceType>{NEWSCODES}compositeWithTrainedAlgorithmicMedia</ext:DigitalSourceType>"
        ),
        MADE,
    ),
    "synthetic, in a list": (
        packet(
            "<ext:DigitalSourceType><rdf:Alt><rdf:li>"
            f"{NEWSCODES}algorithmicMedia/</rdf:li></rdf:Alt></ext:DigitalSourceType>"
        ),
        MADE,
    ),
    "synthetic, name": (packet(attributes='ext:DigitalSourceType="compositeSynthetic"'), MADE),
    "synthetic, label": (
        packet(attributes='ext:DigitalSourceType="Created using Generative AI"'),
        MADE,
    ),
    "of a camera": (packet(attributes=f'ext:DigitalSourceType="{NEWSCODES}digitalCapture"'), None),
    "no XML": (packet(attributes='plus:DataMining="DMI-PROHIBITED"')[:-30], RESERVED),
    "entities": (
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">'
        + b"".join(b'<!ENTITY b%d "&b%d;&b%d;">' % (n, n - 1, n - 1) for n in range(2, 40))
        + b"]>"
        + packet("<x>&b39;</x>", f'plus:DataMining="{_DMI}DMI-PROHIBITED"'),
        RESERVED,
    ),
    "a file of this machine": (
        b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
        + packet("<plus:DataMining>&e;</plus:DataMining>"),
        RESERVED,
    ),
    "an entity": (
        b'<!DOCTYPE a [<!ENTITY q "DMI-PROHIBITED">]>' + packet(attributes='plus:DataMining="&q;"'),
        RESERVED,
    ),
    **{
        f"tdm of another prefix, {encoding}": (_OTHER_TDM.decode().encode(encoding), RESERVED)
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig")
    },
    "declared encoding": (
        b'<?xml version="1.0" encoding="windows-1252"?><!-- M\xfcller -->' + _OTHER_TDM,
        RESERVED,
    ),
    "not of its encoding": (b"<!-- M\xfcller -->" + _OTHER_TDM, RESERVED),
    "a document type": (b"<!DOCTYPE x>" + _OTHER_TDM, RESERVED),
    "two roots": (packet() + _OTHER_TDM, RESERVED),
    "something behind the root": (_OTHER_TDM + b"\0\0<", RESERVED),
    "padded": (_OTHER_TDM + b"\0\n \0", RESERVED),
    "no XML, a source type": (b"<a DigitalSourceType='algorithmicMedia'", MADE),
    "no XML, without a mark": (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>", None),
    "prohibited, prefix": (packet(attributes='plus:DataMining="plus:DMI-PROHIBITED"'), RESERVED),
    "prohibited, fragment": (
        packet(attributes='plus:DataMining="http://ns.useplus.org/ldf/vocab#DMI-PROHIBITED"'),
        RESERVED,
    ),
    "synthetic, QCode": (
        packet(attributes='ext:DigitalSourceType="digsrctype:trainedAlgorithmicMedia"'),
        MADE,
    ),
    "synthetic, no scheme": (
        packet(attributes='ext:DigitalSourceType="cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"'),
        MADE,
    ),
    "UTF-16": (
        packet(attributes='plus:DataMining="DMI-PROHIBITED"').decode().encode("utf-16"),
        RESERVED,
    ),
    "both, the first allows": (
        packet(f"<plus:DataMining>{_DMI}DMI-ALLOWED</plus:DataMining>", 'tdm:reservation="1"'),
        RESERVED,
    ),
}


# --- where a packet lies --------------------------------------------------------------------------


def _jpeg(xmp: bytes) -> bytes:
    return saved(PICTURE, "JPEG", xmp=xmp)


def _jpeg_extended(xmp: bytes) -> bytes:
    """In three parts that stand in the wrong order, behind a packet that says nothing of it."""
    name, data = (
        b"http://ns.adobe.com/xmp/extension/\0" + b"0123456789ABCDEF" * 2,
        saved(PICTURE, "JPEG", xmp=packet()),
    )
    step = len(xmp) // 3 + 1
    parts = [
        segment(0xE1, name + struct.pack(">II", len(xmp), at) + xmp[at : at + step])
        for at in range(0, len(xmp), step)
    ]
    at = data.index(b"\xff\xdb")
    return data[:at] + b"".join(reversed(parts)) + data[at:]


def _png(xmp: bytes) -> bytes:
    return _with_chunk(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))


def _png_packed(xmp: bytes) -> bytes:
    return _with_chunk(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)))


def _with_chunk(chunk: bytes) -> bytes:
    data = saved(PICTURE, "PNG")
    return data[:33] + chunk + data[33:]


def _webp(xmp: bytes) -> bytes:
    return saved(PICTURE, "WEBP", xmp=xmp)


PLACES: Mapping[str, Callable[[bytes], bytes]] = {
    "jpeg": _jpeg, "jpeg, extended": _jpeg_extended, "png": _png, "png, packed": _png_packed, "webp": _webp,
}  # fmt: skip


def by_pillow(data: bytes, kind: str) -> bytes:
    """The photo saved once more, with its XMP, as Pillow wants that to be said."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        if kind == "PNG":  # save(xmp=) does nothing there
            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", xmp.decode())
            return saved(image, kind, pnginfo=info)
        return saved(image, kind, xmp=xmp)


def write_by_libvips(folder: Path) -> None:
    """Photos of each container saved once more in each by libvips, which keeps XMP by itself."""
    import pyvips  # of no pinned set: it has no wheel

    xmp = packet(attributes=f'plus:DataMining="{_DMI}DMI-PROHIBITED-AIMLTRAINING"')
    for place in ("jpeg", "png", "webp"):
        image = pyvips.Image.new_from_buffer(PLACES[place](xmp), "")
        for kind in ("jpg", "png", "webp"):
            image.write_to_file(str(folder / f"{place}-to.{kind}"))


# --- what is not XMP ------------------------------------------------------------------------------


def _iim(*datasets: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value for number, value in datasets)


def _in_photoshop(block: bytes) -> bytes:
    other = b"8BIM\x04\x25\0\0" + struct.pack(">I", 3) + b"abc\0"
    return other + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block + bytes(len(block) % 2)


def _jpeg_with_iim(block: bytes) -> bytes:
    data = saved(PICTURE, "JPEG")
    return data[:2] + segment(0xED, b"Photoshop 3.0\0" + _in_photoshop(block)) + data[2:]


def _png_with_iim(block: bytes) -> bytes:
    profile = _in_photoshop(block)
    text = b"Raw profile type iptc\0\0" + zlib.compress(
        b"\niptc\n%8d\n%s\n" % (len(profile), profile.hex().encode())
    )
    return _with_chunk(png_chunk(b"zTXt", text))


def marked() -> Iterator[Marked]:
    """All of them."""
    for place, put in PLACES.items():
        for name, (xmp, reason) in PACKETS.items():
            yield Marked(f"{place}, {name}", put(xmp), reason)
    for name in (
        "prohibited, attribute",
        "prohibited, resource",
        "tdm, element",
        "synthetic, in a list",
        "allowed",
    ):
        xmp, reason = PACKETS[name]
        for place in ("jpeg", "png", "webp"):
            for kind in KINDS:
                yield Marked(
                    f"{place} to {kind} by Pillow, {name}", by_pillow(PLACES[place](xmp), kind), reason
                )
    for path in sorted(BY_LIBVIPS.iterdir()):
        yield Marked(f"{path.name} by libvips", path.read_bytes(), "mining_reserved")
    made = _iim((80, b"A Model"), (40, (NEWSCODES + "trainedAlgorithmicMedia").encode()))
    taken = _iim((80, "Ännchen".encode("latin-1")), (40, (NEWSCODES + "digitalCapture").encode()))
    for block, reason in ((made, "synthetic"), (taken, None)):
        yield Marked(f"jpeg, IIM, {reason}", _jpeg_with_iim(block), reason)
        yield Marked(f"png, IIM, {reason}", _png_with_iim(block), reason)
    behind = b"AgHg\x04\x01\0\0" + struct.pack(">I", 2) + b"ab" + _in_photoshop(b"") + _in_photoshop(made)
    photo = saved(PICTURE, "JPEG")
    block = segment(0xED, b"Photoshop 3.0\0" + behind)
    yield Marked("jpeg, IIM behind other resources", photo[:2] + block + photo[2:], MADE)
    yield from _of_odd_places()
    yield from _inside()
    yield from _with_credentials()


def _of_odd_places() -> Iterator[Marked]:
    """A second packet, and packets that are longer than most, packed, cut short or of missing parts."""
    told = PACKETS["prohibited, attribute"][0]
    webp = _webp(packet()) + riff(b"XMP ", told)
    yield Marked("webp, second packet", webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:], RESERVED)
    long = packet(" " * 2_200_000 + f"<plus:DataMining>{_DMI}DMI-PROHIBITED</plus:DataMining>")
    yield Marked("png, long", _png(long), RESERVED)
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(told)[:-9]
    yield Marked("png, packed and cut", _with_chunk(png_chunk(b"iTXt", packed)), RESERVED)
    digest, data = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32, _jpeg(packet())
    part = segment(0xE1, digest + struct.pack(">II", len(told), 0) + told[:100])
    at = data.index(b"\xff\xdb")
    yield Marked("jpeg, a part is missing", data[:at] + part + data[at:], RESERVED)


# --- XMP and IIM inside of one another, and behind scans ------------------------------------------


def _resource(number: int, content: bytes, cut: int = 0) -> bytes:
    head = b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(content))
    return (head + content + bytes(len(content) % 2))[: -cut or None]


def _tiff(tag: int, content: bytes, order: str = "<", kind: int = 1) -> bytes:
    """A directory of an orientation and of one tag more."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 1, 0)
    entries += struct.pack(f"{order}HHII", tag, kind, len(content), 38)
    return head + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4) + content


def _before_last_scan(part: bytes) -> bytes:
    data = saved(PICTURE, "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + part + data[at:]


def _behind_scans(part: bytes) -> bytes:
    data = saved(PICTURE, "JPEG")
    return data[:-2] + part + data[-2:]


def _in_app13(block: bytes) -> bytes:
    return segment(0xED, b"Photoshop 3.0\0" + block)


def _in_front(part: bytes) -> bytes:
    data = saved(PICTURE, "JPEG")
    return data[:2] + part + data[2:]


def _raw_profile(name: str, content: bytes) -> bytes:
    return _with_chunk(raw_profile(name, content))


_APP1_XMP = b"http://ns.adobe.com/xap/1.0/\0"
INNER_XMP: Mapping[str, Callable[[bytes], bytes]] = {
    "jpeg, between scans": lambda xmp: _before_last_scan(segment(0xE1, _APP1_XMP + xmp)),
    "jpeg, behind the scan": lambda xmp: _behind_scans(segment(0xE1, _APP1_XMP + xmp)),
    "jpeg, Photoshop": lambda xmp: _in_front(_in_app13(_resource(0x0424, xmp))),
    "jpeg, Photoshop between scans": lambda xmp: _before_last_scan(_in_app13(_resource(0x0424, xmp))),
    "jpeg, EXIF": lambda xmp: _in_front(segment(0xE1, b"Exif\0\0" + _tiff(0x02BC, xmp))),
    "jpeg, EXIF, big-endian": lambda xmp: _in_front(segment(0xE1, b"Exif\0\0" + _tiff(0x02BC, xmp, ">", 7))),
    "jpeg, EXIF between scans": lambda xmp: _before_last_scan(
        segment(0xE1, b"Exif\0\0" + _tiff(0x02BC, xmp))
    ),
    "jpeg, Photoshop in EXIF": lambda xmp: _in_front(
        segment(0xE1, b"Exif\0\0" + _tiff(0x8649, _resource(0x0424, xmp)))
    ),
    "png, EXIF": lambda xmp: _with_chunk(png_chunk(b"eXIf", _tiff(0x02BC, xmp))),
    "png, raw profile xmp": lambda xmp: _raw_profile("xmp", xmp),
    "png, raw profile APP1": lambda xmp: _raw_profile("APP1", _APP1_XMP + xmp),
    "png, EXIF in a raw profile APP1": lambda xmp: _raw_profile("APP1", b"Exif\0\0" + _tiff(0x02BC, xmp)),
    "png, raw profile 8bim": lambda xmp: _raw_profile("8bim", _resource(0x0424, xmp)),
    "png, raw profile iptc": lambda xmp: _raw_profile("iptc", _resource(0x0424, xmp)),
    "webp, EXIF": lambda xmp: saved(PICTURE, "WEBP", exif=_tiff(0x02BC, xmp)),
}  # fmt: skip


def _inside() -> Iterator[Marked]:
    for place, put in INNER_XMP.items():
        for name in ("prohibited, attribute", "tdm, element", "synthetic, attribute", "allowed"):
            xmp, reason = PACKETS[name]
            yield Marked(f"{place}, {name}", put(xmp), reason)
    made = _iim((40, (NEWSCODES + "trainedAlgorithmicMedia").encode()))
    exif = {"IIM": _tiff(0x83BB, made), "Photoshop": _tiff(0x8649, _resource(0x0404, made))}
    for name, tiff in exif.items():
        yield Marked(f"jpeg, {name} in EXIF", _in_front(segment(0xE1, b"Exif\0\0" + tiff)), MADE)
        yield Marked(f"webp, {name} in EXIF", saved(PICTURE, "WEBP", exif=tiff), MADE)
    between = _before_last_scan(_in_app13(_resource(0x0404, made)))
    yield Marked("jpeg, IIM between scans", between, MADE)
    told = PACKETS["prohibited, attribute"][0]
    cut = _in_front(segment(0xE1, b"Exif\0\0" + _tiff(0x02BC, told)[:-200]))
    yield Marked("jpeg, EXIF, cut", cut, RESERVED)
    yield Marked("jpeg, Photoshop, cut", _in_front(_in_app13(_resource(0x0424, told, 200))), RESERVED)
    yield from _twice(told)


def _twice(told: bytes) -> Iterator[Marked]:
    """What reserves lies in the second block of EXIF, in a profile that is too large, in a cut segment."""
    first, second = (_tiff(0x02BC, xmp) for xmp in (packet(), told))
    both = b"".join(segment(0xE1, b"Exif\0\0" + each) for each in (first, second))
    yield Marked("jpeg, EXIF twice", _in_front(both), RESERVED)
    both = png_chunk(b"eXIf", first) + raw_profile("exif", b"Exif\0\0" + second)
    yield Marked("png, EXIF twice", _with_chunk(both), RESERVED)
    webp = saved(PICTURE, "WEBP", exif=first) + riff(b"EXIF", second)
    yield Marked("webp, EXIF twice", webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:], RESERVED)
    for name in ("exif", "iptc", "8bim"):
        long = f"Raw profile type {name}\0\n{name}\n1100000\n{'00' * 1_100_000}\n".encode()
        yield Marked(f"png, large text {name}", _with_chunk(png_chunk(b"tEXt", long)), RESERVED)
    cut = segment(0xE1, _APP1_XMP + told)[:60]
    yield Marked("jpeg, behind the scan, cut", saved(PICTURE, "JPEG")[:-2] + cut, RESERVED)


def _with_credentials() -> Iterator[Marked]:
    for kind in KINDS:
        plain = saved(PICTURE, kind)
        taken = signed(plain, "digitalCapture")
        yield Marked(f"{kind}, C2PA, of a camera", taken, None)
        yield Marked(f"{kind}, C2PA, made", signed(plain, "trainedAlgorithmicMedia"), "synthetic")
        yield Marked(
            f"{kind}, C2PA, allowed", signed(plain, "digitalCapture", {"ai_training": "allowed"}), None
        )
        for use in ("notAllowed", "constrained"):
            told = signed(plain, "digitalCapture", {"ai_generative_training": use, "data_mining": "allowed"})
            yield Marked(f"{kind}, C2PA, {use}", told, "mining_reserved")
        damaged = _replaced(taken, b"digitalCapture", b"digitalCaptuRe")
        yield Marked(f"{kind}, C2PA, damaged", damaged, "broken_credentials")
        cut = _replaced(taken, b"c2pa.actions.v2", b"c2pa" + bytes(11))
        yield Marked(f"{kind}, C2PA, without its names", cut, "broken_credentials")
        yield Marked(f"{kind}, C2PA, of another picture", _moved(taken, kind), "broken_credentials")
        noise = b"\0\0\0\x20jumb" + b"\0\0\0\x18jumdc2pa" + bytes(range(200))
        yield Marked(f"{kind}, C2PA, noise", _with_box(plain, kind, noise), "broken_credentials")


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """The photo with other bytes in its manifest, which must fit the checksum of a PNG's chunk."""
    made = data.replace(old, new)
    at = made.find(b"caBX")
    if not made.startswith(b"\x89PNG"):
        return made
    stop = at + 4 + int.from_bytes(made[at - 4 : at], "big")
    return made[: at - 4] + png_chunk(b"caBX", made[at + 4 : stop]) + made[stop + 4 :]


def _moved(data: bytes, kind: str) -> bytes:
    """The manifest of one picture in another, of the same size."""
    other = saved(Image.fromarray(255 - np.asarray(PICTURE)), kind)
    if kind == "JPEG":
        boxes = [segment(marker, content) for _, marker, content in jpeg_segments(data) if marker == 0xEB]
        return other[:2] + b"".join(boxes) + other[2:]
    if kind == "PNG":
        at = data.index(b"caBX") - 4
        stop = at + 12 + int.from_bytes(data[at : at + 4], "big")
        return other[:33] + data[at:stop] + other[33:]
    at = data.index(b"C2PA")
    return _with_box(other, kind, data[at + 8 : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")])


def _with_box(data: bytes, kind: str, box: bytes) -> bytes:
    if kind == "JPEG":
        return data[:2] + segment(0xEB, b"JP\0\1\0\0\0\1" + box) + data[2:]
    if kind == "PNG":
        return data[:33] + png_chunk(b"caBX", box) + data[33:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in PICTURE.size)
    body = riff(b"VP8X", bytes(4) + sides) + data[12:] + riff(b"C2PA", box)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


if __name__ == "__main__":
    BY_LIBVIPS.mkdir(exist_ok=True)
    write_by_libvips(BY_LIBVIPS)
