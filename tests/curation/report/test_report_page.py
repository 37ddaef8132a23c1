"""The page of a report in headless Chromium, opened from disk: it logs no error, and text stays text."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.chromium import Chromium, find_chromium
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import settings, write_config

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")

NASTY = "<img src=x onerror=window.broken=1>'\"&amp;\u2028.jpg"
"""A file name that is markup, if anybody takes it for that."""


@dataclass(frozen=True)
class Opened:
    """A browser, the report that it shows, and ids of two photos of it."""

    browser: Chromium
    page: Path
    first: str
    nasty: str

    def open(self, fragment: str = "") -> None:
        """Loads the page and waits until it is drawn."""
        self.browser.open(self.page, fragment)
        self.browser.wait_for("document.querySelector('.stage')")

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector names."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
        return list(self.browser.evaluate(found))


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
def browser() -> Iterator[Chromium]:
    assert PROGRAM is not None
    with Chromium(PROGRAM) as found:
        yield found


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Iterator[Opened]:
    """The page at a desk, light. Whatever a test does, nothing may be logged as an error."""
    drawn = collection(9, people=5, outfits=2, photos=3)
    first, nasty = (hashlib.sha256(drawn[number].jpeg).hexdigest() for number in (0, 7))
    browser.size(1280, 900)
    browser.dark(False)
    browser.errors.clear()
    yield Opened(browser, page, first, nasty)
    assert browser.errors == []


def draw_all(opened: Opened) -> None:
    """Scrolls through the page, so that every section and picture in it is drawn."""
    for name in opened.browser.evaluate("[...document.querySelectorAll('main > section')].map((s) => s.id)"):
        opened.browser.evaluate(f"main.draw('{name}'); document.getElementById('{name}').scrollIntoView()")
        opened.browser.wait_for(f"document.getElementById('{name}').childElementCount > 1")
    opened.browser.wait_for("document.querySelector('#rows td img[src]')")
    opened.browser.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_section_is_drawn_and_fits_the_screen(opened: Opened, is_dark: bool, width: int) -> None:
    opened.browser.size(width, 844, phone=width < 500)
    opened.browser.dark(is_dark)
    opened.open()
    draw_all(opened)
    assert opened.browser.evaluate("document.documentElement.scrollWidth") <= width
    ink, ground = (
        opened.browser.evaluate(
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
    opened.browser.wait_for("document.getElementById('detail').open")
    assert opened.first in opened.texts("#detail .ids")[0]
    assert "photo-00000.jpg" in opened.texts("#detail h2")[0]


def test_a_person_and_a_file_name_are_found_and_what_is_not_there_is_said(opened: Opened) -> None:
    opened.open()
    for wanted in (f"{opened.first}-0", "PHOTO-00000"):
        opened.browser.evaluate("document.getElementById('detail').close()")
        opened.browser.evaluate(f"browse.find({json.dumps(wanted)})")
        opened.browser.wait_for("document.getElementById('detail').open")
        assert opened.first in opened.texts("#detail .ids")[0]
    opened.browser.evaluate("browse.find('photo-')")
    opened.browser.wait_for("document.querySelectorAll('#rows tbody tr').length === 29")
    opened.browser.evaluate("browse.find('nobody')")
    opened.browser.wait_for("document.querySelector('#rows .note')")


def test_text_of_a_collection_is_shown_and_never_taken_for_markup(opened: Opened) -> None:
    opened.open(f"#find={opened.nasty}")
    opened.browser.wait_for("document.getElementById('detail').open")
    assert opened.texts("#detail h2") == [NASTY]
    draw_all(opened)
    assert opened.browser.evaluate("window.broken") is None
    assert opened.browser.evaluate("document.querySelectorAll('[onerror]').length") == 0


def test_a_reason_of_the_funnel_lists_those_that_it_ruled_out(opened: Opened) -> None:
    opened.open()
    reason, count = opened.browser.evaluate(
        "(() => { const button = document.querySelector('button.reason'); button.click();"
        " return [button.textContent, Number(button.querySelector('b').textContent)]; })()"
    )
    opened.browser.wait_for(f"document.querySelectorAll('#rows tbody tr').length === {min(count, 25)}")
    assert opened.browser.evaluate(
        "document.querySelector('#browse select').selectedOptions[0].text"
    ).endswith(f"({count})"), reason


def test_a_report_that_lost_a_file_says_so(browser: Chromium, page: Path, tmp_path: Path) -> None:
    alone = tmp_path / "index.html"
    for file in page.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    browser.open(alone)
    browser.wait_for("document.querySelector('.note')")
    assert "data/overview.js is missing" in browser.evaluate("document.body.textContent")
