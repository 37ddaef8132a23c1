"""A headless Chromium, driven over its DevTools protocol: pages from disk, what they log and show.

https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

_START_S = 60.0
_ANSWER_S = 60.0
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def find_chromium() -> str | None:
    """The program, or None where there is none."""
    return next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )


class Chromium:
    """One page of a browser of its own. Not safe for threads.

    errors   what pages logged as errors, threw, or could not load, in order
    """

    def __init__(self, program: str) -> None:
        self.errors: list[str] = []
        self._program = program
        self._profile = tempfile.TemporaryDirectory(prefix="persona-chromium-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        self._calls = 0
        self._loaded = False

    def __enter__(self) -> "Chromium":
        home = {**os.environ, "HOME": self._profile.name}
        command = [self._program, *_OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=home, start_new_session=True
        )
        try:
            self._run(self._connect(self._port()))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._disconnect())
        self._end()

    def open(self, page: Path, fragment: str = "") -> None:
        """Loads a file anew and waits until it and its scripts have loaded."""
        # A page that differs from the one shown in the fragment only would not be loaded again.
        self._go("about:blank")
        self._go(page.absolute().as_uri() + fragment)

    def _go(self, address: str) -> None:
        self._loaded = False
        self._call("Page.navigate", url=address)
        until = time.monotonic() + _ANSWER_S
        while not self._loaded:
            if time.monotonic() > until:
                raise TimeoutError(f"{address} does not load")
            self.evaluate("null")

    def size(self, width: int, height: int, phone: bool = False) -> None:
        """The viewport in px; a phone also has two device pixels for each, and touch."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def dark(self, is_dark: bool) -> None:
        """Which colours the user prefers."""
        value = "dark" if is_dark else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited where it is a promise. Raises RuntimeError where it throws."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(_said(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = 20.0) -> None:
        """Waits until an expression is true. Raises TimeoutError."""
        until = time.monotonic() + timeout_s
        while not self.evaluate(f"Boolean({script})"):  # an element itself would come back as an empty object
            if time.monotonic() > until:
                raise TimeoutError(f"never true: {script}")
            time.sleep(0.02)

    def first_paint_s(self) -> float:
        """Seconds from the start of the navigation to the first contents on the screen."""
        found = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        self.wait_for(found)
        return float(self.evaluate(found)) / 1000

    def screenshot(self, file: Path) -> None:
        """What the viewport shows, as a PNG."""
        answer = self._call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(answer["data"]))

    def _port(self) -> int:
        file = Path(self._profile.name) / "DevToolsActivePort"
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            if file.exists() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{self._program} does not start")

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [entry for entry in await answer.json() if entry["type"] == "page"]
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._ask(f"{domain}.enable", {})

    async def _disconnect(self) -> None:
        await self._socket.close()
        await self._session.close()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._loop.close()
        self._profile.cleanup()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, _ANSWER_S))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return dict(self._run(self._ask(method, parameters)))

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        number = self._calls
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, said = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(_said(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(
                " ".join(str(part.get("value", part.get("description"))) for part in said["args"])
            )
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}".strip())


def _said(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
