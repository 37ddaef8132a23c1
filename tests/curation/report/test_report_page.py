"""The page of a report in headless Chromium, opened from disk: it logs no error, and text stays text."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from benchmarks.chromium import Browser, chromium, find_chromium, show
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import settings, write_config

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")

NASTY = "<img src=x onerror=window.broken=1>'\"&amp;\u2028.jpg"
"""A file name that is markup, if anybody takes it for that."""


@dataclass(frozen=True)
class Opened:
    """A tab of a browser, the report that it shows, and ids of two photos of it."""

    tab: Page
    page: Path
    first: str
    nasty: str

    def open(self, fragment: str = "") -> None:
        """Loads the page and waits until it is drawn."""
        show(self.tab, self.page, fragment)
        self.tab.wait_for_selector(".stage", state="attached")

    def texts(self, selector: str) -> list[str | None]:
        """The texts of all elements that a selector names."""
        return [element.text_content() for element in self.tab.query_selector_all(selector)]

    def wait_until_a_photo_is_shown(self) -> None:
        self.tab.wait_for_function("document.getElementById('detail').open")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 30 photos of five people, one of them with a nasty name."""
    folder = tmp_path_factory.mktemp("shown")
    drawn = collection(9, people=5, outfits=2, photos=3)
    drawn[7] = replace(drawn[7], name=NASTY)
    config = write_config(folder / "pipelines.yaml", settings(write_folder(folder / "photos", drawn)))
    words = ["curate", "drawn", "--config", str(config), "--out", str(folder / "run")]
    assert main([*words, "--engine", "inline", "--quiet"]) == 0
    swept = "people.full_body.min_box_px=150:250:50"
    assert main(["report", str(folder / "run"), "--sweep", swept]) == 0
    return folder / "run" / "report" / "index.html"


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    # The page first: while a browser of Playwright is open, no other event loop runs in its thread.
    assert PROGRAM is not None
    with chromium(PROGRAM) as found:
        yield found


@contextmanager
def report_in(browser: Browser, page: Path, **tab_of: Any) -> Iterator[Opened]:
    """The report in a tab of its own. Whatever a test does, nothing may be logged as an error."""
    drawn = collection(9, people=5, outfits=2, photos=3)
    first, nasty = (hashlib.sha256(drawn[number].jpeg).hexdigest() for number in (0, 7))
    browser.errors.clear()
    tab = browser.tab(**tab_of)
    yield Opened(tab, page, first, nasty)
    tab.close()
    assert browser.errors == []


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Opened]:
    """At a desk, light."""
    with report_in(browser, page) as found:
        yield found


def draw_all(tab: Page) -> None:
    """Scrolls through the page, so that every section and picture in it is drawn."""
    for name in tab.evaluate("[...document.querySelectorAll('main > section')].map((s) => s.id)"):
        tab.evaluate(f"main.draw('{name}'); document.getElementById('{name}').scrollIntoView()")
        tab.wait_for_function(f"document.getElementById('{name}').childElementCount > 1")
    tab.wait_for_selector("#rows td img[src]", state="attached")
    tab.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_section_is_drawn_and_fits_the_screen(
    browser: Browser, page: Path, is_dark: bool, width: int
) -> None:
    with report_in(browser, page, width=width, height=844, phone=width < 500, dark=is_dark) as opened:
        opened.open()
        draw_all(opened.tab)
        assert opened.tab.evaluate("document.documentElement.scrollWidth") <= width
        ink, ground = (
            opened.tab.evaluate(
                f"getComputedStyle(document.body).{name}.match(/\\d+/g).slice(0, 3).map(Number)"
            )
            for name in ("color", "backgroundColor")
        )
        assert (sum(ink) > sum(ground)) is is_dark
        assert abs(sum(ink) - sum(ground)) > 450


def test_the_funnel_shows_every_stage_of_the_run(opened: Opened) -> None:
    opened.open()
    status = json.loads((opened.page.parent.parent / "summary.json").read_text())
    assert opened.texts(".stage .what b") == [stage["stage"] for stage in status["stages"]]


@pytest.mark.parametrize("length", [8, 64])
def test_a_photo_is_found_by_the_start_of_its_id(opened: Opened, length: int) -> None:
    opened.open(f"#find={opened.first[:length]}")
    opened.wait_until_a_photo_is_shown()
    assert opened.first in str(opened.texts("#detail .ids")[0])
    assert "photo-00000.jpg" in str(opened.texts("#detail h2")[0])


def test_a_person_and_a_file_name_are_found_and_what_is_not_there_is_said(opened: Opened) -> None:
    opened.open()
    for wanted in (f"{opened.first}-0", "PHOTO-00000"):
        opened.tab.evaluate("document.getElementById('detail').close()")
        opened.tab.evaluate(f"browse.find({json.dumps(wanted)})")
        opened.wait_until_a_photo_is_shown()
        assert opened.first in str(opened.texts("#detail .ids")[0])
    opened.tab.evaluate("browse.find('photo-')")
    opened.tab.wait_for_function("document.querySelectorAll('#rows tbody tr').length === 29")
    opened.tab.evaluate("browse.find('nobody')")
    opened.tab.wait_for_selector("#rows .note", state="attached")


def test_text_of_a_collection_is_shown_and_never_taken_for_markup(opened: Opened) -> None:
    opened.open(f"#find={opened.nasty}")
    opened.wait_until_a_photo_is_shown()
    assert opened.texts("#detail h2") == [NASTY]
    draw_all(opened.tab)
    assert opened.tab.evaluate("window.broken") is None
    assert opened.tab.evaluate("document.querySelectorAll('[onerror]').length") == 0


def test_a_reason_of_the_funnel_lists_those_that_it_ruled_out(opened: Opened) -> None:
    opened.open()
    reason, count = opened.tab.evaluate(
        "(() => { const button = document.querySelector('button.reason'); button.click();"
        " return [button.textContent, Number(button.querySelector('b').textContent)]; })()"
    )
    opened.tab.wait_for_function(f"document.querySelectorAll('#rows tbody tr').length === {min(count, 25)}")
    assert opened.tab.evaluate("document.querySelector('#browse select').selectedOptions[0].text").endswith(
        f"({count})"
    ), reason


def test_a_report_that_lost_a_file_says_so(browser: Browser, page: Path, tmp_path: Path) -> None:
    for file in page.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tab = browser.tab()
    show(tab, tmp_path / "index.html")
    tab.wait_for_selector(".note", state="attached")
    assert "data/overview.js is missing" in str(tab.text_content("body"))
    tab.close()
