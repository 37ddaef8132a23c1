"""The audit sheet: kept and rejected pairs on one page that anybody can open and that loads nothing."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.judging.audit_sheet import write_audit_sheet
from curation.judging.quality import outfit_quality
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import curate, rows_of, settings, write_config
from tests.knowing_judge import PHOTOS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` and the finished `run` over them: 8 people in two outfits."""
    folder = tmp_path_factory.mktemp("sheet")
    photos = write_folder(folder / "photos", collection(61, people=8, outfits=2, photos=PHOTOS))
    pipeline: dict[str, Any] = settings(photos)
    pipeline["outfits"] = {"strategy": {"backend": "clusters"}, "judge": {"backend": "appearance"}}
    curate(write_config(folder / "p.yaml", pipeline), folder / "run")
    return folder


@pytest.fixture
def run(made: Path) -> str:
    return str(made / "run")


def pictures(page: str) -> list[Image.Image]:
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in data]


def test_the_sheet_shows_both_people_of_every_drawn_pair_with_verdict_score_and_reason(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sheet.html"
    assert main(["judge", "quality", run, "--audit", "4", "--sheet", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sheet"] == {"file": str(file), "kept": 4, "rejected": 4, "gaps": 0}
    page = file.read_text()
    assert [picture.size for picture in pictures(page)] == [(224, 448)] * 16
    for pair in [*found["audit"]["kept"], *found["audit"]["refused"]]:
        assert f"<code>{pair['a']}</code>" in page
        assert f"<code>{pair['b']}</code>" in page
    assert page.count("<h3>kept: both in ") == 4
    assert page.count("<h3>rejected: ") == 4
    assert (
        len(re.findall(r"<li>the judge, (left|right) photo first: (same|different), score 0?\.?\d+", page))
        >= 8
    )
    rulings = {
        decision["detail"]
        for row in rows_of(Path(run) / "outfits", ["person_decisions"])
        for decisions in row["person_decisions"]
        for decision in decisions
    }
    shown = re.findall(r"<figcaption>.*?<br>(.*?)</figcaption>", page)
    assert all(any(detail in ruling for detail in rulings if detail) for ruling in shown)


def test_the_sheet_loads_nothing_from_elsewhere(run: str, tmp_path: Path) -> None:
    audit = outfit_quality(run, 2)["audit"]
    write_audit_sheet(run, audit["kept"], audit["refused"], 0, str(tmp_path / "sheet.html"))
    page = (tmp_path / "sheet.html").read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_pairs(run: str, tmp_path: Path) -> None:
    for name, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        words = ["judge", "quality", run, "--audit", "3", "--seed", seed, "--sheet", str(tmp_path / name)]
        assert main(words) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_a_photo_that_is_gone_or_has_opted_out_is_a_gap_that_says_so(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made / "run", tmp_path / "run")
    pair = outfit_quality(str(run), 1)["audit"]["kept"][0]
    opted_out = tmp_path / "opt-out.txt"
    opted_out.write_text(f"sha256:{pair['a'].partition('-')[0]}\n")
    config = run / "run.yaml"
    config.write_text(config.read_text().replace("opt_out: null", f"opt_out: {opted_out}"))
    (made / "photos").rename(made / "away")
    try:
        found = write_audit_sheet(str(run), [pair], [], 0, str(tmp_path / "sheet.html"))
    finally:
        (made / "away").rename(made / "photos")
    page = (tmp_path / "sheet.html").read_text()
    assert found["gaps"] == page.count('class="gap"') == 2
    assert "left out: opted out or forgotten" in page
    assert "the photo cannot be shown: FileNotFoundError" in page


def test_a_person_whom_the_papers_protocol_dropped_is_no_kept_pair(made: Path, tmp_path: Path) -> None:
    pipeline: dict[str, Any] = settings(made / "photos")
    pipeline["seed"] = 5
    curate(write_config(tmp_path / "p.yaml", pipeline), tmp_path / "run")
    audit = outfit_quality(str(tmp_path / "run"), 40)["audit"]
    write_audit_sheet(str(tmp_path / "run"), [], audit["refused"], 0, str(tmp_path / "sheet.html"))
    page = (tmp_path / "sheet.html").read_text()
    assert "<h3>rejected: no group and no group" in page
    assert "outfit_differs" in page
    assert "<h3>kept" not in page


def test_names_of_strangers_are_text_on_the_page(run: str, tmp_path: Path) -> None:
    renamed = shutil.copytree(run, tmp_path / "<b onload=x>")
    pair = outfit_quality(run, 1)["audit"]["kept"]
    write_audit_sheet(str(renamed), pair, [], 0, str(tmp_path / "sheet.html"))
    page = (tmp_path / "sheet.html").read_text()
    assert "<b onload" not in page
    assert "&lt;b onload=x&gt;" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sheet", "sheet.html"], "needs --audit N"),
        (["--audit", "1", "--seed", "-1"], "--seed -1: must not be negative"),
        (["--audit", "1", "--sheet", "taken"], "--sheet taken: IsADirectoryError"),
    ],
)
def test_a_sheet_that_cannot_be_made_is_one_line(
    run: str, words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "taken").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["judge", "quality", run, *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1
