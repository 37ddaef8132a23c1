"""`persona eval`: each measure has the number that is known by hand, and an error moves its measures only."""

import io
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.evaluation.answers import LookedAt, Person, match_boxes, whose_faces
from curation.evaluation.detection import near_joints
from curation.evaluation.evaluate import evaluate, measure_lines
from curation.evaluation.groups import FactReader, captions, forbidden_in
from curation.evaluation.identities import (
    area,
    bcubed,
    best_threshold,
    draw_pairs,
    equal_error,
    faces,
    pair_counts,
    ten_fold_accuracy,
)
from curation.evaluation.truth import Measure, Truth, read_truth
from curation.people.atr import decode_map, encode_map
from curation.why import explain, why_lines
from tests.drawn_people import Drawn, collection, jpeg_of, write_folder
from tests.drawn_pipeline import curate, persona, settings, write_config
from tests.drawn_pipeline import rows_of as barrier
from tests.drawn_truth import FACTS, rows_of, write_rows

PEOPLE, PHOTOS_EACH = 6, 8
COPIES = {"copy-3.jpg": "photo-00003.jpg", "copy-17.jpg": "photo-00017.jpg"}

Rows = tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]
Values = dict[str, float | int | None]


@dataclass(frozen=True)
class Finished:
    """A run of the drawn pipeline and the rows of its truth."""

    run: Path
    rows: Rows
    grouped: list[str]
    """photo_ids of the people in packed groups."""

    def values(self, folder: Path, rows: Rows) -> Values:
        """{key: value} of the run measured against other rows."""
        truth = write_rows(folder, *rows)
        return {measure.key: measure.value for measure in evaluate(str(self.run), str(truth))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """48 photos of six people, four in each of two outfits, and two of the photos encoded again."""
    folder = tmp_path_factory.mktemp("evaluated")
    drawn = collection(5, people=PEOPLE, outfits=2, photos=4)
    by_name = {photo.name: photo for photo in drawn}
    for copy, original in COPIES.items():
        picture = np.array(Image.open(io.BytesIO(by_name[original].jpeg)))
        drawn.append(replace(by_name[original], name=copy, jpeg=jpeg_of(picture, quality=60)))
    source = write_folder(folder / "photos", drawn)
    curate(write_config(folder / "pipelines.yaml", settings(source)), folder / "run")
    grouped = [row["person_id"][:64] for row in barrier(folder / "run" / "captions")]
    return Finished(folder / "run", rows_of(drawn, COPIES), grouped)


@pytest.fixture
def perfect(finished: Finished, tmp_path: Path) -> Values:
    return finished.values(tmp_path / "perfect", finished.rows)


def changed(before: Values, after: Values) -> Values:
    return {key: value for key, value in after.items() if value != before[key]}


def test_a_run_without_error_is_perfect_in_every_measure(finished: Finished, perfect: Values) -> None:
    kept = len(finished.grouped)
    assert kept >= 8
    assert kept % 4 == 0
    assert changed(perfect, dict.fromkeys(perfect, 1.0)) == {
        "face_eer": 1.0,
        "caption_forbidden": 1.0,
        "keypoint_pck": 1.0,  # the drawn detector gives no joints
        "caption_arms": 1.0,
        "caption_view": 1.0,
        "caption_expression": 1.0,
        "face_pairs": 1.0,
        "pair_recall": 1.0,
        "pairs_kept": 1.0,
        "groups_kept": 1.0,
    }
    groups = kept // 4
    assert perfect["groups_kept"] == groups
    assert perfect["pairs_kept"] == groups * 6
    assert perfect["pair_recall"] == round(groups * 6 / (2 * PEOPLE * 6), 5)
    assert perfect["face_eer"] == perfect["caption_forbidden"] == 0
    assert perfect["keypoint_pck"] is perfect["caption_view"] is None


def test_a_person_that_was_not_found_lowers_the_recall_of_detection_alone(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    bystander = {**people[0], "index": 1, "identity": "x", "outfit": "x-a", "main": False}
    bystander["box"] = [2.0, 2.0, 40.0, 90.0]
    people.append(bystander)
    after = finished.values(tmp_path / "one", (photos, people, outfits))
    assert changed(perfect, after) == {"detect_recall": round(48 / 49, 5)}
    for excused in ({"visible_share": 0.2}, {"box": [2.0, 2.0, 40.0, 49.0]}):
        people[-1] = {**bystander, **excused}
        after = finished.values(tmp_path / next(iter(excused)), (photos, people, outfits))
        assert changed(perfect, after) == {}


def test_a_detection_of_nobody_lowers_the_precision_of_detection_and_of_its_cluster(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    asked = {name[:64] for row in barrier(finished.run / "outfits") for pair in row["pairs"] for name in
             (pair["a"], pair["b"])}  # fmt: skip
    copied = {photo["copy_of"] for photo in photos}
    copies = {photo["photo_id"] for photo in photos if photo["copy_of"] is not None}
    gone = next(p for p in people if p["photo_id"] not in asked | copied | set(finished.grouped))
    people.remove(gone)
    after = finished.values(tmp_path, (photos, people, outfits))
    moved = changed(perfect, after)
    moved.pop("face_pairs", None)
    together = 6 * 28 + 2 * 8  # two people have a copy more
    lost = 8 if any(gone["identity"] == one["identity"] for one in people if one["photo_id"] in copies) else 7
    assert moved == {
        "detect_precision": round(47 / 48, 5),
        "identity_bcubed_precision": round((40 + 7 * 7 / 8) / 47, 5),
        "identity_pairwise_precision": round((6 * 28 - 7) / (6 * 28), 5),
        "identity_copies_pairwise_precision": round((together - lost) / together, 5),
        "pair_recall": round(len(finished.grouped) // 4 * 6 / (72 - 3), 5),
    }


def test_a_photo_taken_for_a_copy_lowers_the_precision_of_copies(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    people = [person for person in people if person["photo_id"] != photos[-1]["photo_id"]]
    photos[-1]["copy_of"] = None
    after = finished.values(tmp_path, (photos, people, outfits))
    assert changed(perfect, after) == {"duplicate_precision": 0.5}


def copies_of(finished: Finished) -> list[tuple[str, str]]:
    """(photo_id of a rejected copy, that of its original)."""
    rows = barrier(finished.run / "photos")
    return [(row["photo_id"], row["copy_of"]) for row in rows if row["copy_of"] is not None]


def test_a_copy_counts_in_the_identity_of_its_original_and_in_no_other_figure(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    copy, _ = copies_of(finished)[0]
    next(person for person in people if person["photo_id"] == copy)["identity"] = "somebody else"
    after = finished.values(tmp_path, (photos, people, outfits))
    # Six people of eight photos; two of them have a copy more, of which one is said to be somebody else's.
    together = 6 * 28 + 2 * 8
    assert changed(perfect, after) == {
        "identity_copies_pairwise_precision": round((together - 8) / together, 5),
    }


def test_copies_change_no_figure_where_the_truth_shows_nobody_on_them(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    copies = {copy for copy, _ in copies_of(finished)}
    people = [person for person in people if person["photo_id"] not in copies]
    assert changed(perfect, finished.values(tmp_path, (photos, people, outfits))) == {}


def test_a_rejected_copy_is_told_with_the_people_of_its_original_and_is_in_no_group(
    finished: Finished,
) -> None:
    identities = {row["person_id"]: row["identity"] for row in barrier(finished.run / "identities")}
    assert len(copies_of(finished)) == len(COPIES)
    for copy, original in copies_of(finished):
        found = explain(str(finished.run), copy)
        (photo,) = found["photos"]
        assert (photo["decisions"][-1]["reason"], photo["people"]) == ("near_copy", [])
        (person,) = photo["original"]["people"]
        assert person["person_id"] == f"{original}-0"
        assert person["identity"] == identities[f"{original}-0"]
        assert any(f"identity {person['identity']}" in line for line in why_lines(found))
        assert explain(str(finished.run), original)["photos"][0]["original"] is None
        assert copy not in finished.grouped


def test_a_copy_that_was_let_in_lowers_the_recall_of_copies(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    one = next(p for p in photos if p["photo_id"] not in finished.grouped and p["copy_of"] is None)
    one["copy_of"] = next(p["photo_id"] for p in photos if p["path"] == "photo-00030.jpg")
    after = finished.values(tmp_path, (photos, people, outfits))
    moved = changed(perfect, after)
    assert moved["duplicate_recall"] == round(2 / 3, 5)
    assert set(moved) <= {"duplicate_recall", "pair_recall", "face_pairs"}


def test_pixels_that_were_missed_lower_mask_and_regions_by_their_number(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    labels = decode_map(people[0]["labels"])
    shoes, whole = int((labels == 9).sum()), int((labels > 0).sum())
    people[0]["labels"] = encode_map(labels * (labels != 9))
    after = finished.values(tmp_path, (photos, people, outfits))
    shoes_iou, body_iou = 47 / 48, (48 * whole - shoes) / (48 * whole)
    assert changed(perfect, after) == {
        "mask_iou": round((47 + (whole - shoes) / whole) / 48, 5),
        "region_iou_shoes": round(shoes_iou, 5),
        "region_iou_full_body": round(body_iou, 5),
        "region_miou": round((3 + shoes_iou + body_iou) / 5, 5),
    }


def test_a_photo_of_another_outfit_in_a_group_lowers_its_pairs(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    copied = {photo["copy_of"] for photo in photos}
    wrong = next(p for p in people if p["photo_id"] in finished.grouped and p["photo_id"] not in copied)
    wrong["outfit"] += "-other"
    after = finished.values(tmp_path, (photos, people, outfits))
    moved = changed(perfect, after)
    pairs = len(finished.grouped) // 4 * 6
    assert moved["pair_precision"] == round((pairs - 3) / pairs, 5)
    assert moved["pair_recall"] == round((pairs - 3) / (72 - 3), 5)
    assert set(moved) == {"pair_precision", "pair_recall", "judge_run_accuracy", "judge_run_no"}


def test_a_wrong_word_lowers_the_facts_of_captions_alone(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    photos, people, outfits = deepcopy(finished.rows)
    next(p for p in people if p["photo_id"] == finished.grouped[0])["scene"] = "none"
    after = finished.values(tmp_path, (photos, people, outfits))
    stated = len(finished.grouped)
    assert changed(perfect, after) == {
        "caption_facts": round((2 * stated - 1) / (2 * stated), 5),
        "caption_scene": round((stated - 1) / stated, 5),
    }


# --- the single measures -------------------------------------------------------------------------


def test_boxes_are_matched_so_that_most_people_are_found() -> None:
    true = np.array([[0, 0, 10, 10], [0, 0, 10, 14]], float)
    # The first detection fits both; taking its best match first would leave the second one without.
    found = np.array([[0, 0, 10, 13], [0, 0, 10, 19.5]], float)
    assert match_boxes(found, true) == [0, 1]
    assert match_boxes(np.array([[0, 0, 10, 9.9], [0, 0, 10, 10]], float), true[:1]) == [None, 0]
    assert match_boxes(np.array([[6, 0, 16, 10]], float), true[:1]) == [None]
    assert match_boxes(np.zeros((0, 4)), true) == []


def test_a_joint_is_right_within_a_tenth_of_the_box() -> None:
    joints = np.zeros((17, 3))
    joints[:4] = [[50, 50, 2], [50, 60, 2], [50, 70, 1], [50, 80, 0]]
    found = np.tile([50.0, 50.0, 0.9], (17, 1))
    truth = {"keypoints": joints.reshape(-1).tolist(), "box": [0.0, 0.0, 40.0, 99.0]}
    assert near_joints(found, truth) == (1, 2)
    assert near_joints(found, {**truth, "box": [0.0, 0.0, 40.0, 100.0]}) == (2, 2)


def test_bcubed_and_pairs_are_those_counted_by_hand() -> None:
    found = ["1", "1", "1", "2", "2"]
    true = ["a", "a", "b", "b", "b"]
    precision, recall = bcubed(found, true)
    assert precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 + 1) / 5)
    assert recall == pytest.approx((1 + 1 + 1 / 3 + 2 / 3 + 2 / 3) / 5)
    assert pair_counts(found, true) == (2, 4, 4)
    # Nobody in a cluster costs the others precision and is not counted itself.
    assert bcubed(["1", "1"], ["a", None]) == (0.5, 1.0)
    assert pair_counts(["1", "1", "1"], [None, None, "a"]) == (0, 3, 0)


def test_scores_that_part_are_told_apart_and_equal_ones_are_not() -> None:
    same = np.array([True] * 50 + [False] * 50)
    apart = np.where(same, 0.8, 0.2) + np.linspace(0, 0.1, 100)
    assert ten_fold_accuracy(apart, same) == 1
    assert 0.3 < best_threshold(apart, same) < 0.8
    assert (area(apart, same), equal_error(apart, same)) == (1, 0)
    level = np.full(100, 0.5)
    assert ten_fold_accuracy(level, same) == 0.5
    assert area(level, same) == 0.5
    assert area(-apart, same) == 0
    mixed = apart.copy()
    mixed[[0, 50]] = mixed[[50, 0]]
    assert ten_fold_accuracy(mixed, same) == pytest.approx(0.98)
    assert equal_error(mixed, same) == pytest.approx(0.02)


def test_drawn_pairs_are_balanced_and_of_different_photos() -> None:
    who = [f"{number // 5}" for number in range(60)]
    photo = [f"{number // 2}" for number in range(60)]
    drawn = draw_pairs(who, photo, 100)
    assert drawn is not None
    a, b, same = drawn
    assert same.sum() == 50
    for i, j, is_same in zip(a.tolist(), b.tolist(), same.tolist(), strict=True):
        assert (who[i] == who[j]) == is_same
        assert photo[i] != photo[j]
    assert len({tuple(sorted(pair)) for pair in zip(a.tolist(), b.tolist(), strict=True)}) == 100
    again = draw_pairs(who, photo, 100)
    assert again is not None
    assert np.array_equal(a, again[0])
    assert draw_pairs(["1", "1"], ["p", "q"], 100) is None
    few = draw_pairs(["1", "1", "2"], ["p", "q", "r"], 100)
    assert few is not None
    assert len(few[0]) == 100


def test_one_mixed_up_face_lowers_the_accuracy_of_faces(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    axes = np.eye(8, dtype=np.float32)
    truth = Truth({}, {}, {}, {})
    photos = []
    for number in range(40):
        photo_id = f"photo-{number}"
        truth.photos[photo_id] = {"kind": "photo", "copy_of": None}
        vector = axes[number % 8] + random.normal(0, 0.05, 8).astype(np.float32)
        row = {"identity": str(number % 8)}
        person = Person(f"{photo_id}-0", photo_id, np.zeros(4), None, None, None, vector, row)
        photos.append(LookedAt(photo_id, 10, 10, [person], [row]))
    assert value_of(faces(photos, truth), "face_accuracy") == 1
    mixed = replace(photos[0].people[0], embedding=axes[5])
    after = faces([replace(photos[0], people=[mixed]), *photos[1:]], truth)
    assert 0.9 < (value_of(after, "face_accuracy") or 0) < 1


def test_a_face_is_whose_nose_it_has_where_the_box_fits_nobody() -> None:
    true = np.zeros((17, 3))
    true[:3] = [(50, 60, 2), (60, 50, 2), (40, 50, 2)]
    row = {
        "index": 0,
        "identity": "who",
        "keypoints": true.ravel().tolist(),
        "box": [30.0, 30.0, 70.0, 120.0],
    }

    def whose(nose: tuple[float, float], others: list[dict[str, Any]]) -> str | None:
        joints = true.copy()
        joints[0, :2] = nose
        found = Person("p-0", "p", np.array([20.0, 20, 80, 300]), joints, None, None, None, None)
        return whose_faces([LookedAt("p", 100, 300, [found], [row, *others])])["p-0"]

    assert whose((52, 62), []) == "who"
    assert whose((52, 90), []) is None
    assert whose((52, 62), [{**row, "index": 1, "identity": "twin"}]) is None
    assert whose((52, 62), [{**row, "keypoints": [0.0] * 51}]) == "who"


def value_of(measures: list[Measure], key: str) -> float | int | None:
    return {measure.key: measure.value for measure in measures}[key]


def test_the_longest_phrase_is_read_and_no_part_of_a_word() -> None:
    facts = {
        "scene": {"park": ["in a park"], "car_park": ["in a car park", "in a park for cars"]},
        "pose": {"sitting": ["sitting", "sits"], "walking": ["walking"]},
        "arms": {"up": ["sitting"]},
    }
    reader = FactReader(facts)
    assert reader.read("A person SITS in a  park.") == {("pose", "sitting"), ("scene", "park")}
    assert reader.read("In a park for cars") == {("scene", "car_park")}
    assert reader.read("babysitting, sleepwalking") == set()
    assert reader.read("sitting") == {("pose", "sitting"), ("arms", "up")}
    assert FactReader({}).read("sitting") == set()


def test_captions_are_counted_by_what_they_state() -> None:
    said = {
        "1": "A person in full length, with feet in view.",
        "2": "A person in full length, in the dark.",
        "3": "A person.",
        "4": "A woman in a red coat.",
    }
    true: dict[str, dict[str, Any] | None] = {
        "1": {"pose": "whole", "scene": "feet", "framing": "full"},
        "2": {"pose": "whole", "scene": "feet", "framing": "full"},
        "3": {"framing": "half"},
        "4": None,
    }
    found = {measure.key: (measure.value, measure.count) for measure in captions(said, true, FACTS)}
    assert found["caption_facts"] == (0.75, 4)
    assert found["caption_coverage"] == (0.5, 4)
    assert found["caption_framing"] == (round(2 / 3, 5), 3)
    assert found["caption_forbidden"] == (1, 4)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A person stands beside a red brick wall, seen from behind, one arm raised.", []),
        ("Someone is sitting at a striped awning. Smiling at the camera.", []),
        ("A person in a blue T-shirt", ["T-shirt"]),
        ("The person is wearing jeans", ["wearing", "jeans"]),
        ("He waves", ["He"]),
        ("a curly-haired person's hat", ["curly-haired", "hat"]),
        ("A person like Maria walks", ["Maria"]),
        ("the woman’s arm", ["woman's"]),
    ],
)
def test_words_about_clothes_and_identity_are_found(caption: str, words: list[str]) -> None:
    assert forbidden_in(caption) == words


# --- the command ---------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_one_line_of_json(
    finished: Finished, perfect: Values, tmp_path: Path
) -> None:
    truth = write_rows(tmp_path / "truth", *finished.rows)
    done = persona("eval", finished.run, "--truth", truth)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    assert len(table) == len(perfect) + 1
    printed = json.loads(last)
    assert {key: printed[key] for key in perfect} == perfect
    assert printed["detect_recall_of"] == 48
    alone = persona("eval", finished.run, "--truth", truth, "--json")
    assert alone.stdout.splitlines() == [last]


def test_targets_are_said_to_be_reached_or_not() -> None:
    measures = [
        Measure("a", "one", 0.97, 10),
        Measure("b", "two", 0.95999, 10),
        Measure("c", "none", None, 0),
    ]
    _, *lines = measure_lines(measures, {"a": 0.97, "b": 0.96, "c": 0.5})
    assert ["yes" in lines[0], "NO" in lines[1], "NO" in lines[2]] == [True, True, True]


def one_line_error(done: Any) -> str:
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return str(done.stderr)


def remove_people(run: Path, truth: Path) -> None:
    (truth / "people.parquet").unlink()


def remove_facts(run: Path, truth: Path) -> None:
    (truth / "facts.json").unlink()


def break_facts(run: Path, truth: Path) -> None:
    (truth / "facts.json").write_text("{")


def break_photos(run: Path, truth: Path) -> None:
    (truth / "photos.parquet").write_bytes(b"no table")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (remove_people, "has no people.parquet"),
        (remove_facts, "has no facts.json"),
        (break_facts, "not valid JSON"),
        (break_photos, "photos.parquet"),
    ],
)
def test_a_truth_that_cannot_be_read_is_one_line(
    harm: Callable[[Path, Path], None], says: str, finished: Finished, tmp_path: Path
) -> None:
    truth = write_rows(tmp_path / "truth", *finished.rows)
    harm(finished.run, truth)
    done = persona("eval", finished.run, "--truth", truth)
    assert done.returncode == 2
    assert says in one_line_error(done)


def test_an_unfinished_run_and_one_of_other_photos_are_one_line(finished: Finished, tmp_path: Path) -> None:
    other: list[Drawn] = collection(77, people=1, outfits=1, photos=2)
    truth = write_rows(tmp_path / "truth", *rows_of(other, {}))
    done = persona("eval", finished.run, "--truth", truth)
    assert done.returncode == 2
    assert "another collection" in one_line_error(done)
    done = persona("eval", tmp_path, "--truth", truth)
    assert done.returncode == 2
    assert "no run folder" in one_line_error(done)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "run.yaml").write_bytes((finished.run / "run.yaml").read_bytes())
    done = persona("eval", begun, "--truth", truth)
    assert done.returncode == 1
    assert "not finished" in one_line_error(done)


def test_the_truth_is_read_as_it_was_written(finished: Finished, tmp_path: Path) -> None:
    truth = read_truth(str(write_rows(tmp_path, *finished.rows)))
    assert len(truth.photos) == 50
    copy, original = (
        {p["path"]: p["photo_id"] for p in finished.rows[0]}[n] for n in next(iter(COPIES.items()))
    )
    assert truth.original(copy) == truth.original(original) == original
    assert truth.facts == FACTS
