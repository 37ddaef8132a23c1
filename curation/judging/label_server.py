"""`persona judge label`: a page that shows two photos of a person and takes a label by keyboard.

GET /TOKEN/            the page (label.html)
GET /TOKEN/pair        {number, total, a, b}, or {total, done: true}; names are person_ids
GET /TOKEN/photo/ID    the person as the judge sees it, JPEG
POST /TOKEN/label      {a, b, label: same | different | unknown}; POST /TOKEN/undo takes the latest back
Every answer to a POST is the next pair. Only this machine is answered, and of its accounts only whoever was
told the token, which is new at every start: photos show real people.
"""

import hmac
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from curation.errors import ConfigError, PersonaError, one_line
from curation.judging.judge_of_run import judge_pictures
from curation.judging.labelled_pairs import LABELS, LabelFile, Pair, draw_pairs
from curation.outfits.gather import read_people
from curation.run_folder import Run
from curation.vlm.pictures import COLUMNS

_PAGE = Path(__file__).with_name("label.html")
_LEAST_HEIGHT_PX = 896  # people see more than a small judge is shown
_HOSTS = ("127.0.0.1", "localhost")
_MOST_BYTES = 4096  # of a request


class Labelling:
    """The pairs of a run, which of them are labelled, and the pictures of their people."""

    def __init__(self, run: str, out: str, count: int) -> None:
        if count < 1:
            raise ConfigError(f"--pairs {count}: must be at least 1")
        _, pipeline = Run(run).pipeline()
        self._people = read_people(run, ["identity", *COLUMNS])
        asked = [
            (pair["a"], pair["b"]) for row in Run(run).outfits.rows(["pairs"]) for pair in row["pairs"] or []
        ]
        identities = {name: row["identity"] for name, row in self._people.items()}
        self.pairs = draw_pairs(identities, asked, count)
        if not self.pairs:
            raise ConfigError(f"{run}: has no person with two photos; has its phase outfits run?")
        self._labels = LabelFile(out)
        self._pictures = judge_pictures(pipeline, least_height_px=_LEAST_HEIGHT_PX)

    def next(self) -> dict[str, Any]:
        """The first pair without a label."""
        done = sum(map(self._labels.has, self.pairs))
        for pair in self.pairs:
            if not self._labels.has(pair):
                return {"number": done + 1, "total": len(self.pairs), "a": pair[0], "b": pair[1]}
        return {"total": len(self.pairs), "done": True}

    def put(self, pair: Pair, label: str) -> None:
        """Writes a label. Raises ValueError for one that makes no sense."""
        if pair not in self.pairs or label not in LABELS:
            raise ValueError(f"no such pair, or no label: {label}")
        self._labels.put(pair, label)

    def undo(self) -> None:
        """Takes the latest label back."""
        self._labels.undo()

    def photo(self, person_id: str) -> bytes:
        """JPEG of a person. Raises KeyError, OSError, ValueError."""
        return self._pictures.jpeg(self._people[person_id])


class LabelServer(ThreadingHTTPServer):
    """`url` is the page, with its token."""

    token = ""

    @property
    def url(self) -> str:
        """Where the page is, with a slash at its end."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"


def label_server(labelling: Labelling, port: int) -> LabelServer:
    """The server on 127.0.0.1, not started yet. Raises PersonaError where the port is taken."""
    token = secrets.token_urlsafe(16)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._is_allowed():
                return
            if self.path == "/":
                self._send(200, "text/html; charset=utf-8", _PAGE.read_bytes())
            elif self.path == "/pair":
                self._json(200, labelling.next())
            elif self.path.startswith("/photo/"):
                try:
                    self._send(200, "image/jpeg", labelling.photo(self.path.removeprefix("/photo/")))
                except KeyError:
                    self._json(404, {"error": "no such person"})
                except Exception as error:  # photos of strangers raise anything; the page says so
                    self._json(500, {"error": one_line(error)})
            else:
                self._json(404, {"error": "no such page"})

        def do_POST(self) -> None:
            if not self._is_allowed():
                return
            try:
                length = min(int(self.headers.get("Content-Length") or 0), _MOST_BYTES)
                body = json.loads(self.rfile.read(length) or b"{}")
                if self.path == "/label":
                    labelling.put((body["a"], body["b"]), body["label"])
                elif self.path == "/undo":
                    labelling.undo()
                else:
                    self._json(404, {"error": "no such page"})
                    return
            except (ValueError, KeyError, TypeError) as error:
                self._json(400, {"error": one_line(error)})
                return
            except OSError as error:  # a full disk: the label is not taken, and the page says so
                self._json(500, {"error": one_line(error)})
                return
            self._json(200, labelling.next())

        def _is_allowed(self) -> bool:
            """Refuses pages of other sites that reach this one through a browser, and whoever has no token.

            Takes the token off the path.
            """
            _, given, rest = (*self.path.split("/", 2), "", "")[:3]
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            origin = self.headers.get("Origin")
            if host in _HOSTS and (origin is None or origin.split("//")[-1].rsplit(":", 1)[0] in _HOSTS):
                if hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
                    self.path = f"/{rest}"
                    return True
                self._json(403, {"error": "open the address that the command printed, with its token"})
                return False
            self._json(403, {"error": "this page is for this machine only"})
            return False

        def _json(self, status: int, content: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(content).encode())

        def _send(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Says nothing: the page shows what happens."""

    try:
        server = LabelServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise PersonaError(f"--port {port}: {one_line(error)}") from None
    server.token = token
    return server


def serve_labels(run: str, out: str, count: int, port: int) -> int:
    """Serves until Ctrl-C."""
    labelling = Labelling(run, out, count)
    server = label_server(labelling, port)
    print(f"{server.url}  labels go to {out}; Ctrl-C ends", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(f"labels are in {out}", file=sys.stderr)
    finally:
        server.server_close()
    return 0
