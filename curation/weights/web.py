"""What a source of weights is to a pull, with its faults and repeats; and one file from a web server.

A file of the web arrives whole, resumed by ranges where the server proves that it is the same file.
"""

import email.utils
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from urllib3.exceptions import IncompleteRead

from curation.errors import PersonaError
from shards.format.atomic_file import write_whole

Tell = Callable[[int], None]
"""Is told of bytes that arrived; a negative number takes back what has to be fetched again."""

PAUSES_S = (0.5, 1, 2, 4, 8)
"""Between attempts in which nothing new arrived; after the last the fetch is given up."""
LONGEST_WAIT_S = 120
"""Of a server that says when to ask again."""
TIMEOUTS_S = (20, 60)
"""Until connected; between two blocks."""
_BLOCK = 1 << 16  # what a cut connection loses at most of what had arrived
_MAY_PASS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Piece:
    """One download. `size`: bytes still to come; None: nobody says. `disks`: where they will lie."""

    size: int | None
    disks: tuple[Path, ...]
    fetch: Callable[[Tell], None]


class Source(Protocol):
    """Where weights of one or more cards come from. `commit`: of a hub's repository, once known."""

    commit: str | None

    def survey(self) -> list[Piece]:
        """Asks what there is to fetch. Raises FetchError."""
        ...

    def lay(self, card: str, target: Path) -> None:
        """Puts the fetched file or folder of a card at `target`. Raises FetchError, OSError."""
        ...

    def resumable(self) -> bool:
        """Whether its folder holds what a later pull goes on from."""
        ...

    def doubt(self) -> bool:
        """Called when a hash was wrong: forgets what was fetched. Whether fetching again may help."""
        ...


def link(file: Path, target: Path) -> None:
    """The file under another name too: no second copy where the file system can, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


class FetchError(PersonaError):
    """Weights could not be fetched; `str()` is one line that says why."""


class Later(Exception):  # noqa: N818 - no error yet
    """An attempt failed in a way that may pass. `wait_s`: what the server asked for."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def repeated(attempt: Callable[[], Any], progressed: Callable[[], object] = lambda: None) -> Any:
    """What `attempt` returns, tried again after Later, with pauses, for as long as `progressed()` changes.

    Raises FetchError with the last reason.
    """
    failures, before = 0, progressed()
    while True:
        try:
            return attempt()
        except Later as later:
            now = progressed()
            failures, before = (1 if now != before else failures + 1), now
            if failures > len(PAUSES_S) or (later.wait_s or 0) > LONGEST_WAIT_S:
                asked = f"; it says to come back in {later.wait_s:.0f} s" if later.wait_s else ""
                raise FetchError(f"{later}{asked}") from None
            time.sleep(PAUSES_S[failures - 1] if later.wait_s is None else later.wait_s)


def later_after(status: int, headers: Mapping[str, str], what: str) -> Later | None:
    """Later for a status that may pass, with what Retry-After says (seconds, or a date); None for others."""
    if status not in _LATER:
        return None
    return Later(f"{what}: HTTP {status}", _seconds(headers.get("Retry-After", "")))


def _seconds(retry_after: str) -> float | None:
    seconds = _count(retry_after)
    if seconds is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _count(header: str) -> int | None:
    """The number that a header states; None for anything else. str.isdigit knows digits that int refuses."""
    return int(header) if re.fullmatch("[0-9]{1,18}", header.strip()) else None


