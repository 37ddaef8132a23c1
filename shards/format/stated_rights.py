"""What a photo says of itself in its bytes: whether it may be mined, what made it, whom to credit.

Read are XMP (of JPEG, PNG and WebP, also extended, inside of EXIF and of Photoshop's resources, and behind
scans), IPTC's older IIM, and Content Credentials (C2PA). Terms:

    plus:DataMining                   PLUS LDF 2.0.1; values are DMI-… of its vocabulary, or their labels
    tdm:reservation                   W3C's TDM Reservation Protocol; 1 reserves
    Iptc4xmpExt:DigitalSourceType     IPTC Photo Metadata 2023.2; values are of NewsCodes, or their labels
    cawg.training-mining              C2PA, also c2pa.training-mining: entries notAllowed or constrained
    digitalSourceType of actions      in every manifest of the photo and of what it was made from

IIM has no place of its own for the kind of source: an address of NewsCodes counts wherever it stands in it.
XMP is read by namespace, not by prefix, as attributes and as elements, in the encoding of its byte order
mark, its first bytes or its declaration. A packet that is no XML, declares a document type (entities are
declared there) or was cut, and that names one of the terms, states it as `UNREADABLE`, which reserves and
counts as synthetic: a wish must not be lost to a missing bracket. Of what was cut nobody knows what it named.
"""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.parsers import expat

from edges.extras import install_line
from shards.format.embedded import Embedded, embedded_in, is_jpeg, is_png
from shards.format.stated import plain_text

