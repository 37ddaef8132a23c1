"""Reads a photo from a web address of a stranger: public hosts alone, few redirects, bounded bytes and time.

The address that a connection really has is looked at, after its name was resolved and before anything is
sent: no name, no redirect and no second answer of a name server leads into the machine's own networks.
"""

import http.client
import ipaddress
import urllib.error
import urllib.request
from typing import Any

_REDIRECTS = 3
_TIMEOUT_S = 30.0
_BLOCK = 1 << 16


class TooLargeError(ValueError):
    """The answer is larger than the limit. `size`: what it says, or what was read, in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the answer has at least {size} bytes")
        self.size = size


def read_web(url: str, max_bytes: int | None, allow_private: bool = False) -> bytes:
    """The bytes at an http(s) address. Raises OSError (also for a private address), TooLargeError."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Http(allow_private),
        _Https(allow_private),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "persona"})
    try:
        answer = opener.open(request, timeout=_TIMEOUT_S)
        if answer is None:
            raise OSError("the address is no http(s) address")
        with answer:
            return _body(answer, max_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"the server answers {error.code}") from None
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from None


def _body(answer: Any, max_bytes: int | None) -> bytes:
    length = answer.headers.get("Content-Length", "")
    if max_bytes is not None and length.isdecimal() and int(length) > max_bytes:
        raise TooLargeError(int(length))
    blocks, size = [], 0
    while block := answer.read(_BLOCK):
        size += len(block)
        if max_bytes is not None and size > max_bytes:
            raise TooLargeError(size)
        blocks.append(block)
    return b"".join(blocks)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _REDIRECTS
    max_repeats = 1


class _Checked(http.client.HTTPConnection):
    allow_private = False

    def connect(self) -> None:
        super().connect()
        peer = ipaddress.ip_address(self.sock.getpeername()[0].partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None) or peer
        if not self.allow_private and not mapped.is_global:
            self.close()
            raise OSError(f"{self.host} is at a private address (source.allow_private)")


class _CheckedTls(_Checked, http.client.HTTPSConnection):
    """The check comes between TLS's handshake and the first request."""


class _Http(urllib.request.HTTPHandler):
    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self._kind: Any = type("Connection", (_Checked,), {"allow_private": allow_private})

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._kind, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self._kind: Any = type("Connection", (_CheckedTls,), {"allow_private": allow_private})

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._kind, request)
