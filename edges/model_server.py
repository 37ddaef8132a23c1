"""Requests to the server of a model: addresses, no proxy, bounded answers, when a request is sent again.

Curation asks with many requests at a time (curation/vlm/client.py) and training with a few; both import
this.
"""

import hashlib
import http.client
import json
import random
import re
import time
import urllib.error
import urllib.request
from typing import Any

KEY_VARIABLE = "PERSONA_VLM_KEY"
"""Environment variable with the key of a server that asks for one."""
MAX_RESPONSE_BYTES = 2**20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_BLOCK = 1 << 16


class StatusError(OSError):
    """The server answered, with an error: `status`, and its message as `str()`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class MalformedResponseError(ValueError):
    """A response that breaks the protocol; `str()` says how."""


def base_of(endpoint: str) -> str:
    """The server's own address, of one given with or without `/v1` behind it."""
    return endpoint.rstrip("/").removesuffix("/v1")


def chat_url(endpoint: str) -> str:
    """URL of the server's chat completions."""
    return f"{base_of(endpoint)}/v1/chat/completions"


def authorization(key: str | None) -> dict[str, str]:
    """The header that shows a key, where there is one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def request(url: str, key: str | None, timeout_s: float, body: bytes | None = None) -> bytes:
    """The response to a GET, or to a POST of JSON.

    No proxy is asked, whatever the environment names: model servers are of one's own network, and the
    pictures in a question are for nobody else.

    Raises StatusError for an answer of 400 and more, TimeoutError, OSError for a broken connection.
    """
    headers = authorization(key) | ({} if body is None else {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=timeout_s) as response:
            return _read(response, deadline)
    except urllib.error.HTTPError as error:
        with error:
            raise StatusError(error.code, server_message(_read(error, deadline))) from None
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from None


def ask(url: str, key: str | None, payload: Any, timeout_s: float, retries: int) -> str:
    """The text of a chat completion. A request that fails is sent again, later each time.

    Raises OSError or MalformedResponseError, the last error, after `retries` further attempts; at once
    for a status that would not change.
    """
    body = json.dumps(payload).encode()
    question = hashlib.sha256(body).hexdigest()
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(pause_s(question, attempt))
        try:
            return text_of(json.loads(request(url, key, timeout_s, body)))
        except StatusError as error:
            if attempt == retries or not is_transient(error.status):
                raise
        except json.JSONDecodeError:
            if attempt == retries:
                raise MalformedResponseError("the response is not JSON") from None
        except (OSError, MalformedResponseError):
            if attempt == retries:
                raise
    raise AssertionError("unreachable")


def text_of(response: Any) -> str:
    """The text of a chat completion. Raises MalformedResponseError."""
    try:
        text = response["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise MalformedResponseError("the response is no chat completion") from None
    if not isinstance(text, str):
        raise MalformedResponseError("the response has no text")
    return text


def is_transient(status: int) -> bool:
    """Whether the same request may be answered later: the server is busy, or has an error of its own."""
    return status == 429 or status >= 500


def pause_s(question: str, attempt: int) -> float:
    """Seconds before an attempt: doubled each time, times 0.5 to 1.5 by the question's own random number."""
    jitter = 0.5 + random.Random(f"{question} {attempt}").random()
    return float(min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S)) * jitter


def server_message(data: bytes) -> str:
    """The message of a server's error, as one short line: never the request's own pictures."""
    text = data.decode("utf-8", "replace")
    try:
        parsed: Any = json.loads(text)
        parsed = parsed.get("error", parsed)
        text = str(parsed.get("message", parsed) if isinstance(parsed, dict) else parsed)
    except (ValueError, AttributeError):
        pass
    text = re.sub(r"[A-Za-z0-9+/=]{80,}", "…", " ".join(text.split()))
    return text[:300] or "no message"


def _read(response: Any, deadline: float) -> bytes:
    data = bytearray()
    while block := response.read1(_BLOCK):
        data += block
        if len(data) > MAX_RESPONSE_BYTES:
            raise OSError(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the response does not end")
    return bytes(data)
