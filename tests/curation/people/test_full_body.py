"""The full-body check on drawn-up rows: presets, own thresholds, and what is recorded."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.ledger import DECISIONS, KEPT
from curation.meters import CallCounter
from curation.people.chain import ChainContext
from curation.people.face import FACE
from curation.people.full_body import FullBody
from curation.photos.pixels import Pixels
from curation.settings.people import FullBodySettings
from curation.settings.source import SourceSettings

WIDTH, HEIGHT = 600, 1000
STANDING = (200.0, 100.0, 400.0, 900.0)  # 27 % of the photo
ALL_JOINTS = range(17)
NOSE, SHOULDERS, HIPS, KNEES, ANKLES = 0, (5, 6), (11, 12), (13, 14), (15, 16)
CHECKS = [
    "cropped",
    "cropped_by_borders",
    "low_score",
    "too_small",
    "small_share",
    "large_share",
    "not_dominant",
]


def person(
    box: tuple[float, float, float, float] = STANDING,
    score: float = 0.95,
    seen: Any = None,
    face_px: float | None = None,
    verdict: str = KEPT,
) -> dict[str, Any]:
    """A person as the columns have them. `seen`: the visible joints; None where there are no keypoints."""
    keypoints = None
    if seen is not None:
        values = np.zeros((17, 3))
        values[list(seen), 2] = 0.8
        keypoints = values.reshape(-1).tolist()
    face = None
    if face_px is not None:
        x, y = (box[0] + box[2]) / 2, box[1]
        face = {
            "found": True,
            "box": [x - face_px * 0.4, y, x + face_px * 0.4, y + face_px],
            "points": [0.0] * 10,
            "score": 0.9,
            "embedding": b"",
        }
    return {"box": box, "score": score, "keypoints": keypoints, "face": face, "verdict": verdict}


def table_of(*photos: list[dict[str, Any]]) -> pa.Table:
    """People on photos of WIDTH × HEIGHT, a list for each photo, as `detect` and `face` leave them."""
    people = [(f"photo{i}", j, one) for i, of_photo in enumerate(photos) for j, one in enumerate(of_photo)]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([one[name] for _, _, one in people], kind)

    return pa.table(
        {
            "person_id": pa.array([f"{photo}-{j}" for photo, j, _ in people], pa.string()),
            "source_key": pa.array([photo for photo, _, _ in people], pa.string()),
            "width": pa.array([WIDTH] * len(people), pa.int32()),
            "height": pa.array([HEIGHT] * len(people), pa.int32()),
            "box": column("box", pa.list_(pa.float32())),
            "box_score": column("score", pa.float32()),
            "keypoints": column("keypoints", pa.list_(pa.float32())),
            "face": column("face", FACE),
            "verdict": column("verdict", pa.string()),
            "decisions": pa.array([[] for _ in people], DECISIONS),
        }
    )


def stage(settings: FullBodySettings, calls: CallCounter | None = None) -> FullBody:
    chain = ChainContext(Pixels(SourceSettings(path="photos")), calls or CallCounter(None))
    return FullBody(settings, chain)


def decisions(settings: FullBodySettings, *people: dict[str, Any]) -> list[dict[str, Any]]:
    """The last decision about each of the people of one photo."""
    return [given[-1] for given in stage(settings)(table_of(list(people)))["decisions"].to_pylist()]


def decision(settings: FullBodySettings, *people: dict[str, Any]) -> dict[str, Any]:
    """The decision about the first of the people of one photo."""
    return decisions(settings, *people)[0]


PAPER, ANY = FullBodySettings(preset="paper"), FullBodySettings(preset="any")


def test_the_paper_keeps_a_person_from_head_to_feet() -> None:
    assert decision(PAPER, person(seen=ALL_JOINTS))["verdict"] == "kept"
    assert decision(PAPER, person(face_px=100))["verdict"] == "kept"


def test_the_paper_rejects_a_portrait_as_cropped_with_what_was_measured() -> None:
    portrait = person(box=(100.0, 200.0, 500.0, 800.0), face_px=200)
    ruled = decision(PAPER, portrait)
    assert (ruled["verdict"], ruled["reason"]) == ("rejected", "cropped")
    assert ruled["score"] == pytest.approx(3)
    assert ruled["threshold"] == 6.5


@pytest.mark.parametrize(("face_px", "verdict"), [(122.0, "kept"), (124.0, "rejected")])
def test_without_joints_the_paper_asks_for_six_and_a_half_faces(face_px: float, verdict: str) -> None:
    assert decision(PAPER, person(face_px=face_px))["verdict"] == verdict


@pytest.mark.parametrize(
    ("missing", "score"),
    [
        ((*KNEES, *ANKLES), 3),
        ((*HIPS, *KNEES, *ANKLES), 2),
        ((0, 1, 2, 3, 4), 3),
        ((SHOULDERS[0],), 3),
        ((HIPS[1],), 3),
    ],
    ids=["knees and ankles", "hips down", "head", "a shoulder", "a hip"],
)
def test_the_paper_rejects_a_person_whose_joints_are_missing_as_cropped(
    missing: tuple[int, ...], score: int
) -> None:
    seen = [joint for joint in ALL_JOINTS if joint not in missing]
    # The face is small enough: where there are joints they decide, not the face.
    ruled = decision(PAPER, person(seen=seen, face_px=100))
    assert (ruled["verdict"], ruled["reason"]) == ("rejected", "cropped")
    assert (ruled["score"], ruled["threshold"]) == (score, 4)


@pytest.mark.parametrize("joint", [*KNEES, *ANKLES])
def test_the_paper_keeps_a_person_of_whom_one_knee_or_ankle_is_seen(joint: int) -> None:
    seen = [NOSE, *SHOULDERS, *HIPS, joint]
    assert decision(PAPER, person(seen=seen))["verdict"] == "kept"


def test_a_joint_counts_from_its_score_on() -> None:
    strict = FullBodySettings(preset="paper", min_joint_score=0.81)
    lenient = FullBodySettings(preset="paper", min_joint_score=0.79)
    assert decision(strict, person(seen=ALL_JOINTS))["score"] == 0
    assert decision(lenient, person(seen=ALL_JOINTS))["verdict"] == "kept"


@pytest.mark.parametrize(
    ("box", "borders"),
    [
        ((200.0, 100.0, 400.0, 1000.0), 1),
        ((0.0, 100.0, 200.0, 1000.0), 2),
        ((400.0, 0.0, 600.0, 800.0), 2),
        ((200.0, 8.0, 400.0, 995.0), 2),
        ((0.0, 0.0, 300.0, 1000.0), 3),
    ],
)
def test_the_paper_lets_one_border_cut_a_person_and_no_second(
    box: tuple[float, float, float, float], borders: int
) -> None:
    ruled = decision(PAPER, person(box=box, seen=ALL_JOINTS))
    assert ruled["verdict"] == ("kept" if borders == 1 else "rejected")
    if borders > 1:
        assert (ruled["reason"], ruled["score"], ruled["threshold"]) == ("cropped_by_borders", borders, 1)


@pytest.mark.parametrize(
    ("measured", "reason", "score"),
    [
        (person(seen=ALL_JOINTS, score=0.75), "low_score", 0.75),
        (person(seen=ALL_JOINTS, box=(200.0, 100.0, 310.0, 380.0)), "too_small", 280),
        (person(seen=ALL_JOINTS, box=(200.0, 100.0, 250.0, 500.0)), "small_share", 0.0333),
        (person(seen=ALL_JOINTS, box=(20.0, 20.0, 600.0, 980.0)), "large_share", 0.928),
    ],
    ids=["score", "size", "small share", "large share"],
)
def test_the_paper_rejects_what_is_uncertain_small_or_too_large(
    measured: dict[str, Any], reason: str, score: float
) -> None:
    ruled = decision(PAPER, measured)
    assert (ruled["verdict"], ruled["reason"]) == ("rejected", reason)
    assert ruled["score"] == pytest.approx(score, abs=1e-4)


def test_the_paper_asks_for_one_dominant_person() -> None:
    rival = person(box=(410.0, 100.0, 590.0, 900.0), seen=ALL_JOINTS)
    ruled = decisions(PAPER, person(seen=ALL_JOINTS), rival)
    assert [each["reason"] for each in ruled] == ["not_dominant", "not_dominant"]
    assert ruled[0]["score"] == pytest.approx(200 / 180, abs=1e-3)
    child = person(box=(420.0, 500.0, 560.0, 900.0), seen=ALL_JOINTS)
    assert decision(PAPER, person(seen=ALL_JOINTS), child)["verdict"] == "kept"


def test_people_already_ruled_out_are_no_rivals_and_get_no_second_decision() -> None:
    ghost = person(box=(0.0, 0.0, 600.0, 1000.0), verdict="rejected")
    ruled = stage(PAPER)(table_of([person(seen=ALL_JOINTS), ghost]))
    assert ruled["verdict"].to_pylist() == ["kept", "rejected"]
    assert [len(given) for given in ruled["decisions"].to_pylist()] == [1, 0]


@pytest.mark.parametrize(
    "portrait",
    [
        person(box=(100.0, 200.0, 500.0, 1000.0), face_px=300),
        person(box=(0.0, 0.0, 600.0, 1000.0), face_px=600),
        person(box=(100.0, 200.0, 500.0, 1000.0), seen=[NOSE, *SHOULDERS]),
        person(box=(10.0, 10.0, 50.0, 90.0), score=0.3, face_px=30),
    ],
    ids=["head and shoulders", "fills the photo", "joints of the upper body", "small"],
)
def test_any_keeps_a_portrait(portrait: dict[str, Any]) -> None:
    assert decision(ANY, portrait, person())["verdict"] == "kept"


def test_any_still_rejects_a_person_of_too_few_pixels() -> None:
    ruled = decision(ANY, person(box=(10.0, 10.0, 40.0, 70.0)))
    assert (ruled["reason"], ruled["score"], ruled["threshold"]) == ("too_small", 60, 64)


def test_own_thresholds_override_the_preset_and_the_others_stay() -> None:
    portrait = person(box=(100.0, 200.0, 500.0, 800.0), face_px=200)
    lower = FullBodySettings(preset="paper", min_face_heights=2.5)
    assert decision(lower, portrait)["verdict"] == "kept"
    assert decision(lower, {**portrait, "score": 0.5})["reason"] == "low_score"
    higher = FullBodySettings(preset="any", min_face_heights=3.5)
    assert decision(higher, portrait)["reason"] == "cropped"
    upper_body = person(seen=[NOSE, *SHOULDERS, *HIPS])
    assert decision(PAPER, upper_body)["reason"] == "cropped"
    assert decision(FullBodySettings(preset="paper", joints=False), upper_body)["verdict"] == "kept"
    assert decision(FullBodySettings(preset="any", joints=True), upper_body)["reason"] == "cropped"


def test_a_threshold_of_zero_is_a_threshold_and_not_the_preset() -> None:
    rivals = (person(seen=ALL_JOINTS), person(box=(0.0, 0.0, 590.0, 900.0), seen=ALL_JOINTS))
    assert decision(PAPER, *rivals)["reason"] == "not_dominant"
    assert decision(FullBodySettings(preset="paper", min_dominance=0.0), *rivals)["verdict"] == "kept"


@pytest.mark.parametrize(
    "measured",
    [
        person(seen=ALL_JOINTS),
        person(face_px=100),
        person(box=(0.0, 0.0, 100.0, 150.0), score=0.3, face_px=90),
    ],
    ids=["kept by joints", "kept by face", "rejected for many reasons"],
)
def test_every_check_is_recorded_whatever_the_verdict(measured: dict[str, Any]) -> None:
    ruled = decision(PAPER, measured)
    assert ruled["stage"] == "full_body"
    assert [check["name"] for check in ruled["checks"]] == CHECKS
    assert all(check["score"] is not None and check["threshold"] is not None for check in ruled["checks"])
    wanting = [check for check in ruled["checks"] if not check["passed"]]
    assert ruled["verdict"] == ("rejected" if wanting else "kept")
    if wanting:
        first = wanting[0]
        assert (ruled["reason"], ruled["score"], ruled["threshold"]) == (
            first["name"],
            first["score"],
            first["threshold"],
        )
        assert len(wanting) > 3


def test_recorded_numbers_agree_with_whether_they_passed() -> None:
    least = {"cropped", "low_score", "too_small", "small_share", "not_dominant"}
    random = np.random.default_rng(0)
    people = []
    for _ in range(50):
        x, y = random.uniform(0, 300), random.uniform(0, 400)
        box = (x, y, x + random.uniform(20, 300), y + random.uniform(50, 600))
        people.append(person(box=box, score=random.uniform(0.3, 1), face_px=random.uniform(20, 120)))
    for ruled in decisions(PAPER, *people):
        for check in ruled["checks"]:
            above = check["score"] >= check["threshold"]
            assert check["passed"] == (
                above if check["name"] in least else check["score"] <= check["threshold"]
            )


def test_full_body_asks_no_model_and_leaves_rows_as_many_as_they_were() -> None:
    calls = CallCounter(None)
    table = table_of([person(seen=ALL_JOINTS)], [], [person(), person(score=0.2)])
    ruled = stage(PAPER, calls)(table)
    assert not calls.items
    assert [len(decisions) for decisions in ruled["decisions"].to_pylist()] == [1, 1, 1]
    assert ruled.drop_columns(["verdict", "decisions"]) == table.drop_columns(["verdict", "decisions"])


def test_settings_take_a_preset_by_its_name_alone() -> None:
    assert FullBodySettings.model_validate("paper").resolved() == PAPER.resolved()
    assert FullBodySettings.model_validate("any").resolved().min_box_px == 64
