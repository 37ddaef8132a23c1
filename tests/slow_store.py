"""moto's S3 server with the manners of a bad day: latency, errors, resets, cut bodies, slow answers.

Faults befall GET of objects alone, as `benchmarks.object_store_server.Faults` draws them.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem  # type: ignore[import-untyped]
from werkzeug.serving import make_server

from benchmarks.object_store_server import Faults, environment_set
from curation import storage
from tests.broken_connections import KeptConnections, cut, reset

Answer = Callable[..., Any]


class SlowStore:
    """A WSGI application around moto's. `faults` and `denied` may be changed while it runs."""

    def __init__(self) -> None:
        self._store = DomainDispatcherApplication(create_backend_app)
        self.faults = Faults()
        self.denied: set[str] = set()  # buckets
        self.asked: Counter[str] = Counter()  # GETs of objects, by path and range
        self.most_together = 0  # GETs that were waited for at one time
        self._together = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.split("/")[1] in self.denied:
            body = b"<Error><Code>AccessDenied</Code><Message>secret-detail</Message></Error>"
            start("403 Forbidden", [("Content-Length", str(len(body)))])
            return [body]
        if environ["REQUEST_METHOD"] != "GET" or path.count("/") < 2:
            return self._store(environ, start)
        what = f"{path} {environ.get('HTTP_RANGE', '')}"
        with self._lock:
            attempt = self.asked[what]
            self.asked[what] += 1
            self._together += 1
            self.most_together = max(self.most_together, self._together)
        fault = self.faults.of(what, attempt)
        time.sleep(self.faults.latency_s + (self.faults.slow_s if fault == "slow" else 0.0))
        with self._lock:
            self._together -= 1
        if fault in ("500", "503"):
            start(f"{fault} Bad Day", [("Content-Length", "0")])
            return []
        if fault == "reset":
            reset(environ["werkzeug.socket"])
        body = b"".join(self._store(environ, start))
        if fault == "truncated":
            return cut(environ["werkzeug.socket"], body)
        return [body]


@contextmanager
def slow_store() -> Iterator[tuple[SlowStore, dict[str, str]]]:
    """The store on a free port of loopback, and the environment that points clients at it."""
    store = SlowStore()
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=KeptConnections)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _forget_clients()
    try:
        yield (
            store,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_REGION": "us-east-1",
            },
        )
    finally:
        _forget_clients()
        server.shutdown()
        thread.join()
        server.server_close()


def _forget_clients() -> None:
    """fsspec keeps clients by their arguments, and the endpoint is none of them."""
    S3FileSystem.clear_instance_cache()
    storage._filesystem.cache_clear()


@contextmanager
def empty_bucket(name: str = "bucket") -> Iterator[tuple[SlowStore, Any]]:
    """A store with an empty bucket that this process's environment points at, and boto3's client."""
    with slow_store() as (store, environment), environment_set(environment):
        s3 = client(environment)
        s3.create_bucket(Bucket=name)
        yield store, s3


def client(environment: Mapping[str, str]) -> Any:
    """boto3's client of a store."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        config=Config(s3={"addressing_style": "path"}),
    )


def objects_below(s3: Any, folder: str, bucket: str = "bucket") -> dict[str, bytes]:
    """The objects of a folder by their names in it."""
    prefix = f"{folder}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {key.removeprefix(prefix): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def upload(s3: Any, folder: Path, bucket: str, prefix: str) -> str:
    """Copies the files of a folder and of those below; returns their URL."""
    if bucket not in {found["Name"] for found in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")
    return f"s3://{bucket}/{prefix}"
