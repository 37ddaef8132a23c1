"""By setting, heads of people who are not the group's are blurred, and everything else of the photo stays."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.packing.group import as_wanted, blurred
from curation.people.heads import heads_of_others
from curation.settings.groups import ShardsSettings
from persona import main
from tests.curation.packing.test_packing import photo_of
from tests.drawn_people import BOX, HEAD, collection, write_folder
from tests.drawn_pipeline import settings, write_config
from tests.drawn_shards import read_by_webdataset, shards_of

NOISE = np.random.default_rng(2).integers(0, 256, (120, 200, 3), np.uint8)
BESIDE = (112, 40, 158, 200)  # a second person on drawn photos


def person(box: tuple[float, ...], face: tuple[float, ...] | None = None) -> dict[str, Any]:
    return {"box": list(box), "keypoints": None, "face": None if face is None else {"box": list(face)}}


def test_a_head_is_blurred_and_nothing_beside_it() -> None:
    made = blurred(NOISE, [(50, 20, 90, 70)], None)
    outside = np.ones(NOISE.shape[:2], bool)
    outside[20:70, 50:90] = False
    assert np.array_equal(made[outside], NOISE[outside])
    assert made[20:70, 50:90].std() < NOISE[20:70, 50:90].std() / 3
    assert np.array_equal(made, blurred(NOISE, [(50, 20, 90, 70)], None))


def test_the_face_of_the_groups_own_person_stays_under_the_head_of_another() -> None:
    made = blurred(NOISE, [(50, 20, 90, 70)], (80, 60, 100, 80))
    assert np.array_equal(made[60:80, 80:100], NOISE[60:80, 80:100])
    assert not np.array_equal(made[20:60, 50:80], NOISE[20:60, 50:80])


def test_heads_beyond_the_borders_and_without_a_size_are_no_error() -> None:
    for head in ((-30, -30, 20, 20), (190, 110, 400, 400), (300, 0, 400, 50), (5, 5, 5, 5), (9, 9, 3, 3)):
        blurred(NOISE, [head], None)


def test_heads_are_where_faces_were_found_else_where_joints_are_else_at_the_top_of_the_box() -> None:
    own = person((0, 0, 60, 120), (20, 5, 40, 30))
    faced = person((70, 0, 130, 120), (90, 10, 110, 30))
    unfaced = person((140, 10, 180, 110))
    joints = np.zeros((17, 3))
    joints[:5] = [[160, 30, 0.9], [156, 26, 0.9], [164, 26, 0.9], [150, 28, 0.9], [170, 28, 0.9]]
    jointed = {**unfaced, "keypoints": joints.reshape(-1).tolist()}
    assert heads_of_others([own, faced], 0) == [[85.0, 5.0, 115.0, 35.0]]
    assert heads_of_others([unfaced, own], 1) == [[140.0, 10.0, 180.0, 42.0]]
    ((x0, y0, x1, y1),) = heads_of_others([own, jointed], 0)
    assert x0 < 150
    assert x1 > 170
    assert 0 <= y0 < 26
    assert 30 < y1 < 60


def test_a_second_detection_of_the_same_face_is_not_another_person() -> None:
    own, again = person((0, 0, 60, 120), (20, 5, 40, 30)), person((2, 0, 64, 118), (21, 6, 41, 31))
    assert heads_of_others([own, again], 0) == []


@pytest.mark.parametrize("metadata", ["strip", "keep"])
def test_a_photo_with_others_is_encoded_anew_and_its_record_says_so(metadata: Any) -> None:
    photo = photo_of(400, 300, 6)
    wanted = ShardsSettings(blur_others=True, metadata=metadata)
    made = as_wanted(photo, wanted, [(250, 20, 330, 120)])
    assert made.record["reencoded"] == ["blurred_faces"]
    assert made.record["blurred_faces"] == 1
    assert made.record["orientation"] == 1
    assert Image.open(io.BytesIO(made.data)).size == (400, 300)
    assert made.data == as_wanted(photo, wanted, [(250, 20, 330, 120)]).data
    alone = replace(photo, record=dict(photo.record))
    assert "reencoded" not in as_wanted(alone, wanted, []).record
    assert "reencoded" not in as_wanted(alone, ShardsSettings(), [(250, 20, 330, 120)]).record


def test_a_run_blurs_who_is_beside_the_person_of_the_group_also_where_nobody_measured_their_face(
    tmp_path: Path,
) -> None:
    drawn = collection(5, people=2, outfits=1)
    photos = write_folder(tmp_path / "photos", drawn)
    pipeline = settings(photos)
    boxes = [[*BOX, 0.9], [*BESIDE, 0.3]]  # the second one is below min_score: no face was looked for
    pipeline["people"]["detect"]["by"] = {
        "backend": "tests.drawn_models:ToldDetector",
        "options": {"boxes": boxes},
    }
    pipeline["shards"]["blur_others"] = True
    config = write_config(tmp_path / "drawn.yaml", pipeline)
    words = ["--config", str(config), "--engine", "inline", "--quiet"]
    assert main(["curate", "drawn", "--out", str(tmp_path / "run"), *words]) == 0
    assert (
        main(
            ["curate", "drawn", "--out", str(tmp_path / "plain"), *words, "--set", "shards.blur_others=false"]
        )
        == 0
    )
    made, plain = (read_by_webdataset(shards_of(tmp_path / run / "shards")) for run in ("run", "plain"))
    assert set(made) == set(plain) != set()
    for key, members in made.items():
        for suffix in [name for name in members if name.endswith(".jpg")]:
            record = json.loads(members[suffix.replace("jpg", "json")])
            assert record["blurred_faces"] == 1
            before, after = (
                np.asarray(Image.open(io.BytesIO(each[key][suffix])), int) for each in (plain, made)
            )
            x0, y0, x1, y1 = HEAD
            assert np.abs(before - after)[y0:y1, x0:x1].mean() < 10  # encoded anew, and no more
            x0, y0, x1, _ = BESIDE
            head = (slice(y0, y0 + 32), slice(x0, x1))
            assert after[head].std() <= before[head].std()
