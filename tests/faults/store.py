"""An S3-compatible store on loopback that can be slow, failing, closed to its users, or gone for a while.

moto answers in a thread of this process and keeps the objects. Clients reach it through a gate, a
process that passes bytes on (gate.py) and may be killed: their connections break, nobody listens, and
afterwards everything is still there, as when a store's server is lost.
"""

import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.broken_connections import KeptConnections, cut, reset
from tests.drawn_pipeline import ROOT
from tests.drawn_shards import bytes_of
from tests.faults import gate
from tests.faults.small_run import SmallRun, config_of, photos_of, pipeline
from tests.faults.workplace import Workplace

BUCKET = "faults"
FEW = 12  # photos: a request costs milliseconds of a processor on either side
KEY = "first-key"
SECRET = "a-secret-that-nobody-should-read"
_RENEWED_EVERY_S = 0.5
_RENEWED_KEYS = 8  # that are taken at a time; older ones have expired
_CREDENTIALS = "/credentials"
_CREDENTIAL = re.compile(r"Credential=([^/]+)/")


@dataclass(frozen=True)
class Weather:
    """How the store treats requests: each takes `latency_s`; a share `failing`, 0 to 1, goes wrong.

    A fifth each of those that go wrong: status 500; 503; a connection that is reset before anything was
    done; one that is reset after it was done; a body that ends half-way.
    """

    latency_s: float = 0.0
    failing: float = 0.0


class Store:
    """A WSGI application around moto's. Its attributes may be changed while it runs."""

    def __init__(self) -> None:
        self._store = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._drawn = random.Random(0)
        self.weather = Weather()
        self.denied = False
        self.keys = {KEY}
        self.refused = 0  # requests that were, for want of a right
        self.renewed: list[str] = []  # keys that the platform has handed out, one after the other
        self._renewed_at = 0.0

    def seed(self, drawn: random.Random) -> None:
        """What goes wrong follows from it and from the order of requests."""
        self._drawn = random.Random(drawn.random())

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == _CREDENTIALS:
            return self._hand_out(start)
        key = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if self.denied:
            return self._refuse(environ, start, "AccessDenied", "Access Denied")
        if key is None or key[1] not in {*self.keys, *self.renewed[-_RENEWED_KEYS:]}:
            return self._refuse(environ, start, "InvalidAccessKeyId", "The key is not in our records.")
        weather = self.weather
        with self._lock:
            wrong = self._drawn.random() < weather.failing
            how = self._drawn.randrange(5)
        time.sleep(weather.latency_s)
        connection = environ["werkzeug.socket"]
        if not wrong:
            return self._store(environ, start)
        if how < 2:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(("500 Internal Server Error", "503 Slow Down")[how], [("Content-Length", "0")])
            return []
        if how == 2:
            reset(connection)
        body = b"".join(self._store(environ, start))
        if how == 3 or not body:
            reset(connection)
        return cut(connection, body)

    def _hand_out(self, start: Callable[..., Any]) -> list[bytes]:
        """A key that holds for a moment, as a platform gives to its machines (ECS, EKS)."""
        with self._lock:
            if time.monotonic() - self._renewed_at > _RENEWED_EVERY_S:
                self.renewed.append(f"renewed-key-{len(self.renewed)}")
                self._renewed_at = time.monotonic()
            key = self.renewed[-1]
        expires = datetime.now(UTC) + timedelta(seconds=_RENEWED_KEYS * _RENEWED_EVERY_S)
        said = {"AccessKeyId": key, "SecretAccessKey": SECRET, "Token": f"token-of-{key}"}
        body = json.dumps({**said, "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()
        start("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "application/json")])
        return [body]

    def _refuse(
        self, environ: dict[str, Any], start: Callable[..., Any], code: str, says: str
    ) -> list[bytes]:
        self.refused += 1
        body = f"<Error><Code>{code}</Code><Message>{says}</Message></Error>".encode()
        if environ["REQUEST_METHOD"] == "HEAD":
            body = b""
        start("403 Forbidden", [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
        return [body]


class Gate:
    """The process between clients and the store."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """At the port that it had before."""
        words = [sys.executable, "-S", gate.__file__, str(self.port), str(self._target)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Served:
    """A store that is up, its gate, and boto3's client that goes past the gate."""

    store: Store
    gate: Gate
    client: Any

    @property
    def environment(self) -> dict[str, str | None]:
        """For commands."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.gate.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
        }

    def environment_of_platform(self, token: Path) -> dict[str, str | None]:
        """For commands that have no key of their own, and ask the platform for one whenever one expires.

        token   a file, as a platform gives to its containers; the store does not look at it
        """
        token.write_text("token of a container")
        return {
            **self.environment,
            **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self.gate.port}{_CREDENTIALS}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        }


@contextmanager
def _serving() -> Iterator[Served]:
    store = Store()
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=KeptConnections)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    opened = Gate(server.port)
    opened.open()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{server.port}",
        region_name="us-east-1",
        aws_access_key_id="tester",
        aws_secret_access_key="tester",
        config=Config(s3={"addressing_style": "path"}),
    )
    store.keys.add("tester")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield Served(store, opened, client)
    finally:
        opened.kill()
        server.shutdown()
        thread.join()
        server.server_close()


class StoreFolder:
    """A run folder in the store."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._prefix = f"{name}/"
        self.url = f"s3://{BUCKET}/{name}"

    def _keys(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self._prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def files(self) -> dict[str, bytes]:
        """Every object in it."""
        read = self._client.get_object
        return {
            key.removeprefix(self._prefix): read(Bucket=BUCKET, Key=key)["Body"].read()
            for key in self._keys()
        }

    def clear(self) -> None:
        """Removes all of it."""
        for key in self._keys():
            self._client.delete_object(Bucket=BUCKET, Key=key)


def served(place: Workplace) -> Served:
    """The store of this session, with the collection in it."""

    def make() -> Served:
        found = place.enter(_serving())
        for name, data in bytes_of(photos_of(place, FEW)).items():
            found.client.put_object(Bucket=BUCKET, Key=f"photos/{name}", Body=data)
        return found

    return place.once("store", make)


def store_run(place: Workplace, scratch: Path) -> SmallRun:
    """The pipeline with its collection and its run folder in the store."""
    found = served(place)
    config = config_of(place, "store", pipeline(f"s3://{BUCKET}/photos"))
    where = StoreFolder(found.client, f"runs/{scratch.name}")
    return SmallRun(config, where, scratch, environment=found.environment, photos=FEW)
