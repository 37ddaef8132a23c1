"""What a photo says of itself in its bytes: whether it may be mined, what made it, whom to credit.

Read are XMP (also extended, of JPEG, PNG and WebP), IPTC's older IIM, and Content Credentials (C2PA). Terms:

    plus:DataMining                   PLUS LDF 2.0.1; values are DMI-… of its vocabulary, or their labels
    tdm:reservation                   W3C's TDM Reservation Protocol; 1 reserves
    Iptc4xmpExt:DigitalSourceType     IPTC Photo Metadata 2023.2; values are of NewsCodes, or their labels
    cawg.training-mining              C2PA, also c2pa.training-mining: entries notAllowed or constrained
    digitalSourceType of actions      in every manifest of the photo and of what it was made from

IIM has no place of its own for the kind of source: an address of NewsCodes counts wherever it stands in it.
XMP is read by namespace, not by prefix, as attributes and as elements. A packet that is no XML, or that
declares entities, is searched for the names instead: a wish must not be lost to a missing bracket.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.parsers import expat

from curation.errors import one_line
from shards.format.embedded import Embedded, embedded_in, is_jpeg, is_png
from shards.format.stated import plain_text

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
# The same in bytes that are no XML.
_IN_BYTES = (
    ("mining", re.compile(rb"DataMining(?:\s*=\s*[\"']|[^<>]*>\s*(?:<[^<>]*>\s*)*)([^\"'<>]+)")),
    ("mining", re.compile(rb"DataMining[^<>]*resource\s*=\s*[\"']([^\"'<>]+)")),
    ("source", re.compile(rb"DigitalSource[Tt]ype(?:\s*=\s*[\"']|[^<>]*>\s*(?:<[^<>]*>\s*)*)([^\"'<>]+)")),
    ("source", re.compile(rb"DigitalSource[Tt]ype[^<>]*resource\s*=\s*[\"']([^\"'<>]+)")),
    ("tdm", re.compile(rb"tdm:reservation(?:\s*=\s*[\"']|[^<>]*>\s*)([^\"'<>]+)")),
)
_NEWSCODES = re.compile(rb"digitalsourcetype/([A-Za-z]+)", re.IGNORECASE)
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
    source_type  a code of NewsCodes, as trainedAlgorithmicMedia; of several the first that is SYNTHETIC
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
    embedded = embedded_in(data)
    found = _Found([], [], [], [])
    for packet in (embedded.xmp, *embedded.more_xmp):
        for kind, value in _in_xmp(packet or b""):
            _take(found, kind, value)
    _take_iim(found, embedded)
    if credentials and embedded.has_credentials:
        _take_credentials(found, data)
    return _summed(found)


def reserving_header(record: Any) -> str | None:
    """The directive by which the server of a photo reserved it, as a collection's record keeps its headers.

    noai and noimageai in X-Robots-Tag (as img2dataset obeys them while it downloads), and TDM-Reservation: 1.
    Headers may be columns of their own, or an object, pairs, or lines of text under `headers`,
    `http_headers` or `response_headers`.
    """
    if not isinstance(record, dict):
        return None
    for name, value in _headers(record):
        words = {word.strip().lower() for word in re.split(r"[,;:\s]+", value)}
        if name == "x-robots-tag" and (said := words & {"noai", "noimageai"}):
            return f"X-Robots-Tag {min(said)}"
        if name == "tdm-reservation" and "1" in words:
            return "TDM-Reservation 1"
    return None


def _headers(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        folded = str(name).lower().replace("_", "-")
        if folded in ("x-robots-tag", "tdm-reservation"):
            for each in value if isinstance(value, list) else [value]:
                yield folded, str(each)
        elif folded in ("headers", "http-headers", "response-headers"):
            yield from _inner_headers(value)
        elif folded == "json" and isinstance(value, dict):  # a record inside of a row
            yield from _headers(value)


def _inner_headers(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [line.split(":", 1) for line in value.splitlines() if ":" in line]
    if isinstance(value, dict):
        value = list(value.items())
    for pair in value if isinstance(value, list) else []:
        if isinstance(pair, dict):
            pair = [pair.get("name", pair.get("key", "")), pair.get("value", "")]
        if isinstance(pair, list | tuple) and len(pair) == 2:
            name = str(pair[0]).strip().lower().replace("_", "-")
            for each in pair[1] if isinstance(pair[1], list) else [pair[1]]:
                yield name, str(each)


# --- XMP ------------------------------------------------------------------------------------------


def _in_xmp(packet: bytes) -> Iterator[tuple[str, str]]:
    """(kind, value) of the terms in a packet."""
    if not packet:
        return
    try:
        yield from _parsed(packet)
    except (expat.ExpatError, ValueError):
        for kind, pattern in _IN_BYTES:
            for match in pattern.finditer(packet.replace(b"\0", b"")):  # UTF-16 and UTF-32 too
                yield kind, match[1].decode("utf-8", "replace")


def _parsed(packet: bytes) -> list[tuple[str, str]]:
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
    parser.Parse(packet.rstrip(b"\0 \n\r\t"), True)
    return found


def _take(found: _Found, kind: str, value: str) -> None:
    value = value.strip()
    if kind == "mining" and value:
        code = _last_part(value)
        found.mining.append(
            ("plus:DataMining", code, code.lower().startswith(("dmi-prohibited", "prohibited")))
        )
    elif kind == "tdm" and value:
        found.mining.append(("tdm:reservation", value, value != "0"))
    elif kind == "source" and value:
        found.sources.append(_source_code(value))
    elif kind == "credit" and value:
        found.credits.append(value)
    elif kind == "creator" and value:
        found.creators.append(value)


def _source_code(value: str) -> str:
    """The code of NewsCodes that a value is, by its address, its name or its label."""
    code = _last_part(value)
    label = _LABELS.get(" ".join(code.lower().split()))
    return label or next((known for known in SYNTHETIC if known.lower() == code.lower()), code)


def _last_part(value: str) -> str:
    """Of an address of a vocabulary its last part; any other value as it is."""
    return value.strip().rstrip("/").rpartition("/")[2] if "://" in value else value.strip()


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
        found.broken = f"cannot be read: {one_line(error)}"
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
    if label.startswith("c2pa.actions"):
        for action in data.get("actions") or []:
            if isinstance(action, dict) and isinstance(action.get("digitalSourceType"), str):
                found.sources.append(_source_code(action["digitalSourceType"]))
    elif "training-mining" in label:
        entries = data.get("entries")
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            use = str(entry.get("use", "")) if isinstance(entry, dict) else str(entry)
            found.mining.append((name, use, use.lower() in ("notallowed", "constrained")))


@cache
def _reader() -> tuple[Any, Any]:
    """The package, and a context in which it asks nobody: no manifest and no certificate is fetched."""
    try:
        import c2pa
    except ImportError:
        raise NoReaderError(
            "it carries Content Credentials (C2PA), which the package c2pa-python reads: "
            "pip install 'persona[credentials]', or set photos.rights.credentials: false"
        ) from None
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False}
    return c2pa, c2pa.Context.from_dict({"verify": verify})


# --- together -------------------------------------------------------------------------------------


def _summed(found: _Found) -> StatedRights:
    source = next((code for code in found.sources if code in SYNTHETIC), next(iter(found.sources), None))
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
