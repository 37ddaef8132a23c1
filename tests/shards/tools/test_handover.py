"""`persona shards credits` and `statement`: what goes along when a dataset is handed on."""

import csv
import json
from pathlib import Path

import pytest

from persona import main
from tests.drawn_foreign import write_img2dataset
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import settings, write_config


def shards(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["shards", *map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose photos state author, address and licence."""
    folder = tmp_path_factory.mktemp("handover")
    drawn = collection(8, people=4, outfits=1)
    photos = write_folder(folder / "photos", drawn)
    for number, photo in enumerate(drawn):
        record = {
            "author": "=HYPERLINK(1)" if number == 0 else f"Ann [{number}]",
            "url": f"https://photos.example/{number}.jpg",
            "licence": "CC-BY-4.0" if number % 2 else "CC0-1.0",
        }
        (photos / photo.name).with_suffix(".json").write_text(json.dumps(record))
    pipeline = settings(photos)
    (folder / "opt-out.txt").write_text(f"id:{drawn[3].name}\nid:nobody.jpg\n")
    pipeline["photos"]["screen"] |= {
        "licences": ["CC-BY-4.0", "CC0-1.0"],
        "opt_out": str(folder / "opt-out.txt"),
    }
    config = write_config(folder / "p.yaml", pipeline)
    words = ["curate", "drawn", "--config", str(config), "--out", str(folder / "run"), "--engine", "inline"]
    assert main([*words, "--quiet"]) == 0
    return folder / "run"


def test_every_photo_has_its_credit_once_and_no_spreadsheet_takes_one_for_a_formula(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = json.loads((run / "shards" / "dataset.json").read_text())
    rows = list(csv.DictReader(shards(capsys, "credits", run / "shards").splitlines()))
    assert len({row["photo"] for row in rows}) == len(rows) == dataset["photos"]
    stated = {row["address"]: row for row in rows}
    for address, row in stated.items():
        number = int(address.rpartition("/")[2].removesuffix(".jpg"))
        assert row["author"] == ("'=HYPERLINK(1)" if number == 0 else f"Ann [{number}]")
        assert row["licence"] == ("CC-BY-4.0" if number % 2 else "CC0-1.0")
        assert row["deed"] == ("https://creativecommons.org/licenses/by/4.0/" if number % 2 else "")
    shards(capsys, "credits", run / "shards", "--format", "markdown", "--out", run.parent / "CREDITS.md")
    lines = (run.parent / "CREDITS.md").read_text().splitlines()
    assert len(lines) == len(rows)
    odd = next(line for line in lines if "photos.example/1.jpg" in line)
    assert "by Ann \\[1\\], [CC-BY-4.0](<https://creativecommons.org/licenses/by/4.0/>)" in odd


def test_credits_of_photos_of_others_come_from_their_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_img2dataset(tmp_path / "theirs")
    assert main(["shards", "index", str(folder)]) == 0
    capsys.readouterr()
    credits = json.loads(shards(capsys, "credits", folder, "--json"))["credits"]
    assert [credit["licence"] for credit in credits] == ["CC-BY-4.0", "", "CC0-1.0"] * 2
    assert [credit["address"] for credit in credits] == [f"https://example.org/{n}.jpg" for n in range(6)]


def test_the_statement_says_what_was_obeyed_what_was_off_and_what_is_not_known(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = " ".join(shards(capsys, "statement", run / "shards").split())
    assert "Let in were: `CC-BY-4.0`, `CC0-1.0`." in page
    assert "An opt-out list of 2 lines (sha256 `" in page
    assert "1 of them matched a photo of the collection" in page
    assert "a classifier of minors: off" in page
    assert "Nobody was taken out since." in page
    assert "hold no embedding of a face" in page
    key = next(iter(json.loads(shards(capsys, "credits", run / "shards", "--json"))["credits"]))["photo"]
    assert main(["shards", "forget", str(run / "shards"), "--key", key.partition(".")[0]]) == 0
    capsys.readouterr()
    assert "1 times somebody was taken out since; `tombstones-r1.txt`" in shards(
        capsys, "statement", run / "shards"
    )
    theirs = write_img2dataset(tmp_path / "theirs")
    assert main(["shards", "index", str(theirs)]) == 0
    capsys.readouterr()
    assert "It is not known which licences were let in" in shards(capsys, "statement", theirs)
