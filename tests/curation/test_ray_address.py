"""An address without a Ray cluster is one line with the cause, at once: Ray goes on trying for minutes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curation.errors import ConfigError, PersonaError
from curation.ray_address import cluster_address, require_cluster


@contextmanager
def listening(backlog: int = 8) -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)
        yield int(server.getsockname()[1])


@contextmanager
def web_server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_one_line_at_once(scheme: str) -> None:
    with listening() as port:
        pass
    with pytest.raises(PersonaError, match=f"nobody answers at {scheme}127.0.0.1:{port}: Connection refused"):
        require_cluster(f"{scheme}127.0.0.1:{port}")


def test_a_server_that_is_no_ray_cluster_is_one_line_soon() -> None:
    with web_server() as port, pytest.raises(PersonaError, match="is no Ray cluster"):
        require_cluster(f"127.0.0.1:{port}")


def test_a_server_that_says_nothing_is_one_line_soon() -> None:
    with listening() as port, pytest.raises(PersonaError, match="is no Ray cluster"):
        require_cluster(f"ray://127.0.0.1:{port}", answer_s=0.2)


@pytest.mark.parametrize(
    "address", ["head", "head:x", "http://head:8265", ":6379", "head:70000", "ray://head"]
)
def test_what_is_no_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a cluster"):
        require_cluster(address)


def test_the_address_is_rays_own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert cluster_address(None) == cluster_address("auto") == "head:6379"
    assert cluster_address("other:6379") == "other:6379"
    assert cluster_address("local") is None
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert cluster_address(None) is None
    assert cluster_address("auto") == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
