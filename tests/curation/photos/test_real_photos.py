"""Real photos through real weights: two public figures, resized copies, a street scene."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.why import explain
from tests.drawn_pipeline import persona, photos_with_people, rows_of
from tests.real_weights import REAL

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} with real weights and photos is absent")

FIGURES = {
    "obama": {"obama-720p.jpg", "test_obama1.jpg", "train_obama_obama.jpg", "train_obama_obama2.jpg"},
    "biden": {"train_biden_biden.jpg", "train_biden_biden2.jpg"},
}
BOTH = "test_obama_and_biden.jpg"
# A face of that photo and what is just around it: the detector finds nobody there.
FACE_OF_BOTH = (1563, 998, 1838, 1273)
FACE_CROP = "face-crop.jpg"


def curate_real(out: Path, *words: str) -> dict[str, Any]:
    found = find_spec("ultralytics")
    assert found is not None
    assert found.origin is not None
    assets = Path(found.origin).parent / "assets"
    crops = out.parent / "crops"
    if not crops.exists():
        crops.mkdir()
        with Image.open(REAL / "photos" / BOTH) as photo:
            photo.crop(FACE_OF_BOTH).resize((150, 150)).save(crops / FACE_CROP, quality=92)
    sources = f"source.path=[{REAL / 'photos'}, {assets}, {crops}]"
    done = persona(
        "curate", "real-photos", "--set", sources, "--set", f"models.path={REAL / 'models'}",
        "--out", out, "--engine", "inline", "--quiet", "--json", *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "run"
    curate_real(out)
    return out


def test_all_four_people_of_the_street_scene_are_rows(run: Path) -> None:
    rows = [row for row in rows_of(run / "identities") if row["file_name"] == "bus.jpg"]
    assert len(rows) == 4
    assert min(row["box_score"] for row in rows) >= 0.25
    assert len(photos_with_people(run)["bus.jpg"]["people"]) == 4


def test_two_public_figures_are_two_identities_and_none_holds_both(run: Path) -> None:
    rows = [row for row in rows_of(run / "identities") if row["identity"] is not None]
    of_photo: dict[str, set[str]] = {}
    for row in rows:
        of_photo.setdefault(row["file_name"], set()).add(row["identity"])
    whose = {}
    for figure, files in FIGURES.items():
        shared = set.intersection(*(of_photo[name] for name in files))
        assert len(shared) == 1, figure
        whose[figure] = shared.pop()
    assert whose["obama"] != whose["biden"]
    assert of_photo[BOTH] >= set(whose.values())


def test_resized_copies_are_near_copies_of_the_largest(run: Path) -> None:
    rows = {row["file_name"]: row for row in rows_of(run / "photos")}
    largest = rows["obama-720p.jpg"]
    assert largest["verdict"] == "kept"
    for name in ("obama-240p.jpg", "obama-480p.jpg"):
        last = rows[name]["decisions"][-1]
        assert (rows[name]["verdict"], last["reason"]) == ("rejected", "near_copy")
        assert rows[name]["copy_of"] == largest["photo_id"]
        assert last["score"] <= last["threshold"]


def test_a_face_crop_of_150_px_has_a_person_and_the_face_says_so(run: Path) -> None:
    photo = photos_with_people(run)[FACE_CROP]
    (found,) = photo["people"]
    assert photo["verdict"] == "kept"
    assert found["from_face"]["score"] > 0.8
    assert found["decisions"][-1]["stage"] == "appearance"
    person = next(person for person in rows_of(run / "identities") if person["file_name"] == FACE_CROP)
    assert person["identity"] is not None


def test_every_photo_has_an_answer(run: Path) -> None:
    photos = photos_with_people(run)
    assert len(photos) == 12
    for name, row in photos.items():
        assert row["decisions"], name
        answer = explain(str(run), name)["photos"][0]
        assert all(person["decisions"] for person in answer["people"])


def test_under_the_production_rule_the_portraits_are_rejected_as_cropped_with_the_measured_reason(
    run: Path,
) -> None:
    summary = curate_real(run, "--set", "people.full_body=paper", "--allow-empty")
    # Everything was measured before: the rule alone was moved.
    assert summary["model_calls_this_time"] == {}
    portraits = FIGURES["obama"] | FIGURES["biden"] | {BOTH}
    photos = photos_with_people(run)
    for name in portraits:
        assert photos[name]["verdict"] == "rejected"
        last = [person["decisions"][-1] for person in photos[name]["people"]]
        ruled = [decision for decision in last if decision["stage"] == "full_body"]
        assert ruled
        for decision in ruled:
            assert decision["reason"] == "cropped"
            assert 0 < decision["score"] < decision["threshold"]
    done = persona("why", run, "train_biden_biden.jpg")
    # The number that decided comes first, in words.
    assert re.search(r"^ *full_body +rejected cropped \(parts of the body .* \d < 4, ", done.stdout, re.M)


def test_status_counts_every_stage(run: Path) -> None:
    curate_real(run)
    done = persona("status", run, "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert status["state"] == "finished"
    assert {"identities", "groups", "photos"} <= set(status)
    for entry in status["stages"]:
        assert entry["in"] == entry["kept"] + entry["rejected"] + entry["failed"]
    assert status["stages"][0] | {"reasons": {}} == {
        "phase": "photos", "stage": "read", "unit": "photo",
        "in": 12, "kept": 12, "rejected": 0, "failed": 0, "reasons": {},
    }  # fmt: skip