MARKS = "stated_marks"  # of a photo's record: `marks_of` the bytes before they were stripped
# Of NewsCodes: made, or made in part, by a model or an algorithm and not by a camera or by hand.
SYNTHETIC = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicMedia",
    "compositeSynthetic",
    "trainedAlgorithmicData",
)
# Labels of NewsCodes in English, of today and of before: some programs write them in the place of the code.
_LABELS = {
    "trained algorithmic media": "trainedAlgorithmicMedia",
    "created using generative ai": "trainedAlgorithmicMedia",
    "composite with trained algorithmic media": "compositeWithTrainedAlgorithmicMedia",
    "edited using generative ai": "compositeWithTrainedAlgorithmicMedia",
    "edited with generative ai": "compositeWithTrainedAlgorithmicMedia",
    "pure algorithmic media": "algorithmicMedia",
    "media created by an algorithm": "algorithmicMedia",
    "composite including synthetic elements": "compositeSynthetic",
    "composite including generative ai elements": "compositeSynthetic",
}
_PLUS = "http://ns.useplus.org/ldf/xmp/1.0/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_DC = "http://purl.org/dc/elements/1.1/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TDM = "http://www.w3.org/ns/tdmrep"  # with / or # behind it
_NAMES = {
    f"{_PLUS} DataMining": "mining",
    f"{_IPTC_EXT} DigitalSourceType": "source",
    f"{_IPTC_EXT} DigitalSourcetype": "source",  # as IPTC itself spelt it until 2009
    f"{_TDM}/ reservation": "tdm",
    f"{_TDM}# reservation": "tdm",
    f"{_TDM} reservation": "tdm",
    f"{_PHOTOSHOP} Credit": "credit",
    f"{_DC} creator": "creator",
}
UNREADABLE = "unreadable"  # the value of a term that is named where it cannot be read
# What names a term in bytes that are no XML, in lower case and without the zeros of UTF-16 and UTF-32.
_NAMED = {
    "mining": (b"datamining", b"dmi-prohibited"),
    "tdm": (b"tdmrep", b":reservation"),
    "source": (b"digitalsource", b"digsrctype", *(code.lower().encode() for code in SYNTHETIC)),
}
_BY_MARK = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
# Which of the first four bytes are zero, where they are a character of ASCII or two (XML 1.0, appendix F).
_BY_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_DECLARED = re.compile(rb"<\?xml[^<>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
_OF_BYTES = frozenset(("iso-8859-1", "latin-1", "latin1", "windows-1252", "cp1252"))
_PADDING = "\ufeff\0 \n\r\t"
_NEWSCODES = re.compile(rb"(?:digitalsourcetype[/#]|digsrctype:)([A-Za-z]+)", re.IGNORECASE)
_DMI = re.compile(r"DMI-[A-Z-]+", re.IGNORECASE)
# Names of terms in assertions of metadata, behind whatever prefix their context gives them.
_IN_JSON = {"datamining": "mining", "reservation": "tdm", "digitalsourcetype": "source"}
_MAX_DEPTH = 200
_MAX_CHARS = 200  # of a text that is kept
_CREDIT, _BY_LINE = (2, 110), (2, 80)  # datasets of IIM 4.2
_UNTRUSTED = "signingCredential.untrusted"  # nobody's list of signers is asked here


class NoReaderError(Exception):
    """A photo carries Content Credentials, and the package that reads them is not installed."""


@dataclass(frozen=True)
class StatedRights:
    """None, or empty, where nothing is said.

    credit       the line that the photo wants to be credited by, else its creator
    source_type  a code of NewsCodes, as trainedAlgorithmicMedia; of several the first that `is_synthetic`
    mining       the value that reserves mining, else the one that allows it, with the name of its term
    reserved     whether it reserves
    credentials  the generator that Content Credentials name, or "unnamed"
    broken       why its Content Credentials cannot be trusted
    """

    credit: str | None = None
    source_type: str | None = None
    mining: str | None = None
    reserved: bool = False
    credentials: str | None = None
    broken: str | None = None


@dataclass
class _Found:
    """Values as they stand, by what they are about."""

    credits: list[str]
    creators: list[str]
    sources: list[str]
    mining: list[tuple[str, str, bool]]  # term, value, whether it reserves
    credentials: str | None = None
    broken: str | None = None


def stated_rights(data: bytes, credentials: bool = True) -> StatedRights:
    """What an encoded photo states. Nothing is fetched: manifests that lie elsewhere are not looked at.

    credentials   whether Content Credentials are read too

    Raises NoReaderError.
    """
    embedded = embedded_in(data, behind_scans=True)
    found = _Found([], [], [], [])
    for packet in (embedded.xmp, *embedded.more_xmp):
        for kind, value in _in_xmp(packet or b""):
            _take(found, kind, value)
    if embedded.has_cut_xmp:
        for kind in _NAMED:
            _take(found, kind, UNREADABLE)
    _take_iim(found, embedded)
    if credentials and embedded.has_credentials:
        _take_credentials(found, data)
    return _summed(found)


def marks_of(data: bytes, credentials: bool = True) -> dict[str, Any]:
    """What the record of a photo keeps of what its bytes state, once those are without it; {} for nothing.

    Of `StatedRights`: mining, reserved, source_type, credentials, broken; no credit, which the collection
    states beside the photo. Raises NoReaderError.
    """
    stated = stated_rights(data, credentials)
    found = {name: getattr(stated, name) for name in ("mining", "source_type", "credentials", "broken")}
    if stated.reserved:
        found["reserved"] = True
    return {name: value for name, value in found.items() if value is not None}


def joined_marks(older: Any, newer: Mapping[str, Any]) -> dict[str, Any]:
    """The marks in a photo's record and those of its bytes in one: what keeps it out stays, from either side.

    older   as `marks_of` made them at an earlier time; no object counts as none
    newer   `marks_of` the bytes of today

    Where both keep it out, or neither does, a value is the older one.
    """
    older = {name: value for name, value in (older if isinstance(older, dict) else {}).items() if value}
    both = {**newer, **older}
    if newer.get("reserved") and not older.get("reserved"):
        both |= {"reserved": True, "mining": newer.get("mining")}
    if is_synthetic(newer.get("source_type")) and not is_synthetic(older.get("source_type")):
        both["source_type"] = newer["source_type"]
    return both


# --- XMP ------------------------------------------------------------------------------------------


def _in_xmp(packet: bytes) -> Iterator[tuple[str, str]]:
    """(kind, value) of the terms in a packet; `UNREADABLE` of those it names where it cannot be read."""
    if not packet:
        return
    try:
        yield from _parsed(_decoded(packet))
    except (expat.ExpatError, ValueError):
        text = packet.replace(b"\0", b"").lower()
        for kind, names in _NAMED.items():
            if any(name in text for name in names):
                yield kind, UNREADABLE


def _decoded(packet: bytes) -> str:
    """The text of a packet without its padding. Raises ValueError for bytes that are not of its encoding."""
    encoding = next((name for mark, name in _BY_MARK if packet.startswith(mark)), None)
    encoding = encoding or _BY_ZEROS.get(tuple(byte == 0 for byte in packet[:4]), "utf-8")
    declared = _DECLARED.search(packet[:200]) if encoding == "utf-8" else None
    if declared is not None and (name := declared[1].decode().lower()) in _OF_BYTES:
        encoding = name
    if encoding.startswith("utf-16"):
        packet = packet[: len(packet) // 2 * 2]  # padded by whole characters, or by a byte
    elif encoding.startswith("utf-32"):
        packet = packet[: len(packet) // 4 * 4]
    return packet.decode(encoding).strip(_PADDING)


def _parsed(packet: str) -> list[tuple[str, str]]:
    """Raises ValueError for a packet with a document type: entities are declared there."""
    found: list[tuple[str, str]] = []
    open_: list[str | None] = []  # the term that each open element is, or lies in

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_) > _MAX_DEPTH:
            raise ValueError("too deep")
        kind = _NAMES.get(name) or (open_[-1] if open_ else None)
        open_.append(kind)
        for key, value in attributes.items():
            of_key = _NAMES.get(key) or (
                kind if kind and key in (f"{_RDF} resource", f"{_RDF} value") else None
            )
            if of_key:
                found.append((of_key, value))
        texts.append([])

    def end(name: str) -> None:
        kind, text = open_.pop(), "".join(texts.pop()).strip()
        if kind and text:
            found.append((kind, text))

    def no_document_type(*_: object) -> None:
        raise ValueError("a document type")

    texts: list[list[str]] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text) if texts else None
    parser.StartDoctypeDeclHandler = no_document_type
    parser.Parse(packet, True)
    return found


def _take(found: _Found, kind: str, value: str) -> None:
    value = value.strip()
    if kind == "mining" and value:
        codes = _DMI.findall(value) or [value]
        found.mining += [("plus:DataMining", code, _prohibits(code)) for code in codes]
    elif kind == "tdm" and value:
        found.mining.append(("tdm:reservation", value, value != "0"))
    elif kind == "source" and value:
        found.sources.append(_source_code(value))
    elif kind == "credit" and value:
        found.credits.append(value)
    elif kind == "creator" and value:
        found.creators.append(value)


def _prohibits(value: str) -> bool:
    """Whether a code of PLUS, or its label, keeps mining out, in whole or in part."""
    return "prohibited" in value.lower() or value == UNREADABLE


def _source_code(value: str) -> str:
    """The code of NewsCodes that a value is, by its address, its name, also behind a prefix, or its label."""
    value = value.strip()
    label = _LABELS.get(" ".join(value.lower().split()))
    if label is not None:
        return label
    is_label = any(map(str.isspace, value))
    code = value if is_label else re.split("[/#:]", value.partition("?")[0].rstrip("/#"))[-1] or value
    return next((known for known in SYNTHETIC if known.lower() == code.lower()), code)


def is_synthetic(source_type: str | None) -> bool:
    """Whether a source type says that a model made a photo or a part of it, or cannot be read."""
    return source_type in SYNTHETIC or source_type == UNREADABLE


# --- IIM ------------------------------------------------------------------------------------------


def _take_iim(found: _Found, embedded: Embedded) -> None:
    for dataset, value in _iim(embedded.iim or b""):
        for match in _NEWSCODES.finditer(value):
            found.sources.append(_source_code(match[1].decode()))
        if dataset in (_CREDIT, _BY_LINE):
            try:
                text = value.decode("utf-8")
            except UnicodeDecodeError:
                text = value.decode("latin-1")
            _take(found, "credit" if dataset == _CREDIT else "creator", text)


def _iim(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """((record, dataset), value) of a block; what is broken ends it."""
    at = 0
    while at + 5 <= len(block) and block[at] == 0x1C:
        length = int.from_bytes(block[at + 3 : at + 5], "big")
        start = at + 5
        if length & 0x8000:  # an extended one: so many bytes say how long it is
            size = length & 0x7FFF
            length, start = int.from_bytes(block[start : start + size], "big"), start + size
        yield (block[at + 1], block[at + 2]), block[start : start + length]
        at = start + length


# --- Content Credentials --------------------------------------------------------------------------


def _take_credentials(found: _Found, data: bytes) -> None:
    """Manifests of the photo and of its ingredients. One that cannot be read, or does not fit the photo, is
    broken; what it states against its use counts all the same."""
    c2pa, context = _reader()
    mime = "image/jpeg" if is_jpeg(data) else "image/png" if is_png(data) else "image/webp"
    try:
        with c2pa.Reader(mime, io.BytesIO(data), context=context) as reader:
            store = json.loads(reader.json())
    except Exception as error:  # of native code, on bytes of strangers
        found.broken = f"cannot be read: {type(error).__name__}: {error}"
        return
    manifests = store.get("manifests") or {}
    active = manifests.get(store.get("active_manifest")) or {}
    found.credentials = _generator(active) or "unnamed"
    for manifest in manifests.values():
        for assertion in manifest.get("assertions") or []:
            _take_assertion(found, str(assertion.get("label", "")), assertion.get("data"))
    if store.get("validation_state") == "Invalid":
        codes = {str(each.get("code")) for each in store.get("validation_status") or []} - {_UNTRUSTED}
        found.broken = f"does not fit the photo: {', '.join(sorted(codes)) or 'invalid'}"


def _generator(manifest: dict[str, Any]) -> str | None:
    for info in manifest.get("claim_generator_info") or []:
        if isinstance(info, dict) and info.get("name"):
            return str(info["name"])
    return manifest.get("claim_generator")


def _take_assertion(found: _Found, label: str, data: Any) -> None:
    if not isinstance(data, dict):
        return
    if "training-mining" in label:
        entries = data.get("entries")
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            use = str(entry.get("use", "")) if isinstance(entry, dict) else str(entry)
            found.mining.append((name, use, use.lower() in ("notallowed", "constrained")))
    for kind, value in _in_json(data):
        _take(found, kind, value)


def _in_json(data: Any) -> Iterator[tuple[str, str]]:
    """(kind, value) of the terms in an assertion: actions, and metadata in JSON-LD, however deep."""
    open_: list[tuple[str | None, Any]] = [(None, data)]
    while open_:
        kind, value = open_.pop()
        if isinstance(value, dict):
            for name, each in value.items():
                open_.append((_IN_JSON.get(re.split("[/#:]", name)[-1].lower(), kind), each))
        elif isinstance(value, list):
            open_ += [(kind, each) for each in value]
        elif kind is not None and isinstance(value, str | int):
            yield kind, str(value)


@cache
def _reader() -> tuple[Any, Any]:
    """The package, and a context in which it asks nobody: no manifest and no certificate is fetched."""
    try:
        import c2pa
    except ImportError:
        raise NoReaderError(
            "it carries Content Credentials (C2PA), which the package c2pa-python reads: "
            f"{install_line('credentials')}, or set photos.rights.credentials: false"
        ) from None
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False}
    return c2pa, c2pa.Context.from_dict({"verify": verify})


# --- together -------------------------------------------------------------------------------------


def _summed(found: _Found) -> StatedRights:
    source = next((code for code in found.sources if is_synthetic(code)), next(iter(found.sources), None))
    said = sorted(found.mining, key=lambda each: not each[2])  # what reserves goes first
    return StatedRights(
        credit=_text(found.credits or found.creators),
        source_type=_text([source] if source else []),
        mining=_text([f"{said[0][0]} {said[0][1]}"] if said else []),
        reserved=bool(said) and said[0][2],
        credentials=_text([found.credentials] if found.credentials else []),
        broken=_text([found.broken] if found.broken else []),
    )


def _text(values: Iterable[str]) -> str | None:
    """Different texts one behind the other, on one line and of bounded length."""
    joined = ", ".join(dict.fromkeys(" ".join(value.split()) for value in values))
    return plain_text(joined)[:_MAX_CHARS] or None
