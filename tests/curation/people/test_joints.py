"""Joints of people whose detector gives none."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from persona import main
from tests.drawn_people import BOX, HEAD, HEIGHT, collection, write_folder
from tests.drawn_pipeline import photos_with_people, settings, write_config

BESIDE = [4, 100, 34, 140, 0.85]  # a face in no box
NARROW = "narrow.jpg"


def curate(folder: Path, out: Path, joints: dict[str, Any] | None, *words: str) -> dict[str, dict[str, Any]]:
    """{file name: its photo and people}: on each a certain person, a less certain one, one by its face."""
    photos = folder / "photos"
    if not photos.exists():
        write_folder(photos, collection(3, people=2, outfits=1, photos=3))
        Image.open(photos / "photo-00000.jpg").crop((0, 0, 130, HEIGHT)).save(photos / NARROW)
    pipeline = settings(photos)
    people = pipeline["people"]
    boxes = [[*BOX, 0.9], [60, 60, 90, 160, 0.3]]
    people["detect"]["by"] = {"backend": "tests.drawn_models:ToldDetector", "options": {"boxes": boxes}}
    if joints is not None:
        people["detect"]["joints"] = {"backend": "tests.drawn_models:ToldJoints", "options": joints}
    people["face"]["find"] = {
        "backend": "tests.drawn_models:ToldFaceFinder",
        "options": {"faces": [[*HEAD, 0.9], BESIDE]},
    }
    people["lone_faces"] = {}
    pipeline["photos"]["duplicates"] = {"near": False}
    pipeline["engine"]["max_failed_share"] = 1.0
    config = write_config(folder / "pipelines.yaml", pipeline)
    options = ["--config", str(config), "--out", str(out), "--engine", "inline", "--quiet", "--allow-empty"]
    assert main(["curate", "drawn", *options, *words]) == 0
    return photos_with_people(out)


def verdicts(rows: dict[str, dict[str, Any]], person: int) -> set[tuple[str, str]]:
    ends = [row["people"][person]["decisions"][-1] for row in rows.values() if row["verdict"] != "failed"]
    return {(end["stage"], end["reason"]) for end in ends}


def test_everyone_whom_the_detector_stored_has_joints_and_who_was_derived_from_a_face_has_none(
    tmp_path: Path,
) -> None:
    rows = curate(tmp_path, tmp_path / "run", {})
    assert len(rows) == 7
    for row in rows.values():
        certain, unsure, derived = (person["keypoints"] for person in row["people"])
        middle = [(BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2]
        assert certain == pytest.approx([*middle, 0.9] * 17)
        assert unsure == pytest.approx([75, 110, 0.9] * 17)
        assert derived is None


def test_the_rule_about_the_whole_body_goes_by_these_joints(tmp_path: Path) -> None:
    rule = ("--set", "people.full_body={joints: true}")
    seen = curate(tmp_path, tmp_path / "seen", {"score": 0.9}, *rule)
    assert ("full_body", "cropped") not in verdicts(seen, 0)
    hidden = curate(tmp_path, tmp_path / "hidden", {"score": 0.2}, *rule)
    assert verdicts(hidden, 0) == {("full_body", "cropped")}


def test_without_the_key_nobody_has_joints(tmp_path: Path) -> None:
    for row in curate(tmp_path, tmp_path / "run", None).values():
        assert [person["keypoints"] for person in row["people"]] == [None, None, None]


def test_a_photo_whose_joints_break_down_is_failed_and_not_without_a_person(tmp_path: Path) -> None:
    row = curate(tmp_path, tmp_path / "run", {"least_px": 150})[NARROW]
    assert (row["verdict"], row["people"]) == ("failed", [])
    assert "the joints broke down" in row["decisions"][-1]["detail"]
