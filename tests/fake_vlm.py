"""A server that speaks the protocol of vLLM and has no model: it answers as a test tells it to.

As a program (`python -m tests.fake_vlm --port N --served-model-name NAME`) it takes vLLM's arguments.
"""

import argparse
import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Response = tuple[int, Any]
Behaviour = Callable[[int, dict[str, Any]], Response]  # (how often this was asked before, the request)


def says(word: str, p_yes: float = 0.9) -> dict[str, Any]:
    """A chat completion that answers a judge's question."""
    tokens = ['{"', "same", '":"', word, '"}']
    content: list[dict[str, Any]] = [
        {"token": token, "logprob": 0.0, "top_logprobs": [{"token": token, "logprob": 0.0}]}
        for token in tokens
    ]
    weights = {"yes": p_yes, "no": 1 - p_yes}
    content[3]["top_logprobs"] = [
        {"token": token, "logprob": math.log(max(weight, 1e-9))} for token, weight in weights.items()
    ]
    return completion(f'{{"same":"{word}"}}', content)


def completion(text: str, content: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A chat completion with any text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"object": "chat.completion", "choices": [{**choice, "logprobs": {"content": content or []}}]}


def friendly(asked_before: int, request: dict[str, Any]) -> Response:
    """Yes to every pair; one sentence for every photo."""
    if request.get("logprobs"):
        return 200, says("yes")
    return 200, completion('{"caption":"A person is standing in a park."}')


class FakeVlm:
    """What the server was asked, and how it behaves; `behaviour` may be changed while it runs."""

    def __init__(self, name: str = "tiny", behaviour: Behaviour = friendly) -> None:
        self.name = name
        self.behaviour = behaviour
        self.asked: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, body: bytes) -> Response:
        """One request, from its body to its response."""
        request = json.loads(body)
        key = hashlib.sha256(body).hexdigest()
        with self._lock:
            before = self.asked[key]
            self.asked[key] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if request["model"] != self.name:
                return 404, {"error": {"message": f"The model `{request['model']}` does not exist."}}
            return self.behaviour(before, request)
        finally:
            with self._lock:
                self.in_flight -= 1

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """The class that http.server wants."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": fake.name}]} if self.path == "/v1/models" else {})

            def do_POST(self) -> None:
                self._send(*fake.answer(self.rfile.read(int(self.headers["Content-Length"]))))

            def _send(self, status: int, content: Any) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has gone
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def serving(fake: FakeVlm, host: str = "127.0.0.1", port: int = 0) -> Iterator[FakeVlm]:
    """The fake on a port of this machine, in a thread."""
    server = _Server((host, port), fake.handler())
    fake.url = f"http://{host}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    """Runs until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--served-model-name", default="tiny")
    options, _ = parser.parse_known_args()
    with serving(FakeVlm(options.served_model_name), options.host, options.port) as fake:
        print(f"serving at {fake.url}", flush=True)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
