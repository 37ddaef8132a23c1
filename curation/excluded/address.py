"""Web addresses of photos and pages, compared as people mean them: one address has many spellings.

An address that somebody names and the one that a collection keeps were seldom copied from one place: one has
`http`, a port, `%7E` for `~`, capitals in the host, a fragment, or `?w=1024` for another size of one picture.
The normal form follows RFC 3986, 6.2.2 and 6.2.3. Whether the query string counts is a setting, off by
default: a wish is read generously, since a photo too many costs a photo and one too few an opt-out.
"""

import difflib
import heapq
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard
from urllib.parse import quote, unquote, urlsplit, urlunsplit

OWN_COLUMNS = ("source_url", "uri")
"""Columns of a photo that say where it lies itself."""
COLUMNS = (*OWN_COLUMNS, "page_url", "metadata")
"""Columns of a photo that may hold addresses. `metadata`, JSON, holds all that came with it: collections
have their addresses under many names, in lists and in objects."""

_COMPARED = 50  # addresses whose begin and end are most like the one that is looked for
_LIKE = 0.75  # of 1: how like an address must be to be named
_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_LETTERS = re.compile(r"(?:%[89A-F][0-9A-F])+")  # of other alphabets, escaped
_SEVERAL = re.compile(r"[\s,;|]+(?=https?://)", re.IGNORECASE)  # between addresses in one text
_MENTION = re.compile(r"(?=(https?://[^\s\"'<>\\]+))", re.IGNORECASE)
_NEXT = re.compile(r"(?<=.)https?://", re.IGNORECASE)
_BEHIND = ".,;:!?|)]}"  # what stands behind an address in a text
_NO_SCHEME = re.compile(r"//\w|(?:[\w-]+\.)+[A-Za-z]{2,}(?::\d+)?/")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ASCII = "".join(chr(code) for code in range(33, 127))


def is_web(address: Any) -> TypeGuard[str]:
    """Whether a value is an http(s) address."""
    return isinstance(address, str) and address.strip().lower().startswith(("http://", "https://"))


def own_addresses(value: Any) -> set[str]:
    """The addresses in a column of its own: one, several in one text, or one that lacks its scheme."""
    if not isinstance(value, str):
        return set()
    text = value.strip()
    if _NO_SCHEME.match(text):
        text = "https://" + text.removeprefix("//")
    return {piece for piece in _SEVERAL.split(text) if is_web(piece)}


def addresses_in(value: Any) -> set[str]:
    """All addresses in a text, or in the texts of lists and objects: each as a whole, and those that stand
    in a text or in another address, as an archive's copy or a proxy's smaller size names where it is from.
    """
    if isinstance(value, list):
        return set().union(*map(addresses_in, value))
    if isinstance(value, Mapping):
        return set().union(*map(addresses_in, value.values()))
    if not isinstance(value, str) or ("://" not in value and "%3a%2f%2f" not in value.lower()):
        return set()
    found = own_addresses(value) | ({value.strip()} if is_web(value) else set())
    texts = {value, unquote(value)} if "%3a%2f%2f" in value.lower() else {value}
    for text in texts:
        for match in _MENTION.finditer(text):
            whole = match[1]
            parts = {whole, _NEXT.split(whole, maxsplit=1)[0]}
            if match.start():
                parts |= {part.partition("&")[0] for part in parts}
            found |= {part.rstrip(_BEHIND) for part in parts} | parts
    return found


def addresses_of(row: Mapping[str, Any]) -> set[str]:
    """All addresses that a photo's row holds in COLUMNS."""
    found: set[str] = set()
    for column in COLUMNS:
        value = row.get(column)
        if column == "metadata":
            found |= addresses_in(_parsed(value))
        elif column != "uri" or is_web(value):
            found |= own_addresses(value) | addresses_in(value)
    return found


def _parsed(metadata: str | None) -> Any:
    text = (metadata or "").lower()
    return json.loads(metadata or "") if "://" in text or "%3a%2f%2f" in text else None


def normal(address: str, with_query: bool) -> str:
    """The one spelling of an address: https, small letters in the host and no www, no default port, fragment,
    user or last slash, `/a/../b` walked, escapes in capitals and only where they must be; without its query
    string unless that counts. What is no address at all is returned as it is.
    """
    address = address.strip()
    try:
        parts = urlsplit(address)
        port = parts.port
        host = _host(unquote(parts.hostname or "").rstrip("."))
    except ValueError:  # UnicodeError is one
        return address
    if port not in (None, *_PORTS.values()):
        host += f":{port}"
    path = _walked(_escaped(parts.path)).rstrip("/") or "/"
    return urlunsplit(("https", host, path, _escaped(parts.query) if with_query else "", ""))


def without_comment(line: str) -> str:
    """A line of a list, up to a `#` behind a blank: in an address # begins its fragment."""
    return re.split(r"\s#", line, maxsplit=1)[0].strip()


def nearest(address: str, known: Iterable[str]) -> str | None:
    """The known address that is most like this one, or None where none is. Holds few of them at a time."""
    return most_like(
        normal(address, with_query=True), ((normal(other, with_query=True), other) for other in known)
    )


def most_like(wanted: str, forms: Iterable[tuple[str, str]]) -> str | None:
    """Of pairs (form, name) the name of the form that is most like the wanted one, or None where none is."""
    by_form = dict(heapq.nlargest(_COMPARED, forms, key=lambda form: _shared(wanted, form[0])))
    found = difflib.get_close_matches(wanted, by_form, 1, cutoff=_LIKE)
    return by_form[found[0]] if found else None


def _shared(a: str, b: str) -> int:
    """Characters that two addresses share at their begin and at their end."""
    return _same_begin(a, b) + _same_begin(a[::-1], b[::-1])


def _same_begin(a: str, b: str) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _escaped(text: str) -> str:
    """Each character either plain or escaped, never both ways: `%7e` is `~`, `é` is `%C3%A9`."""
    text = quote(text.encode("utf-8", "surrogateescape"), safe=_ASCII)
    return _composed(_ESCAPE.sub(lambda match: _plain_or_capitals(match[1]), text))


def _plain_or_capitals(digits: str) -> str:
    letter = chr(int(digits, 16))
    return letter if letter in _UNRESERVED else f"%{digits.upper()}"


def _host(name: str) -> str:
    """A host in ASCII, without `www.`. Two rules are in use: under the later one ß is a letter, under the
    earlier one ss. Here it is ss for both, so that the two names of one host are one."""
    try:
        labels = [
            label[4:].encode().decode("punycode") if label.startswith("xn--") else label
            for label in name.split(".")
        ]
        host = ".".join(labels).encode("idna").decode().lower()
    except UnicodeError:  # of a name that no rule allows
        host = name.lower()
    bare = host.removeprefix("www.")
    return bare if "." in bare else host


def _composed(text: str) -> str:
    """Letters with their accents as one: systems take names of files apart in different ways."""
    plain = _LETTERS.sub(lambda match: unquote(match[0], errors="surrogateescape"), text)
    return quote(unicodedata.normalize("NFC", plain).encode("utf-8", "surrogateescape"), safe=_ASCII)


def _walked(path: str) -> str:
    """The path without `.` and `..`."""
    if "/." not in path:
        return path
    walked: list[str] = []
    steps = path.split("/")[1:]
    for step in steps:
        if step == "..":
            del walked[-1:]
        elif step != ".":
            walked.append(step)
    if steps[-1] in (".", ".."):
        walked.append("")
    return "/" + "/".join(walked)
