"""A web server on loopback whose files have faults, and a model hub on top of it."""

import contextlib
import gzip
import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

_BLOCK = 1 << 14


@dataclass
class Served:
    """One file. What is a list is used up: an entry for each GET that comes, then none.

    cuts      the connection is cut after so many bytes of the body
    refusals  (status, headers) instead of the file, to HEAD too where `head` is True
    ranges    False: a Range is ignored; "lies": If-Range is ignored, as if the file had never changed
    length    what Content-Length says, instead of the truth; None: nothing, the connection's end is the end
    """

    data: bytes
    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool | str = True
    etag: str | None = "strong"
    length: int | str | None = "true"
    chunked: bool = False
    gzipped: bool = False
    head: bool = True
    slow_s: float = 0
    headers: dict[str, str] = field(default_factory=dict)


class Web:
    """The files by path, and the requests that came: (method, path, headers)."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, Served] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    def serve(self, path: str, data: bytes, **faults: Any) -> str:
        """Serves a file; returns its address."""
        self.files[path] = Served(data, **faults)
        return self.url + path

    def gets(self, path: str) -> list[dict[str, str]]:
        """The headers of each GET of a path."""
        return [headers for method, at, headers in self.seen if (method, at) == ("GET", path)]

    def found(self, path: str) -> Served | None:
        """What is served at a path."""
        return self.files.get(path)

    def received(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and answer to a POST or PUT, which has been seen: here nothing may be sent."""
        return 405, b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._receive()

    def do_PUT(self) -> None:
        self._receive()

    def _receive(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.web.seen.append((self.command, path, dict(self.headers)))
        status, answer = self.web.received(path, body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.web.seen.append((self.command, path, dict(self.headers)))
        served = self.web.found(path)
        if served is None:
            self._refuse(404, {})
        elif not body and not served.head:
            self._refuse(405, {})
        elif served.refusals:
            self._refuse(*(served.refusals.pop(0) if body else served.refusals[0]))
        else:
            with contextlib.suppress(ConnectionError):
                self._send(served, body)

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, served: Served, body: bool) -> None:
        data = gzip.compress(served.data) if served.gzipped else served.data
        etag = f'"{hashlib.md5(data).hexdigest()}"' if served.etag == "strong" else served.etag
        start = self._start(served, etag)
        if start >= len(data) > 0:
            self._refuse(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if etag:
            self.send_header("ETag", etag)
        if served.gzipped:
            self.send_header("Content-Encoding", "gzip")
        for name, value in served.headers.items():
            self.send_header(name, value)
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif served.length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header(
                "Content-Length", str(len(data) - start if served.length == "true" else served.length)
            )
        self.end_headers()
        if body:
            self._body(served, data[start:])

    def _start(self, served: Served, etag: str | None) -> int:
        wanted = self.headers.get("Range", "")
        same = served.ranges == "lies" or self.headers.get("If-Range") in (None, etag)
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and served.ranges and same else 0

    def _body(self, served: Served, data: bytes) -> None:
        cut = served.cuts.pop(0) if served.cuts else None
        for at in range(0, len(data), _BLOCK):
            block = data[at : at + _BLOCK]
            if cut is not None and at + len(block) > cut:
                self.wfile.write(block[: cut - at])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if served.chunked else block)
            time.sleep(served.slow_s)
        if served.chunked:
            self.wfile.write(b"0\r\n\r\n")
        if isinstance(served.length, int) and served.length > len(data):
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that hangs up: its stderr is that of the command under test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running(kind: type[Web] = Web) -> Iterator[Any]:
    """A server of this kind, until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    web = kind(server.server_port)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"web": web})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


class Hub(Web):
    """A hub as huggingface_hub asks it: api/models with blobs=True, and resolve; large files are redirected.

    A repository is {revision: commit} and {commit: {path: bytes}}. Files of 1000 bytes and more are large:
    they lie on a "CDN", localhost, which is another host than 127.0.0.1. `tokens`: what a request must show.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.refs: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.tokens: dict[str, str] = {}
        self.faults: dict[str, Served] = {}

    def publish(self, repo: str, revision: str, files: dict[str, bytes]) -> str:
        """A commit with these files; returns it."""
        commit = hashlib.sha1(
            json.dumps({name: data.hex() for name, data in files.items()}).encode()
        ).hexdigest()
        self.refs.setdefault(repo, {})[revision] = commit
        self.refs[repo][commit] = commit
        self.commits[commit] = files
        return commit

    def found(self, path: str) -> Served | None:
        """A file of the web server, metadata, a file of a repository, or what the "CDN" has."""
        served = self.files.get(path) or self._found(path)
        fault = self.faults.get(path)
        if fault is not None and served is not None:
            fault.data, fault.headers = served.data, {**served.headers, **fault.headers}
            return fault
        return served

    def _found(self, path: str) -> Served | None:
        words = path.strip("/").split("/")
        if words[0] == "cdn":
            return Served(self.commits[words[1]]["/".join(words[2:])])
        if words[:2] == ["api", "models"]:
            return self._about("/".join(words[2:4]), words[5] if len(words) > 5 else "main")
        if len(words) > 4 and words[2] == "resolve":
            return self._resolved("/".join(words[:2]), words[3], "/".join(words[4:]))
        return None

    def _refused(self, repo: str, revision: str) -> Served | None:
        headers = {name.lower(): value for name, value in self.seen[-1][2].items()}
        token = self.tokens.get(repo)
        if repo not in self.refs:
            return Served(b"", refusals=[(401, {"X-Error-Code": "RepoNotFound"})])
        if (
            token is not None
            and headers.get("authorization", headers.get("Authorization")) != f"Bearer {token}"
        ):
            return Served(b"", refusals=[(401, {"X-Error-Code": "GatedRepo"})])
        if revision not in self.refs[repo]:
            return Served(b"", refusals=[(404, {"X-Error-Code": "RevisionNotFound"})])
        return None

    def _about(self, repo: str, revision: str) -> Served:
        refused = self._refused(repo, revision)
        if refused is not None:
            return refused
        commit = self.refs[repo][revision]
        siblings = []
        for name, data in self.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _git_blob(data)}
            if len(data) >= 1000:
                entry["lfs"] = {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 130,
                }
            siblings.append(entry)
        about = {
            "_id": "1",
            "id": repo,
            "modelId": repo,
            "sha": commit,
            "private": False,
            "siblings": siblings,
        }
        return Served(json.dumps(about).encode(), headers={"Content-Type": "application/json"})

    def _resolved(self, repo: str, revision: str, name: str) -> Served:
        refused = self._refused(repo, revision)
        if refused is not None:
            return refused
        commit = self.refs[repo][revision]
        data = self.commits[commit].get(name)
        if data is None:
            said = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return Served(b"", refusals=[(404, said)])
        if len(data) < 1000:
            return Served(data, etag=f'"{_git_blob(data)}"', headers={"X-Repo-Commit": commit})
        linked = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{commit}/{name}",
        }
        return Served(data, refusals=[(302, linked)])


def tell_of_hub(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """This hub, and an empty cache below `home`, for commands in this process and in processes of their own.

    huggingface_hub reads the environment once, when it is imported.
    """
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HOME", str(home))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def _git_blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
