"""An asynchronous client of an OpenAI-compatible server: many requests in flight, none of them for ever.

A request that meets a broken connection, a 5xx, a 429, no answer in time or an answer of the wrong
form is sent again, later each time. While the server does not answer /health, everybody waits for
it, `reconnect_s` at most; after that questions fail, and fail at once until it is back.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp

from curation.errors import one_line
from curation.meters import TRAFFIC
from curation.settings.vlm import VlmSettings
from curation.vlm.asking import MalformedError, Question, Questions, Reply, read_reply
from curation.vlm.session import Listener
from edges.model_server import (
    MAX_RESPONSE_BYTES,
    authorization,
    base_of,
    chat_url,
    is_transient,
    pause_s,
    server_message,
)

_PROBE_S = 5.0  # for /health to answer
_PROBE_EVERY_S = 0.5
_GONE_FOR_S = 5.0  # after giving a server up, it is not even probed for so long


class VlmClient:
    """An Asker that sends questions over HTTP. One a worker; it remembers since when the server is silent."""

    def __init__(
        self, settings: VlmSettings, questions: Questions, endpoint: str, key: str | None = None
    ) -> None:
        self._settings = settings
        self._questions = questions
        self._endpoint = base_of(endpoint)
        self._headers = authorization(key)
        self._name = settings.served_name or settings.model
        self._health = _ServerHealth(self._endpoint, settings.reconnect_s)

    def ask(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        """Sends all questions, `in_flight` at a time; replies in their order."""
        return asyncio.run(self._ask(questions, listener))

    async def _ask(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        limit = asyncio.Semaphore(self._settings.in_flight)
        self._health.use_this_loop()
        threads = int(os.environ.get("PERSONA_THREADS", "1")) + 1
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=self._headers, trust_env=False
        ) as session:
            with ThreadPoolExecutor(threads) as pool:

                async def one(question: Question) -> Reply:
                    async with limit:
                        reply = await self._answer(session, pool, question, listener)
                        if reply.error is None:
                            listener.answered(question, reply)
                        return reply

                return await asyncio.gather(*(one(question) for question in questions))

    async def _answer(
        self, session: aiohttp.ClientSession, pool: ThreadPoolExecutor, question: Question, listener: Listener
    ) -> Reply:
        loop = asyncio.get_running_loop()
        try:
            body = await loop.run_in_executor(pool, self._body, question)
        except Exception as error:  # photos of strangers raise anything; the row is failed
            return Reply(None, error=f"photo: {one_line(error)}")
        problem = ""
        attempts = self._settings.retries + 1
        for attempt in range(attempts):
            if attempt:
                TRAFFIC.again()
                await asyncio.sleep(pause_s(question.key, attempt))
            if not await self._health.answers(session):
                return Reply(None, error=self._health.message(problem))
            if attempt == 0:
                listener.asking(question)
            try:
                with TRAFFIC.request():
                    status, data = await self._post(session, body)
            except TimeoutError:
                TRAFFIC.ended("timeout")
                problem = f"no answer in {self._settings.timeout_s:g} s"
                self._health.doubt()
                continue
            except (aiohttp.ClientError, OSError) as error:
                TRAFFIC.ended("connection")
                problem = f"connection: {one_line(error)}"
                self._health.doubt()
                continue
            if status == 200:
                try:
                    reply = read_reply(self._questions.prompt, json.loads(data))
                    TRAFFIC.ended("ok")
                    return reply
                except MalformedError as error:
                    problem = str(error)
                except ValueError:
                    problem = "the response is not JSON"
                TRAFFIC.ended("malformed")
                continue
            TRAFFIC.ended(f"http_{status}")
            problem = f"HTTP {status}: {server_message(data)}"
            if not is_transient(status):
                return Reply(None, error=problem)
            if status >= 500:
                self._health.doubt()
        return Reply(None, error=f"{problem} ({attempts} attempts)")

    def _body(self, question: Question) -> bytes:
        return json.dumps(self._questions.payload(question, self._name)).encode()

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> tuple[int, bytes]:
        async with session.post(
            chat_url(self._endpoint),
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
        ) as response:
            return response.status, await _read(response)


class _ServerHealth:
    """Whether the server answers. A request that failed puts it in doubt; then all wait until it answers."""

    def __init__(self, endpoint: str, reconnect_s: float) -> None:
        self._endpoint = endpoint
        self._reconnect_s = reconnect_s
        self._in_doubt = True
        self._silent_since: float | None = None
        self._gone_at: float | None = None
        self._turn = asyncio.Lock()

    def use_this_loop(self) -> None:
        """Readies the lock for the event loop that runs now."""
        self._turn = asyncio.Lock()

    def doubt(self) -> None:
        """Notes that a request failed: before the next one the server is asked whether it answers."""
        self._in_doubt = True

    async def answers(self, session: aiohttp.ClientSession) -> bool:
        """True once the server answers; False when it has been silent for `reconnect_s`."""
        if not self._in_doubt:
            return True
        async with self._turn:
            while self._in_doubt:
                now = time.monotonic()
                if self._gone_at is not None and now - self._gone_at < _GONE_FOR_S:
                    return False
                if await self._probe(session):
                    self._in_doubt, self._silent_since, self._gone_at = False, None, None
                    return True
                now = time.monotonic()
                self._silent_since = self._silent_since or now
                if now - self._silent_since >= self._reconnect_s:
                    self._gone_at = now
                    return False
                await asyncio.sleep(_PROBE_EVERY_S)
        return True

    def message(self, problem: str) -> str:
        """Why a question fails."""
        before = f" ({problem})" if problem else ""
        return f"no server at {self._endpoint}: silent for more than {self._reconnect_s:g} s{before}"

    async def _probe(self, session: aiohttp.ClientSession) -> bool:
        """Whether the server answers /health; one that has no /health answers too, with 404."""
        try:
            async with session.get(
                f"{self._endpoint}/health", timeout=aiohttp.ClientTimeout(total=_PROBE_S)
            ) as response:
                return response.status < 500
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for block in response.content.iter_chunked(65536):
        data += block
        if len(data) > MAX_RESPONSE_BYTES:
            raise aiohttp.ClientPayloadError(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
    return bytes(data)
