"""`persona why`: what it says of a photo, and by which names it finds one."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import curate, persona, settings, write_config
from tests.drawn_report import overview_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos of two people, and one too small."""
    folder = tmp_path_factory.mktemp("why")
    photos = write_folder(folder / "photos", collection(3, people=2, outfits=1, photos=4))
    Image.new("RGB", (64, 48)).save(photos / "tiny.jpg")
    config = write_config(folder / "pipelines.yaml", settings(photos))
    curate(config, folder / "run", "--engine", "inline")
    return folder / "run"


def why(run: Path, *words: str) -> str:
    done = persona("why", run, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_of_a_kept_photo_each_number_has_its_quantity_and_no_reason_stands_there(run: Path) -> None:
    said = why(run, "photo-00000.jpg")
    assert "shorter side 160 px ≥ 100, width × height" in said
    assert "best detection 0." in said
    assert "people on the photo 1 ≤" in said
    assert "the judge's p(same outfit) " in said
    for reason in ("too_small", "animated", "no_person", "low_score", "crowd", "small_mask", "few_regions"):
        assert reason not in said


def test_of_a_rejected_photo_the_reason_stands_before_the_number_that_decided(run: Path) -> None:
    assert "rejected too_small (shorter side 48 px < 100, frames 1 ≤ 1, width" in why(run, "tiny.jpg")


@pytest.fixture(scope="module")
def of_tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a tar as img2dataset writes it."""
    folder = tmp_path_factory.mktemp("why-tars")
    (folder / "tars").mkdir()
    drawn = collection(3, people=2, outfits=1, photos=2)
    with tarfile.open(folder / "tars" / "00000.tar", "w") as tar:
        for number, photo in enumerate(drawn):
            key = f"{number:09d}"
            record = {"key": key, "url": f"https://photos.example/{number}.jpg?w=640"}
            for name, data in ((f"{key}.jpg", photo.jpeg), (f"{key}.json", json.dumps(record).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    config = write_config(folder / "pipelines.yaml", settings(folder / "tars", kind="auto"))
    curate(config, folder / "run", "--engine", "inline", "--allow-empty")
    return folder / "run"


@pytest.mark.parametrize(
    "name",
    [
        "000000001",
        "00000.tar/000000001",
        "00000/000000001",
        "00000.tar/000000001.jpg",
        "https://photos.example/1.jpg?w=640",
        "http://www.photos.example:80/1.jpg#top",  # an address has many spellings
    ],
)
def test_a_photo_is_found_by_its_key_its_place_in_a_tar_and_its_address(of_tars: Path, name: str) -> None:
    said = [line for line in why(of_tars, name).splitlines() if line.startswith("photo ")]
    assert len(said) == 1
    assert "  00000.tar/000000001.jpg" in said[0]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("00000.tar/00000001", "00000.tar/00000000"),
        ("https://photos.example/22.jpg", "https://photos.example/2.jpg?w=640"),
        ("0000000011.jpg", "000000001.jpg"),
    ],
)
def test_of_a_name_that_nothing_has_the_nearest_is_named(of_tars: Path, name: str, near: str) -> None:
    done = persona("why", of_tars, name)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"the nearest photo is '{near}" in done.stderr


@pytest.mark.parametrize(
    "name", [b"\xff", b"00000.tar/\xff", b"\xff0000000001.jpg", b"http://\xff.example/1.jpg"]
)
def test_a_name_that_is_no_utf8_is_one_line_as_any_other_that_nothing_has(of_tars: Path, name: bytes) -> None:
    done = persona("why", of_tars, os.fsdecode(name))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "knows no photo" in done.stderr


def test_the_report_has_the_words_of_every_number_of_its_histograms(run: Path) -> None:
    assert persona("report", run).returncode == 0
    overview = overview_of(run / "report")
    numbers = overview["numbers"]
    assert numbers["screen"]["too_small"] == ["shorter side", "px", 1.0, "≥", "<"]
    scores = [score for score in overview["scores"] if score["check"] != "same"]
    assert len(scores) > 10
    for score in scores:
        assert numbers[score["stage"]][score["check"]][0] in score["says"]
