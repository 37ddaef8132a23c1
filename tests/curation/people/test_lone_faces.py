"""Faces that lie in nobody's box: people of their own, marked so, and never taken for whole bodies."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from curation.errors import ConfigError
from curation.evaluation.answers import LookedAt, Person, whose_faces
from curation.people.lone_faces import head_and_shoulders, lone_faces
from curation.people.protocols import Face
from curation.pipeline_file import load_pipeline
from curation.why import explain, why_lines
from persona import main
from tests.drawn_people import BOX, HEAD, HEIGHT, WIDTH, collection, write_folder
from tests.drawn_pipeline import photos_with_people, rows_of, settings, write_config

SURE = [*HEAD, 0.9]
BESIDE = [4, 100, 34, 140, 0.85]  # in no box
UNSURE = [120, 20, 150, 60, 0.7]
NARROW = "narrow.jpg"


def portraits(folder: Path, boxes: list[list[float]], faces: list[list[float]], lone: bool = True) -> Path:
    """A pipelines.yaml over drawn photos, on each of which models find these."""
    photos = write_folder(folder / "photos", collection(3, people=2, outfits=1, photos=3))
    Image.open(photos / "photo-00000.jpg").crop((0, 0, 130, HEIGHT)).save(photos / NARROW)
    pipeline = settings(photos)
    people = pipeline["people"]
    people["detect"]["by"] = {"backend": "tests.drawn_models:ToldDetector", "options": {"boxes": boxes}}
    told = {"faces": faces, "least_px": 150}
    people["face"]["find"] = {"backend": "tests.drawn_models:ToldFaceFinder", "options": told}
    if lone:
        people["lone_faces"] = {}
    pipeline["photos"]["duplicates"] = {"near": False}
    pipeline["engine"]["max_failed_share"] = 1.0
    return write_config(folder / "pipelines.yaml", pipeline)


def curate(config: Path, out: Path, *words: str) -> None:
    options = ["--config", str(config), "--out", str(out), "--engine", "inline", "--quiet", "--allow-empty"]
    assert main(["curate", "drawn", *options, *words]) == 0


def last_of(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(stage, verdict, reason) of the last decision about each person of a photo."""
    ends = [person["decisions"][-1] for person in row["people"]]
    return [(end["stage"], end["verdict"], end["reason"]) for end in ends]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos on which the detector finds nobody, and the face finder one certain face and another."""
    return portraits(tmp_path_factory.mktemp("portraits"), [], [SURE, UNSURE])


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    curate(config, config.parent / "run")
    return config.parent / "run"


def test_a_photo_without_a_box_has_the_person_whose_face_is_on_it(run: Path) -> None:
    rows = photos_with_people(run)
    assert len(rows) == 7
    del rows[NARROW]
    for row in rows.values():
        assert row["verdict"] == "kept"
        first, second = row["people"]
        assert [first["person_id"], second["person_id"]] == [f"{row['photo_id']}-0", f"{row['photo_id']}-1"]
        assert last_of(row) == [("appearance", "kept", ""), ("detected", "rejected", "face_score")]
        assert first["box"] == head_and_shoulders(np.array(HEAD), WIDTH, HEIGHT).tolist()
        assert first["box_score"] == pytest.approx(0.9)
        assert [first["keypoints"], second["keypoints"]] == [None, None]
        assert first["face"]["box"] == list(HEAD)
    kept = {row["identity"] for row in rows_of(run / "identities") if row["verdict"] == "kept"}
    assert len(kept) == 2


def test_a_person_that_a_face_stands_for_is_marked_so(run: Path) -> None:
    people = [person for row in photos_with_people(run).values() for person in row["people"]]
    assert all(person["from_face"]["score"] > 0 for person in people)
    found = explain(str(run), "photo-00000.jpg")
    assert [person["from_face"] for person in found["photos"][0]["people"]] == [True, True]
    said = [line for line in why_lines(found) if line.startswith("  person")]
    assert len(said) == 2
    assert all("derived from a face" in line for line in said)


def test_a_photo_on_which_the_face_finder_breaks_down_is_failed_and_not_without_a_person(run: Path) -> None:
    row = photos_with_people(run)[NARROW]
    assert row["verdict"] == "failed"
    assert "broke down" in row["decisions"][-1]["detail"]
    assert row["people"] == []


def test_a_derived_person_never_passes_a_rule_about_the_whole_body(
    config: Path, run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    for rule in ("paper", "{min_face_heights: 1.0}", "{joints: true}"):
        curate(config, run, "--set", f"people.full_body={rule}")
        rows = photos_with_people(run)
        del rows[NARROW]
        for row in rows.values():
            assert last_of(row)[0] == ("full_body", "rejected", "from_face")
            assert (row["verdict"], row["decisions"][-1]["reason"]) == ("rejected", "nobody_left")


def test_where_no_face_is_certain_either_there_is_no_person(config: Path, run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    curate(config, run, "--set", "people.lone_faces.min_score=0.95")
    row = photos_with_people(run)["photo-00000.jpg"]
    end = row["decisions"][-1]
    assert (end["reason"], end["score"], end["threshold"]) == ("no_person", pytest.approx(0.9), 0.95)


def test_without_the_setting_whoever_has_no_box_is_nobody_and_no_column_is_added(tmp_path: Path) -> None:
    curate(portraits(tmp_path, [], [SURE], lone=False), tmp_path / "run")
    (file, *_) = (tmp_path / "run" / "people").glob("fragment-*")
    assert "from_face" not in pq.read_schema(file).names
    for row in photos_with_people(tmp_path / "run").values():
        assert row["people"] == []
        assert row["decisions"][-1]["reason"] == "no_person"


def test_a_face_in_somebody_s_box_is_theirs_and_one_beside_it_a_second_person(tmp_path: Path) -> None:
    curate(portraits(tmp_path, [[*BOX, 0.6]], [SURE, BESIDE]), tmp_path / "run")
    row = photos_with_people(tmp_path / "run")["photo-00000.jpg"]
    people = row["people"]
    assert [person["from_face"] is None for person in people] == [True, False]
    assert people[0]["box"] == list(BOX)
    assert [person["face"]["box"] for person in people] == [list(HEAD), BESIDE[:4]]
    assert [person["box_score"] for person in people] == pytest.approx([0.6, 0.85])
    assert last_of(row)[0] == ("appearance", "kept", "")


def test_faces_that_keypoints_give_cannot_be_lone_and_the_settings_say_so(tmp_path: Path) -> None:
    pipeline = settings(tmp_path)
    pipeline["people"]["face"]["find"] = {"backend": "keypoints"}
    pipeline["people"]["lone_faces"] = {}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"pipelines": {"drawn": pipeline}}))
    with pytest.raises(ConfigError, match="lone_faces") as error:
        load_pipeline(str(tmp_path / "p.yaml"), "drawn", [])
    assert "\n" not in str(error.value)


def test_head_and_shoulders_are_three_faces_wide_and_end_at_the_borders() -> None:
    face = np.array([100.0, 100, 140, 150])
    assert head_and_shoulders(face, 600, 600).tolist() == [60, 75, 180, 200]
    assert head_and_shoulders(face, 150, 160).tolist() == [60, 75, 150, 160]


def test_faces_outside_of_the_photo_or_without_any_size_are_nobody() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    points = np.zeros((5, 2))
    faces = [Face(np.array(box, float), points, 0.9) for box in ((90, 10, 130, 40), (20, 20, 20, 40))]
    assert lone_faces(faces, [], photo) == []
    inside = Face(np.array([40.0, 10, 80, 40]), points, 0.9)
    assert lone_faces([inside], [], photo) == [inside]
    assert lone_faces([inside], [[0.0, 0.0, 60.0, 25.0]], photo) == []


def test_a_derived_person_is_in_the_truth_whose_nose_lies_in_the_face() -> None:
    joints = np.zeros((17, 3))
    joints[:3] = [(50, 60, 2), (60, 50, 2), (40, 50, 2)]
    row = {"identity": "who", "keypoints": joints.ravel().tolist()}

    def whose(face: tuple[float, ...], others: list[dict[str, Any]]) -> str | None:
        box, lone = np.array([0.0, 0, 90, 90]), np.array(face)
        found = Person("p-0", "p", box, None, None, None, None, None, lone)
        return whose_faces([LookedAt("p", 100, 300, [found], [row, *others])])["p-0"]

    assert whose((30, 30, 70, 80), []) == "who"
    assert whose((60, 30, 90, 80), []) is None
    assert whose((30, 30, 70, 80), [{**row, "identity": "twin"}]) is None
