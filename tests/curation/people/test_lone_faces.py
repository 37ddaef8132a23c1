"""Faces that lie in nobody's box: people of their own, marked so, and never taken for whole bodies."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
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
from tests.drawn_pipeline import rows_of, settings, write_config

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


def people_of(run: Path) -> dict[str, dict[str, Any]]:
    return {row["file_name"]: row for row in rows_of(run / "people")}


def last_of(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(stage, verdict, reason) of the last decision about each person of a photo."""
    ends = [decisions[-1] for decisions in row["person_decisions"]]
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
    rows = people_of(run)
    assert len(rows) == 7
    del rows[NARROW]
    for row in rows.values():
        assert row["verdict"] == "kept"
        assert row["person_ids"] == [f"{row['photo_id']}-0", f"{row['photo_id']}-1"]
        assert last_of(row) == [("appearance", "kept", ""), ("detected", "rejected", "face_score")]
        assert row["boxes"][0] == head_and_shoulders(np.array(HEAD), WIDTH, HEIGHT).tolist()
        assert row["box_scores"][0] == pytest.approx(0.9)
        assert row["keypoints"] == [None, None]
        assert row["faces"][0]["box"] == list(HEAD)
    kept = {row["identity"] for row in rows_of(run / "identities") if row["verdict"] == "kept"}
    assert len(kept) == 2


def test_a_person_that_a_face_stands_for_is_marked_so(run: Path) -> None:
    rows = people_of(run)
    assert all(face["score"] > 0 for name, row in rows.items() if name != NARROW for face in row["from_face"])
    found = explain(str(run), "photo-00000.jpg")
    assert [person["from_face"] for person in found["photos"][0]["people"]] == [True, True]
    said = [line for line in why_lines(found) if line.startswith("  person")]
    assert len(said) == 2
    assert all("derived from a face" in line for line in said)


def test_a_photo_on_which_the_face_finder_breaks_down_is_failed_and_not_without_a_person(run: Path) -> None:
    row = people_of(run)[NARROW]
    assert row["verdict"] == "failed"
    assert "broke down" in row["decisions"][-1]["detail"]
    assert row["person_ids"] == []


def test_a_derived_person_never_passes_a_rule_about_the_whole_body(
    config: Path, run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    for rule in ("paper", "{min_face_heights: 1.0}", "{joints: true}"):
        curate(config, run, "--set", f"people.full_body={rule}")
        rows = people_of(run)
        del rows[NARROW]
        for row in rows.values():
            assert last_of(row)[0] == ("full_body", "rejected", "from_face")
            assert (row["verdict"], row["decisions"][-1]["reason"]) == ("rejected", "nobody_left")


def test_where_no_face_is_certain_either_there_is_no_person(config: Path, run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    curate(config, run, "--set", "people.lone_faces.min_score=0.95")
    row = people_of(run)["photo-00000.jpg"]
    end = row["decisions"][-1]
    assert (end["reason"], end["score"], end["threshold"]) == ("no_person", pytest.approx(0.9), 0.95)


def test_without_the_setting_whoever_has_no_box_is_nobody_and_no_column_is_added(tmp_path: Path) -> None:
    curate(portraits(tmp_path, [], [SURE], lone=False), tmp_path / "run")
    for row in people_of(tmp_path / "run").values():
        assert "from_face" not in row
        assert row["decisions"][-1]["reason"] == "no_person"


def test_a_face_in_somebody_s_box_is_theirs_and_one_beside_it_a_second_person(tmp_path: Path) -> None:
    curate(portraits(tmp_path, [[*BOX, 0.6]], [SURE, BESIDE]), tmp_path / "run")
    row = people_of(tmp_path / "run")["photo-00000.jpg"]
    assert [face is None for face in row["from_face"]] == [True, False]
    assert row["boxes"][0] == list(BOX)
    assert [face["box"] for face in row["faces"]] == [list(HEAD), BESIDE[:4]]
    assert row["box_scores"] == pytest.approx([0.6, 0.85])
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
