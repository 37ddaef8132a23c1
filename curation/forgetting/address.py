"""Web addresses of photos and pages, compared as people mean them: one address has many spellings.

An address that somebody names and the one that a collection keeps were seldom copied from one place: one has
`http`, a port, `%7E` for `~`, capitals in the host, a fragment, or `?w=1024` for another size of one picture.
The normal form follows RFC 3986, 6.2.2 and 6.2.3. Whether the query string counts is a setting, off by
default: a wish is read generously, since a photo too many costs a photo and one too few an opt-out.
"""

import difflib
import heapq
import re
from collections.abc import Iterable
from typing import Any, TypeGuard
from urllib.parse import quote, urlsplit, urlunsplit

COLUMNS = ("source_url", "page_url", "uri")
"""Columns of a photo that may hold addresses."""

_COMPARED = 50  # addresses whose begin and end are most like the one that is looked for
_LIKE = 0.75  # of 1: how like an address must be to be named
_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ASCII = "".join(chr(code) for code in range(33, 127))


def is_web(address: Any) -> TypeGuard[str]:
    """Whether a value is an http(s) address."""
    return isinstance(address, str) and address.strip().lower().startswith(("http://", "https://"))


def normal(address: str, with_query: bool) -> str:
    """The one spelling of an address: https, small letters in the host, no default port, fragment or user,
    `/a/../b` walked, escapes in capitals and only where they must be; without its query string unless that
    counts. What is no address at all is returned as it is.
    """
    address = address.strip()
    try:
        parts = urlsplit(address)
        port = parts.port
        host = (parts.hostname or "").rstrip(".").encode("idna").decode()
    except ValueError:  # UnicodeError is one
        return address
    if port not in (None, *_PORTS.values()):
        host += f":{port}"
    path = _walked(_escaped(parts.path)) or "/"
    return urlunsplit(("https", host, path, _escaped(parts.query) if with_query else "", ""))


def nearest(address: str, known: Iterable[str]) -> str | None:
    """The known address that is most like this one, or None where none is. Holds few of them at a time."""
    wanted = normal(address, with_query=True)
    forms = ((normal(other, with_query=True), other) for other in known)
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
    return _ESCAPE.sub(lambda match: _plain_or_capitals(match[1]), text)


def _plain_or_capitals(digits: str) -> str:
    letter = chr(int(digits, 16))
    return letter if letter in _UNRESERVED else f"%{digits.upper()}"


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