def plain_address(url: str) -> str:
    """An address to print: without user, password and query, which may hold keys."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def size_of(url: str) -> int | None:
    """Bytes of the file as its server says when asked for its head; None where it does not."""
    try:
        with (
            _Session() as session,
            session.head(
                url, headers={"Accept-Encoding": "identity"}, allow_redirects=True, timeout=TIMEOUTS_S
            ) as answer,
        ):
            plain = answer.status_code == 200 and not _is_encoded(answer)
            return _count(answer.headers.get("Content-Length", "")) if plain else None
    except (requests.RequestException, FetchError, ValueError):
        return None  # the download says what is wrong, where anything is


class _Session(requests.Session):
    """Refuses to leave encryption at any redirect: who reads a plain hop may choose where it goes on to."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """As requests has it. Raises FetchError."""
        target = super().get_redirect_target(resp)
        if target is not None and urlsplit(resp.url).scheme == "https":
            address = urljoin(resp.url, target)
            if urlsplit(address).scheme == "http":
                first = plain_address(resp.history[0].url if resp.history else resp.url)
                raise FetchError(f"{first}: leads to {plain_address(address)}, which is not encrypted")
        return target


class Download:
    """The file at `url`, on its way into a folder of its own; a later process goes on from what is there.

    resumed  whether bytes of an earlier process are in it: a fresh download may be right where it is wrong
    ends     whether the server said where the file ends: by a length, or by chunks. Otherwise a connection
             that was cut looks like the end
    """

    def __init__(self, url: str, folder: Path, tell: Tell) -> None:
        self._url, self._tell, self._name = url, tell, plain_address(url)
        self.body, self._about = folder / "body", folder / "about.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.resumed = self._resumable() is not None
        self.ends = False
        self._most = self._told = 0

    def run(self) -> Path:
        """Returns the whole file. Raises FetchError, OSError."""
        if self.resumed:
            self._arrived(self.body.stat().st_size)
        repeated(self._attempt, lambda: self._most)
        return self.body

    def _arrived(self, count: int) -> None:
        self._told += count
        self._tell(count)

    def _resumable(self) -> str | None:
        """What proves that the server's file is still the one that was begun; None: begin anew."""
        try:
            about = json.loads(self._about.read_bytes())
            if about["url"] == self._url and self.body.stat().st_size:
                return str(about["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _attempt(self) -> None:
        validator = self._resumable()
        headers = {"Accept-Encoding": "identity"}  # a range of what is packed anew each time fits nothing
        start = self.body.stat().st_size if validator else 0
        if validator:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        try:
            with (
                _Session() as session,
                closing(session.get(self._url, headers=headers, stream=True, timeout=TIMEOUTS_S)) as answer,
            ):
                self._take(answer, start)
        except _MAY_PASS as error:
            raise Later(f"{self._name}: {_cause(error)}") from None
        except requests.exceptions.ContentDecodingError as error:
            self.forget()
            raise Later(f"{self._name}: {_cause(error)}") from None
        except requests.RequestException as error:
            raise FetchError(f"{self._name}: {_cause(error)}") from None
        except ValueError as error:  # urllib3's own, of an address that is none
            raise FetchError(f"{self._name}: {_cause(error)}") from None

    def _take(self, answer: requests.Response, start: int) -> None:
        status = answer.status_code
        later = later_after(status, answer.headers, self._name)
        if later is not None:
            raise later
        if (status == 416 and start) or (status == 206 and not self._continues(answer, start)):
            self.forget()
            raise Later(f"{self._name}: its ranges do not fit together")
        if status not in (200, 206):
            raise FetchError(
                f"{self._name}: HTTP {status} {_MEANING.get(status, answer.reason or '')}".rstrip()
            )
        if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise FetchError(
                f"{self._name}: is a web page and no file of weights (a page for people, a login)"
            )
        if status == 200:
            self._begin(answer)
            start = 0
        length = _count(answer.headers.get("Content-Length", ""))
        whole = start + length if length is not None and not _is_encoded(answer) else None
        self.ends = length is not None or "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
        size = start
        with self.body.open("ab") as body:
            for block in answer.iter_content(_BLOCK):
                body.write(block)
                size += len(block)
                self._most = max(self._most, size)
                self._arrived(len(block))
        if whole is not None and size != whole:
            raise Later(f"{self._name}: cut short: {size} of {whole} bytes")

    def _continues(self, answer: requests.Response, start: int) -> bool:
        unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
        return start > 0 and unit == "bytes" and span.startswith(f"{start}-") and not _is_encoded(answer)

    def _begin(self, answer: requests.Response) -> None:
        """Writes down by what the file is known before the first of its bytes is there."""
        self.forget()
        self.body.write_bytes(b"")
        etag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        # A weak tag only says that two files mean the same, and is not allowed in If-Range.
        validator = etag if etag.startswith('"') else date
        if validator and not _is_encoded(answer):
            write_whole(self._about, json.dumps({"url": self._url, "validator": validator}).encode())

    def forget(self) -> None:
        """Begins anew: what is there is not the server's file."""
        self._arrived(-self._told)
        self._about.unlink(missing_ok=True)
        self.body.unlink(missing_ok=True)


_MEANING = {
    401: "(it asks for a login; ~/.netrc is read)",
    403: "(this login, or this place, may not have it)",
    404: "(there is no such file)",
    410: "(the file was taken away)",
}


def _is_encoded(answer: requests.Response) -> bool:
    return answer.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")


def _cause(error: BaseException) -> str:
    """The innermost reason in few words: "Connection refused" rather than five wrapped names."""
    inner: Any = error
    while True:
        nested = inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)
        if nested is None and inner.args and isinstance(inner.args[0], BaseException):
            nested = inner.args[0]
        if not isinstance(nested, BaseException):
            break
        inner = nested
    if isinstance(inner, IncompleteRead):
        return f"the connection was cut {inner.expected} bytes before the end"
    text = " ".join(str(getattr(inner, "strerror", None) or inner).split())
    return text[:200] or type(inner).__name__
