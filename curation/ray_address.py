"""Where a Ray cluster is, and whether one answers there: asked before Ray itself asks.

Ray goes on trying an address for 20 to 80 s whatever is wrong with it, and then does not say what. So the
connection, the protocol and the token are each tried first, and the first that fails is the one line.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curation.errors import ConfigError, PersonaError, one_line

_CLIENT = "ray://"
_ANSWER_S = 5.0
# A client of HTTP/2, which gRPC is, opens with this and empty SETTINGS; the server answers with its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4
_HEADER_BYTES = 9
# What Ray's client waits for the first time and at most; its three tries then end in 10 s instead of 30.
_CLIENT_WAITS = {
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "4",
}


def cluster_address(given: str | None) -> str | None:
    """Where the wanted cluster is: as given, or as RAY_ADDRESS says; None: one of our own on this machine.

    Ray lets RAY_ADDRESS rule over "auto", and so does this.
    """
    named = os.environ.get("RAY_ADDRESS") or None
    address = named if named is not None and given in (None, "auto") else given
    return None if address == "local" else address


def require_cluster(address: str, answer_s: float = _ANSWER_S) -> None:
    """Returns where a cluster answers at "host:port", "ray://host:port" or "auto".

    answer_s   for a connection, and again for the first bytes

    Raises ConfigError for what is no address, PersonaError with the cause where no cluster answers: nobody
    listens, something else does, or the token is refused.
    """
    host, port = _place(address)
    shown = address if address != "auto" else f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=answer_s) as connection:
            if not _tls() and not _speaks_http2(connection):
                raise PersonaError(f"Ray: what listens at {shown} is no Ray cluster")
    except OSError as error:
        raise PersonaError(f"Ray: nobody answers at {shown}: {error.strerror or error}") from None
    if address != "auto":  # Ray looks for this machine's token first, where it finds the cluster by itself
        _require_known(address, host, port)


def _place(address: str) -> tuple[str, int]:
    """Host and port. Raises ConfigError."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            address = str(canonicalize_bootstrap_address(address))
        except ConnectionError:
            raise PersonaError("Ray: no cluster runs on this machine ('auto')") from None
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or "/" in host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"Ray: '{address}' is no address of a cluster; give host:port, ray://host:port or auto"
        )
    return host, int(port)


def _tls() -> bool:
    """Ray's own switch; its first bytes are then those of TLS."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _speaks_http2(connection: socket.socket) -> bool:
    try:
        connection.sendall(_PREFACE)
        header = b""
        while len(header) < _HEADER_BYTES:
            data = connection.recv(_HEADER_BYTES - len(header))
            if not data:
                return False
            header += data
    except OSError:
        return False
    return header[3] == _SETTINGS


def _require_known(address: str, host: str, port: int) -> None:
    """Raises PersonaError where a gRPC server is none of a cluster's, or refuses the token."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError, RpcError

    client = address.startswith(_CLIENT)
    try:
        with _silent_core():
            GcsClient(address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except AuthenticationError:
        raise PersonaError(
            f"Ray: the cluster at {address} refuses the token: set RAY_AUTH_MODE=token, "
            "and its token as RAY_AUTH_TOKEN or in ~/.ray/auth_token"
        ) from None
    except RpcError as error:
        if not client:
            raise PersonaError(
                f"Ray: what listens at {address} is not the head of a Ray cluster ({one_line(error)})"
            ) from None
        for name, seconds in _CLIENT_WAITS.items():
            os.environ.setdefault(name, seconds)
        return
    if client:
        raise PersonaError(f"Ray: {host}:{port} is a cluster's own port: give it without {_CLIENT}")


@contextmanager
def _silent_core() -> Iterator[None]:
    """Ray's core writes to the process's stderr what it raises as well, and its log has one level for all."""
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
