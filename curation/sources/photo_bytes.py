"""Reads the encoded bytes that a source row refers to."""

import http.client
import ipaddress
import os
import posixpath
import stat
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from curation.settings.source import SourceSettings
from curation.sources.parquet import resolve
from curation.sources.parquet_batches import RowReader
from curation.sources.paths import certain_part
from curation.storage import filesystem, is_local, local_path, read_bytes


class TooManyBytesError(ValueError):
    """The file is larger than the limit, and was not read. `size` is in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.size = size


class PhotoBytes:
    """Encoded bytes of photos by reference; keeps the last Parquet file open."""

    def __init__(self, source: SourceSettings) -> None:
        self._source = source
        self._roots: list[str] | None = None  # folders that rows may name files of
        self._table: tuple[str, RowReader] | None = None

    def read(self, reference: Mapping[str, Any], max_bytes: int | None = None) -> bytes:
        """The bytes of a row with `uri`, `offset`, `length`, `row`.

        Raises OSError or EOFError (unreadable, cut short), TooManyBytesError above `max_bytes`, and
        ValueError (there are none).
        """
        uri = reference["uri"]
        if reference["row"] is not None:
            return self._parquet(uri, reference["row"], max_bytes)
        if reference["offset"] is not None:
            return read_bytes(uri, reference["offset"], reference["length"])
        return self._whole(uri, max_bytes)

    def _whole(self, uri: str, max_bytes: int | None) -> bytes:
        if uri.lower().startswith(("http://", "https://")):
            if not self._source.allow_urls:
                raise ValueError("photos from web addresses are off (source.allow_urls)")
            try:
                return read_web(uri, max_bytes, self._source.allow_private)
            except TooLargeError as error:
                raise TooManyBytesError(error.size) from None
        if self._source.kind == "parquet" and not self._source.allow_outside:
            self._require_inside(uri)
        if is_local(uri):
            found = os.stat(local_path(uri))
            if not stat.S_ISREG(found.st_mode):
                raise OSError("not a regular file")
            size: int | None = found.st_size
        else:
            fs, path = filesystem(uri)
            size = fs.info(path).get("size") if max_bytes is not None else None
        if max_bytes is not None and size is not None and size > max_bytes:
            raise TooManyBytesError(size)
        return read_bytes(uri)

    def _require_inside(self, uri: str) -> None:
        """A row of a stranger's table must not bring in whatever this machine can read."""
        if self._roots is None:
            paths = [self._source.path] if isinstance(self._source.path, str) else self._source.path
            self._roots = [_plain(certain_part(path)).rstrip("/") + "/" for path in paths]
        if not _plain(uri).startswith(tuple(self._roots)):
            raise ValueError("the row names a file outside the collection (source.allow_outside)")

    def _parquet(self, uri: str, row: int, max_bytes: int | None) -> bytes:
        image, links = self._source.image_column, self._source.uri_column
        if self._table is None or self._table[0] != uri:
            if self._table is not None:
                self._table[1].close()
                self._table = None
            fs, path = filesystem(uri)
            self._table = (uri, RowReader(fs.open(path, "rb"), [image, links]))
        found = self._table[1].row(row)
        value: Any = found[image]
        link = found.get(links)
        if isinstance(value, dict):
            value, link = value.get("bytes"), value.get("path") or link
        elif isinstance(value, str):
            value, link = None, value
        if isinstance(value, bytes):
            return value
        if value is None and isinstance(link, str) and link:
            return self._whole(resolve(uri, link), max_bytes)
        raise ValueError("the row has no bytes" if value is None else f"column {image} holds no bytes")


def _plain(uri: str) -> str:
    """A path or URL without links and dots, to compare with others."""
    if is_local(uri):
        return os.path.realpath(os.path.expanduser(local_path(uri)))
    protocol, path = uri.split("://", 1)
    return f"{protocol}://{posixpath.normpath(path)}"


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
