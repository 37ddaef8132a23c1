"""A page in a headless Chromium of this machine, driven by Playwright, and what it logged as errors.

Playwright brings no browser here: its own downloads are not used.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import playwright.sync_api
from playwright.sync_api import ConsoleMessage, Page, sync_playwright


def find_chromium() -> str | None:
    """Path of the program; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@dataclass
class Browser:
    """Tabs of one browser. Not safe for threads.

    errors   what pages logged as errors, threw, or could not load, in order
    """

    started: playwright.sync_api.Browser
    errors: list[str] = field(default_factory=list)

    def tab(self, width: int = 1280, height: int = 900, *, phone: bool = False, dark: bool = False) -> Page:
        """An empty page of a size in px; a phone has two device pixels for each of them, and touch."""
        page = self.started.new_page(
            viewport={"width": width, "height": height},
            device_scale_factor=2 if phone else 1,
            is_mobile=phone,
            has_touch=phone,
            color_scheme="dark" if dark else "light",
        )
        page.set_default_timeout(20_000)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self.errors.append(message.text)


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """Starts the browser, and ends it with the block."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as found:
        started = found.chromium.launch(executable_path=program, args=options, timeout=60_000)
        try:
            yield Browser(started)
        finally:
            started.close()


def show(page: Page, file: Path, fragment: str = "") -> None:
    """Loads a file from disk and waits until it and its scripts have loaded."""
    # An address that differs from the one shown in the fragment only would not be loaded again.
    page.goto("about:blank")
    page.goto(file.absolute().as_uri() + fragment)


def first_paint_s(page: Page) -> float:
    """Seconds from the start of the navigation to the first contents on the screen."""
    entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    page.wait_for_function(entry)
    return float(page.evaluate(entry)) / 1000
