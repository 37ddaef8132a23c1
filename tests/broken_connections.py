"""How a loopback server of tests breaks a connection: reset, or cut in the middle of an answer."""

import socket
import struct
from collections.abc import Iterator
from typing import Any, NoReturn

from werkzeug.serving import WSGIRequestHandler


def reset(connection: socket.socket) -> NoReturn:
    """Ends it without an answer, as a client sees it when a server dies."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError  # which the server takes for a client that went away


def cut(connection: socket.socket, body: bytes) -> Iterator[bytes]:
    """The first half of a body, and no more."""
    yield body[: len(body) // 2]
    connection.shutdown(socket.SHUT_RDWR)


class KeptConnections(WSGIRequestHandler):
    """Answers one request after the other, and logs none."""

    protocol_version = "HTTP/1.1"  # connections are kept, as by S3

    def log(self, *arguments: Any) -> None:
        """Nothing."""

    def log_error(self, *arguments: Any) -> None:
        """Nothing: connections that break are meant."""
