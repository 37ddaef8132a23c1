"""A loopback server that answers like S3 for one folder of files: latency, failures, slow requests.

    python benchmarks/object_store_server.py FOLDER --latency 0.02     # prints the port that it took

It serves FOLDER/BUCKET/KEY as http://127.0.0.1:PORT/BUCKET/KEY, to GET and HEAD with one Range. It does
not check signatures. What it is for is speed: it waits in one event loop and sends by sendfile, so that
on two cores it takes about 0.1 ms of processor time a request and leaves the rest to the reader that is
measured. (moto, which the tests use to show that the protocol is right, spends some 5 ms on a request.)

Faults depend on seed, path, range and how often this range was asked for, not on the order in which
requests arrive: two runs meet the same ones.
"""

import argparse
import asyncio
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import xxhash

Fault = Literal["none", "slow", "500", "503", "reset", "truncated"]
_FAILURES: tuple[Fault, ...] = ("500", "503", "reset", "truncated")
_RANGE = re.compile(rb"bytes=(\d+)-(\d*)$")
_STATUS = {200: "OK", 206: "Partial Content", 404: "Not Found", 416: "Range Not Satisfiable"}


@dataclass(frozen=True)
class Faults:
    """How a store misbehaves.

    latency_s   before each answer
    failing     share of requests, 0 to 1, that fail: a quarter each with status 500, status 503, a
                connection that is reset, and a body that ends half-way
    slow        share of requests that take `slow_s` longer
    """

    latency_s: float = 0.0
    failing: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.5
    seed: int = 0

    def of(self, what: str, attempt: int) -> Fault:
        """What befalls the attempt, counted from 0, at a path and range."""
        drawn = xxhash.xxh3_64_intdigest(f"{what} {attempt}".encode(), self.seed) / 2**64
        if drawn < self.failing:
            return _FAILURES[int(drawn / self.failing * len(_FAILURES))]
        return "slow" if drawn < self.failing + self.slow else "none"


class _Connection(asyncio.Protocol):
    """One connection; answers one request after the other."""

    def __init__(self, server: "_Server") -> None:
        self._server = server
        self._received = b""
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            self._requests.put_nowait(head)

    def connection_lost(self, error: Exception | None) -> None:
        self._task.cancel()

    async def _serve(self) -> None:
        try:
            while True:
                if not await self._answer(await self._requests.get()):
                    self._transport.close()
                    return
        except (ConnectionError, RuntimeError):
            self._transport.abort()  # the client went away, as one does that asked twice

    async def _answer(self, head: bytes) -> bool:
        """Whether the connection can be used on."""
        line, *headers = head.split(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ")
        fields = {name.lower(): value for name, value in (header.split(b": ", 1) for header in headers)}
        path = unquote(target.partition("?")[0]).lstrip("/")
        asked = fields.get(b"range", b"")
        fault = await self._server.delay(f"{method} {path} {asked.decode()}")
        if fault == "reset":
            self._transport.abort()
            return False
        if fault in ("500", "503"):
            self._transport.write(f"HTTP/1.1 {fault} x\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        try:
            file = (self._server.folder / path).open("rb")
        except OSError:
            self._head(404, 0)
            return True
        with file:
            size = os.fstat(file.fileno()).st_size
            start, stop, status = 0, size, 200
            if found := _RANGE.match(asked):
                start, status = int(found[1]), 206
                stop = min(int(found[2]) + 1, size) if found[2] else size
                if start >= size:
                    self._head(416, 0)
                    return True
            self._head(status, stop - start, f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n")
            if method == "HEAD":
                return True
            length = stop - start
            if fault == "truncated":
                length //= 2
            if length:
                loop = asyncio.get_running_loop()
                await loop.sendfile(self._transport, file, start, length)
            self._server.sent(length)
        return fault != "truncated"

    def _head(self, status: int, length: int, more: str = "") -> None:
        self._transport.write(
            (
                f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Length: {length}\r\n"
                f'ETag: "1"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{more}\r\n'
            ).encode()
        )


class _Server:
    """What connections share."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder, self._faults = folder, faults
        self._asked: Counter[str] = Counter()

    async def delay(self, what: str) -> Fault:
        """Waits as long as the store lets its clients wait; returns what befalls this attempt."""
        fault = self._faults.of(what, self._asked[what])
        self._asked[what] += 1
        wait = self._faults.latency_s + (self._faults.slow_s if fault == "slow" else 0.0)
        if wait:
            await asyncio.sleep(wait)
        return fault

    def sent(self, length: int) -> None:
        """Counts bytes of bodies."""


async def _run(folder: Path, faults: Faults) -> None:
    server = _Server(folder, faults)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


@contextmanager
def object_store(folder: Path, faults: Faults) -> Iterator[dict[str, str]]:
    """Serves `folder` from a process of its own; yields the environment that points a client at it."""
    command = [sys.executable, __file__, str(folder)]
    for name in ("latency_s", "failing", "slow", "slow_s", "seed"):
        command += [f"--{name.replace('_', '-')}", str(getattr(faults, name))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "loopback",
            "AWS_SECRET_ACCESS_KEY": "loopback",
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait()


@contextmanager
def environment_set(values: Mapping[str, str]) -> Iterator[None]:
    """These environment variables, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--failing", type=float, default=0.0)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--slow-s", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    asyncio.run(_run(options.pop("folder"), Faults(**options)))


if __name__ == "__main__":
    main()
