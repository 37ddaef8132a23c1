"""The full-size rehearsal at small size: weights as benchmarks/full_size.py writes them, asked as it asks."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.full_size import Parts, backend_alone
from benchmarks.full_size_backends import STAGES, measure_backend
from benchmarks.full_size_photos import Place, detections_of, people_around, people_rows, pixels_key
from benchmarks.full_size_weights import (
    write_iresnet,
    write_sam2,
    write_segformer,
    write_vitpose,
    write_yolo_pose,
)
from curation.people.protocols import Face
from curation.photos.decode import decode_rgb
from tests.drawn_people import collection, write_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three drawn photos with one given person each, and weights of small sizes."""
    found = Place(tmp_path_factory.mktemp("rehearsal"))
    found.weights.mkdir()
    write_folder(found.photos, collection(3, people=1)[:3])
    given = {}
    for file in found.photos.iterdir():
        photo = decode_rgb(file.read_bytes())
        eyes = [[70.0, 30.0], [90.0, 30.0], [80.0, 40.0], [72.0, 50.0], [88.0, 50.0]]
        face = Face(np.array([60.0, 15.0, 100.0, 60.0]), np.array(eyes), 0.9)
        given[pixels_key(photo)] = people_around([face], photo.shape[1], photo.shape[0])
    found.given.write_text(json.dumps(given))
    files = found.files()
    counts = {
        "yolo11-pose": write_yolo_pose(found.weights / files["yolo11-pose"], "n"),
        "arcface-r50": write_iresnet(found.weights / files["arcface-r50"], ((8, 1), (16, 2)), width=32),
        "segformer-clothes": write_segformer(
            found.weights / files["segformer-clothes"], hidden_sizes=[8, 16, 20, 32], depths=[1, 1, 1, 1],
            decoder_hidden_size=16,
        ),
        "vitpose-b": write_vitpose(found.weights / files["vitpose-b"], hidden_size=24, num_hidden_layers=1),
        "sam2.1-l": write_sam2(
            found.weights / files["sam2.1-l"],
            hidden_size=8, num_attention_heads=1, blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 1, 1],
            window_size_per_stage=[8, 4, 4, 4], global_attention_blocks=[3],
            window_positional_embedding_background_size=[4, 4],
        ),
    }  # fmt: skip
    (found.folder / "parameters.json").write_text(json.dumps(counts))
    return found


@pytest.mark.parametrize(
    ("stage", "unit", "asked", "answers"),
    [
        ("detect", "photo", 3, "boxes with 17 joints"),
        ("face.embed", "face", 3, "float32 [3, 32]"),
        ("regions", "person", 3, "3 maps, uint8"),
        ("detect.joints", "person", 3, "float32 [17, 3]"),
        ("segment.sam2", "photo", 2, "2 masks, bool"),
    ],
)
def test_a_backend_of_random_weights_is_measured_as_its_stage_asks_it(
    place: Place, stage: str, unit: str, asked: int, answers: str
) -> None:
    report = measure_backend(stage, place, few=2)
    assert report.error == ""
    assert (report.unit, report.asked) == (unit, asked)
    assert answers in report.answers
    assert report.random
    assert report.parameters > 1000
    assert 0 < report.start_gib <= report.peak_gib
    assert (report.tensors_gib > 0) == (not stage.startswith("face"))


def test_a_backend_that_cannot_be_loaded_is_a_line_of_the_table_and_not_its_end(place: Place) -> None:
    report = measure_backend("segment", place, few=1)  # no weights of SAM were written
    assert "sam_vit_h_4b8939.pth" in report.error
    assert set(STAGES) >= {"detect", "segment"}


def test_people_are_given_inside_of_the_photo_and_below_their_faces(place: Place) -> None:
    for photo, people in place.shown():
        for person in people:
            x0, y0, x1, y1 = person["box"]
            assert 0 <= x0 < 60 < 100 < x1 <= photo.shape[1]
            assert 0 <= y0 < 15 < 60 < y1 <= photo.shape[0]
        assert detections_of(people).keypoints.shape == (1, 17, 3)  # type: ignore[union-attr]
    assert [row["photo_id"] for row in people_rows(place)] == [
        row["person_id"].removesuffix("-0") for row in people_rows(place)
    ]


def test_a_rehearsal_that_goes_on_after_a_kill_measures_no_part_again_and_tries_what_failed_again(
    place: Place,
) -> None:
    measured = backend_alone("face.embed", place, 1, Parts(place.folder))
    assert measured.error == ""
    # Seconds and memory are equal only if they were not measured again.
    assert backend_alone("face.embed", place, 1, Parts(place.folder)) == measured
    assert "sam_vit_h_4b8939.pth" in backend_alone("segment", place, 1, Parts(place.folder)).error
    assert Parts(place.folder).get("backend", "segment 1") is None


def test_a_killed_run_of_a_rehearsal_goes_on_in_its_folder_and_no_other_run_is_taken_for_it(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "of-who-knows-what").touch()
    assert not Parts(tmp_path).begin_run("visual-persona-500k 8", run)
    assert not run.exists()
    run.mkdir()
    assert Parts(tmp_path).begin_run("visual-persona-500k 8", run)
    assert not Parts(tmp_path).begin_run("visual-persona-500k 3", run)
    run.mkdir()
    Parts(tmp_path).failed_run(run)  # it ended, with failed rows
    assert not Parts(tmp_path).begin_run("visual-persona-500k 3", run)
