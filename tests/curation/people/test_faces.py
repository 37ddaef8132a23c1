"""Faces: real weights on labelled portraits, the alignment's algebra, and whose face it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.errors import ConfigError
from curation.people.face import ARCFACE_TEMPLATE, align_face, assign_faces, similarity
from curation.people.face_keypoints import KeypointsFaceFinder
from curation.people.face_onnx import OnnxFaceEmbedder
from curation.people.face_opencv import SfaceEmbedder, YunetFaceFinder
from curation.people.protocols import Detections, Face
from curation.settings.people import (
    KeypointsFaceSettings,
    OnnxEmbedderSettings,
    SfaceSettings,
    YunetSettings,
)
from curation.weights.onnx_file import OnnxGraph
from tests.drawn_models import NOBODY
from tests.real_weights import REAL, model_at, photo_at, real_models

# Real weights


@pytest.fixture(scope="module")
def finder() -> YunetFaceFinder:
    models = real_models(yunet="face_detection_yunet_2026may.onnx")
    return YunetFaceFinder(YunetSettings(model="yunet"), models)


@pytest.fixture(scope="module")
def embedder() -> OnnxFaceEmbedder:
    models = real_models(mobileface="mobileface.onnx")
    return OnnxFaceEmbedder(OnnxEmbedderSettings(model="mobileface", mean=0, scale=1), models)


@pytest.fixture(scope="module")
def portraits(finder: YunetFaceFinder) -> list[tuple[str, np.ndarray, list[Face]]]:
    """(who, photo, its faces) of every photo with one person."""
    found = []
    for file in sorted((REAL / "photos").iterdir()):
        if "_and_" not in file.name:
            photo = photo_at(file)
            found.append(("obama" if "obama" in file.name else "biden", photo, finder.find(photo, NOBODY)))
    return found


@pytest.fixture(scope="module")
def embeddings(embedder: OnnxFaceEmbedder, portraits: list[tuple[str, np.ndarray, list[Face]]]) -> np.ndarray:
    """float32 [portraits, d] of the best face of each."""
    return embedder.embed(np.stack([align_face(photo, faces[0].points) for _, photo, faces in portraits]))


def test_yunet_is_certain_of_one_face_in_each_portrait(
    portraits: list[tuple[str, np.ndarray, list[Face]]],
) -> None:
    assert len(portraits) == 8
    for _, photo, faces in portraits:
        # In one painted background it sees two faces more, at 0.70 and 0.64.
        assert [face.score >= 0.8 for face in faces] == [True] + [False] * (len(faces) - 1)
        height, width = photo.shape[:2]
        middle = (faces[0].box[:2] + faces[0].box[2:]) / 2
        assert 0.3 < middle[0] / width < 0.7
        assert middle[1] / height < 0.5


def test_yunet_points_are_where_eyes_nose_and_mouth_are_in_an_upright_face(
    portraits: list[tuple[str, np.ndarray, list[Face]]],
) -> None:
    for _, _, faces in portraits:
        x0, y0, x1, y1 = faces[0].box
        right_eye, left_eye, nose, right_mouth, left_mouth = faces[0].points
        assert x0 < right_eye[0] < nose[0] < left_eye[0] < x1
        assert right_mouth[0] < left_mouth[0]
        assert y0 < max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1]) < y1


def test_yunet_finds_the_same_face_in_every_size_of_a_photo(finder: YunetFaceFinder) -> None:
    boxes = []
    for name in ("obama-240p.jpg", "obama-480p.jpg", "obama-720p.jpg"):
        photo = photo_at(REAL / "photos" / name)
        boxes.append(finder.find(photo, NOBODY)[0].box / photo.shape[0])
    assert np.ptp(np.stack(boxes), axis=0).max() < 0.03


def test_yunet_finds_both_men_in_one_photo_best_first_and_each_once(finder: YunetFaceFinder) -> None:
    faces = finder.find(photo_at(REAL / "photos" / "test_obama_and_biden.jpg"), NOBODY)
    assert sum(face.score > 0.9 for face in faces) >= 2
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True)
    middles = np.stack([(face.box[:2] + face.box[2:]) / 2 for face in faces])
    apart = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
    assert apart[~np.eye(len(faces), dtype=bool)].min() > 100


def test_yunet_sees_at_a_photo_s_own_size_what_opencv_sees_in_the_file(tmp_path: Path) -> None:
    models = real_models(yunet="face_detection_yunet_2026may.onnx")
    photo = photo_at(REAL / "photos" / "train_obama_obama.jpg")[:640, 150:790]
    file = str(tmp_path / "photo.png")
    Image.fromarray(photo).save(file)
    theirs = cv2.FaceDetectorYN.create(models["yunet"].path, "", (640, 640), 0.5, 0.3, 500)
    expected = theirs.detect(cv2.imread(file))[1][0]
    ours = YunetFaceFinder(YunetSettings(model="yunet", scales_px=[640]), models).find(photo, NOBODY)[0]
    assert ours.score == pytest.approx(float(expected[14]), abs=1e-4)
    np.testing.assert_allclose(ours.box, [*expected[:2], *(expected[:2] + expected[2:4])], atol=0.1)
    np.testing.assert_allclose(ours.points.reshape(-1), expected[4:14], atol=0.1)


def test_yunet_finds_nothing_in_a_photo_of_one_colour(finder: YunetFaceFinder) -> None:
    assert finder.find(np.full((300, 200, 3), 128, np.uint8), NOBODY) == []


def test_a_file_that_is_no_face_model_is_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<html>not found</html>")
    models = {"weights": model_at(broken)}
    with pytest.raises(ConfigError, match=r"broken\.onnx") as finder_error:
        YunetFaceFinder(YunetSettings(model="weights"), models)
    with pytest.raises(ConfigError, match=r"broken\.onnx") as embedder_error:
        OnnxFaceEmbedder(OnnxEmbedderSettings(model="weights"), models)
    with pytest.raises(ConfigError, match=r"broken\.onnx") as sface_error:
        sface(broken)
    assert "\n" not in str(finder_error.value) + str(embedder_error.value) + str(sface_error.value)


def test_face_embeddings_are_unit_vectors(embeddings: np.ndarray) -> None:
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_two_photos_of_a_man_are_nearer_than_any_of_two_men(
    embeddings: np.ndarray, portraits: list[tuple[str, np.ndarray, list[Face]]]
) -> None:
    who = np.array([name for name, _, _ in portraits])
    cosines = embeddings @ embeddings.T
    pairs = ~np.eye(len(who), dtype=bool)
    same = who[:, None] == who[None]
    assert cosines[same & pairs].min() > cosines[~same].max() + 0.05


def test_each_man_in_the_photo_of_both_is_recognised_by_his_portraits(
    finder: YunetFaceFinder,
    embedder: OnnxFaceEmbedder,
    embeddings: np.ndarray,
    portraits: list[tuple[str, np.ndarray, list[Face]]],
) -> None:
    photo = photo_at(REAL / "photos" / "test_obama_and_biden.jpg")
    men = sorted(finder.find(photo, NOBODY)[:2], key=lambda face: float(face.box[0]))
    vectors = embedder.embed(np.stack([align_face(photo, face.points) for face in men]))
    nearest = (vectors @ embeddings.T).argmax(axis=1)
    assert [portraits[i][0] for i in nearest] == ["biden", "obama"]  # from left to right


def test_a_face_is_embedded_the_same_in_any_batch_and_mirrored(
    embedder: OnnxFaceEmbedder, portraits: list[tuple[str, np.ndarray, list[Face]]]
) -> None:
    models = real_models(mobileface="mobileface.onnx")
    aligned = np.stack([align_face(photo, faces[0].points) for _, photo, faces in portraits[:5]])
    few = OnnxEmbedderSettings(model="mobileface", mean=0, scale=1, batch_size=2)
    together = embedder.embed(aligned)
    np.testing.assert_allclose(OnnxFaceEmbedder(few, models).embed(aligned), together, atol=1e-4)
    np.testing.assert_allclose(embedder.embed(aligned[:, :, ::-1]), together, atol=1e-4)


def test_an_embedder_that_takes_bgr_is_given_bgr(
    embedder: OnnxFaceEmbedder, portraits: list[tuple[str, np.ndarray, list[Face]]]
) -> None:
    models = real_models(mobileface="mobileface.onnx")
    settings = OnnxEmbedderSettings(model="mobileface", mean=0, scale=1, colour="bgr")
    _, photo, faces = portraits[0]
    aligned = align_face(photo, faces[0].points)[None]
    swapped = OnnxFaceEmbedder(settings, models).embed(aligned[..., ::-1])
    np.testing.assert_allclose(swapped, embedder.embed(aligned), atol=1e-5)


# SFace: OpenCV's class around the embedder of the demo, which has as many numbers


DEMO_FACE = Path(__file__).parents[3] / "demo" / "weights" / "face.onnx"


def coloured_faces(count: int) -> np.ndarray:
    few = np.random.default_rng(8).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return few.repeat(8, axis=1).repeat(8, axis=2)


def sface(weights: Path, flip: bool = False) -> SfaceEmbedder:
    return SfaceEmbedder(SfaceSettings(model="weights", flip=flip), {"weights": model_at(weights)})


@pytest.mark.parametrize("flip", [False, True])
def test_sface_gives_unit_vectors_of_rgb_values_from_0_to_255(flip: bool) -> None:
    faces = coloured_faces(5)
    plain = OnnxEmbedderSettings(model="weights", mean=0, scale=1, flip=flip)
    expected = OnnxFaceEmbedder(plain, {"weights": model_at(DEMO_FACE)}).embed(faces)
    found = sface(DEMO_FACE, flip=flip).embed(faces)
    assert (found.shape, found.dtype) == ((5, 128), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(sface(DEMO_FACE, flip=flip).embed(faces[3:4]), found[3:4], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(turn=st.floats(-3.1, 3.1), scale=st.floats(0.3, 1.9), seed=st.integers(0, 1000))
def test_our_alignment_is_sface_s_own(turn: float, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    photo = random.integers(0, 256, (60, 70, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = ARCFACE_TEMPLATE @ rotation.T + (250, 220) + random.normal(0, 2, (5, 2))
    row = np.concatenate([[0, 0, 1, 1], points.reshape(-1), [1]]).astype(np.float32)[None]
    theirs = cv2.FaceRecognizerSF.create(str(DEMO_FACE), "").alignCrop(photo, row)
    # Their points are of single precision, so a sharp edge may fall on either side of a 32nd of a pixel.
    assert np.mean(np.abs(align_face(photo, points).astype(int) - theirs) > 16) < 0.001


def test_a_network_with_another_number_of_outputs_is_no_sface(tmp_path: Path) -> None:
    graph = OnnxGraph()
    weight = graph.weight("weight", np.full((64, 3), 0.1))
    pooled = graph.node("GlobalAveragePool", ["faces"], "pooled")
    graph.node("Gemm", [graph.node("Flatten", [pooled], "flat", axis=1), weight], "vector", transB=1)
    graph.write(tmp_path / "small.onnx", ("faces", (3, 112, 112)), ("vector", (64,)))
    with pytest.raises(ConfigError, match=r"answers with \[1, 64\] numbers for a face, SFace with 128"):
        sface(tmp_path / "small.onnx")


# Alignment


@settings(max_examples=60, deadline=None)
@given(
    turn=st.floats(-3.1, 3.1),
    scale=st.floats(0.05, 20),
    x=st.floats(-2000, 2000),
    y=st.floats(-2000, 2000),
)
def test_similarity_recovers_a_known_rotation_scale_and_shift(
    turn: float, scale: float, x: float, y: float
) -> None:
    known = np.array(
        [
            [scale * np.cos(turn), -scale * np.sin(turn), x],
            [scale * np.sin(turn), scale * np.cos(turn), y],
        ]
    )
    moved = ARCFACE_TEMPLATE @ known[:, :2].T + known[:, 2]
    np.testing.assert_allclose(similarity(ARCFACE_TEMPLATE, moved), known, rtol=1e-8, atol=1e-8 * scale)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_similarity_never_reflects_and_no_nearby_similarity_fits_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    mirrored = ARCFACE_TEMPLATE * (-1, 1) + random.normal(0, 10, (5, 2))
    for target in (mirrored, random.normal(0, 50, (5, 2))):
        matrix = similarity(ARCFACE_TEMPLATE, target)
        (a, b), (c, d) = matrix[:, :2]
        assert a * d - b * c >= 0
        assert (a, b) == pytest.approx((d, -c))

        def misfit(matrix: np.ndarray, target: np.ndarray = target) -> float:
            return float(((ARCFACE_TEMPLATE @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

        for _ in range(20):
            da, dc, dx, dy = random.normal(0, 0.02, 4)
            other = matrix + np.array([[da, -dc, dx * 10], [dc, da, dy * 10]])
            assert misfit(matrix) <= misfit(other) + 1e-9


def test_points_that_lie_on_one_spot_give_a_matrix_and_no_error() -> None:
    assert np.isfinite(similarity(np.full((5, 2), 7.0), ARCFACE_TEMPLATE)).all()


def test_an_aligned_face_has_its_points_on_the_template() -> None:
    photo = np.zeros((400, 500, 3), np.uint8)
    turn, scale = 0.4, 2.0
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = ARCFACE_TEMPLATE @ rotation.T + (200, 60)
    for x, y in points.round().astype(int):
        photo[y - 4 : y + 5, x - 4 : x + 5] = 255
    aligned = align_face(photo, points)
    assert aligned.shape == (112, 112, 3)
    for x, y in ARCFACE_TEMPLATE.round().astype(int):
        assert aligned[y, x].min() > 200


def face_in(shape: tuple[int, int], scale: float, turn: float) -> np.ndarray:
    """Points of a face that is `scale` times as large as an aligned one, in the middle of a photo."""
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = (np.array(shape[::-1]) - 1) / 2
    return np.asarray((ARCFACE_TEMPLATE - 55.5) @ rotation.T + middle)


@pytest.mark.parametrize("scale", [2.2, 5.0, 11.7])
@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_what_is_finer_than_an_aligned_face_can_show_is_averaged_and_not_picked_from(
    scale: float, turn: float
) -> None:
    side = round(150 * scale)
    noise = np.random.default_rng(5).integers(0, 2, (side, side, 1), np.uint8).repeat(3, axis=2) * np.uint8(
        255
    )
    aligned = align_face(noise, face_in((side, side), scale, turn)).astype(float)
    assert aligned.mean() == pytest.approx(127.5, abs=3)
    # Of n independent pixels the mean varies by 127.5 / sqrt(n); linear interpolation averages four at most.
    assert aligned.std() < 1.6 * 127.5 / scale


@pytest.mark.parametrize("scale", [2.3, 7.0])
@pytest.mark.parametrize("turn", [0.0, -0.5])
@pytest.mark.parametrize("shift", [(0, 0), (150, -90)])
def test_a_large_face_lies_where_the_same_face_lies_when_it_is_small(
    scale: float, turn: float, shift: tuple[int, int]
) -> None:
    """A shift takes a part of the face out of the photo."""
    coarse = np.random.default_rng(6).integers(0, 255, (12, 15, 3), np.uint8)
    small = cv2.resize(coarse, (300, 240), interpolation=cv2.INTER_CUBIC)
    points = face_in(small.shape[:2], 1.0, turn) + shift
    size = (round(300 * scale), round(240 * scale))
    steps = np.array(size) / (300, 240)
    large = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    one, other = align_face(small, points), align_face(large, (points + 0.5) * steps - 0.5)
    assert np.median(np.abs(one.astype(int) - other)) < 2
    if shift == (0, 0):
        grey = [cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32) for face in (one, other)]
        moved, _ = cv2.phaseCorrelate(grey[0], grey[1])
        assert np.hypot(*moved) < 0.1


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.99])
def test_a_face_of_up_to_twice_the_aligned_size_is_read_from_the_photo_itself(scale: float) -> None:
    photo = np.random.default_rng(7).integers(0, 255, (300, 320, 3), np.uint8)
    points = face_in(photo.shape[:2], scale, 0.3)
    direct = cv2.warpAffine(photo, similarity(points, ARCFACE_TEMPLATE), (112, 112), flags=cv2.INTER_LINEAR)
    assert np.array_equal(align_face(photo, points), direct)


def test_points_outside_of_the_photo_or_on_one_spot_give_a_face_and_no_error() -> None:
    photo = np.full((200, 300, 3), 9, np.uint8)
    for points in (face_in((200, 300), 4, 0) - 5000, np.full((5, 2), 7.0), face_in((200, 300), 1e5, 0)):
        assert align_face(photo, points).shape == (112, 112, 3)


def test_a_large_face_is_embedded_as_the_same_face_that_was_averaged_pixel_by_pixel(
    embedder: OnnxFaceEmbedder, portraits: list[tuple[str, np.ndarray, list[Face]]]
) -> None:
    """The ideal: eight by eight samples of the photo for each pixel of the aligned face."""
    times, tried = 8, 0
    for _, photo, faces in portraits:
        matrix = similarity(faces[0].points.astype(float), ARCFACE_TEMPLATE)
        if 1 / np.hypot(matrix[0, 0], matrix[1, 0]) > 2:
            finer = np.column_stack([times * matrix[:, :2], times * matrix[:, 2] + (times - 1) / 2])
            many = cv2.warpAffine(photo, finer, (112 * times, 112 * times), flags=cv2.INTER_LINEAR)
            ideal = cv2.resize(many, (112, 112), interpolation=cv2.INTER_AREA)
            one, other = embedder.embed(np.stack([ideal, align_face(photo, faces[0].points)]))
            assert one @ other > 0.995
            tried += 1
    assert tried >= 4


# Faces from keypoints


def posed(
    turn: float = 0.0, scale: float = 0.5, scores: tuple[float, float, float] = (0.9, 0.8, 0.7)
) -> Detections:
    """One person facing us, eyes and nose on the template turned and scaled; scores of nose and eyes."""
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    right_eye, left_eye, nose = ARCFACE_TEMPLATE[:3] @ rotation.T + (200, 100)
    joints = np.zeros((1, 17, 3), np.float32)
    joints[0, :3, :2] = (nose, left_eye, right_eye)  # in COCO's order, sides as the person has them
    joints[0, :3, 2] = scores
    return Detections(np.array([[150, 80, 320, 500]], np.float32), np.ones(1, np.float32), joints)


def by_keypoints(people: Detections, **wanted: float) -> list[Face]:
    finder = KeypointsFaceFinder(KeypointsFaceSettings(**wanted), {})  # type: ignore[arg-type]
    return finder.find(np.zeros((600, 500, 3), np.uint8), people)


@pytest.mark.parametrize("turn", [0.0, 0.5, -0.8])
def test_nose_and_eyes_alone_put_the_mouth_where_the_template_has_it(turn: float) -> None:
    (found,) = by_keypoints(posed(turn))
    rotation = 0.5 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(found.points, ARCFACE_TEMPLATE @ rotation.T + (200, 100), atol=1e-3)


def test_the_mouth_does_not_change_how_a_face_is_aligned() -> None:
    people = posed(0.3)
    assert people.keypoints is not None
    people.keypoints[0, 0, :2] += (6, -3)  # a head turned aside: no similarity fits exactly
    (found,) = by_keypoints(people)
    np.testing.assert_allclose(
        similarity(found.points, ARCFACE_TEMPLATE),
        similarity(found.points[:3], ARCFACE_TEMPLATE[:3]),
        atol=1e-6,
    )


def test_a_face_by_keypoints_is_as_certain_as_its_least_seen_point_and_inside_its_box() -> None:
    (found,) = by_keypoints(posed())
    assert found.score == pytest.approx(0.7)
    assert found.box[2:] - found.box[:2] == pytest.approx([38, 51.5], abs=1e-3)
    assert (found.points > found.box[:2]).all()
    assert (found.points < found.box[2:]).all()


@pytest.mark.parametrize("unseen", [0, 1, 2])
def test_who_is_seen_from_behind_or_in_profile_has_no_face(unseen: int) -> None:
    scores = [0.9, 0.9, 0.9]
    scores[unseen] = 0.1
    assert by_keypoints(posed(scores=(scores[0], scores[1], scores[2]))) == []


def test_eyes_nearer_than_the_settings_ask_are_no_face() -> None:
    assert by_keypoints(posed(scale=0.2), min_eye_px=8) == []
    assert len(by_keypoints(posed(scale=0.2), min_eye_px=7)) == 1


def test_sides_mistaken_for_each_other_are_no_face() -> None:
    people = posed()
    assert people.keypoints is not None
    people.keypoints[0, [1, 2]] = people.keypoints[0, [2, 1]]
    assert by_keypoints(people) == []


def test_a_detector_without_keypoints_finds_people_without_faces() -> None:
    people = posed()
    assert by_keypoints(Detections(people.boxes, people.scores, None)) == []


# Whose face it is


def face(x: float, y: float, side: float = 40, score: float = 0.9) -> Face:
    """A face by its middle."""
    half = side / 2
    points = ARCFACE_TEMPLATE / 112 * side + (x - half, y - half)
    return Face(np.array([x - half, y - half, x + half, y + half]), points, score)


def joints(**seen: tuple[float, float]) -> list[float]:
    """51 numbers as the column `keypoints` has them; joints not named are not seen."""
    names = {"nose": 0, "left_eye": 1, "right_eye": 2, "left_shoulder": 5, "right_shoulder": 6}
    values = np.zeros((17, 3))
    for name, (x, y) in seen.items():
        values[names[name]] = (x, y, 0.9)
    return [float(value) for value in values.reshape(-1)]


def owners(
    faces: list[Face], boxes: Sequence[tuple[float, ...]], keypoints: list[Any] | None = None
) -> dict[int, int]:
    return assign_faces(faces, np.array(boxes, dtype=np.float64), keypoints or [None] * len(boxes))


def test_faces_of_people_side_by_side_go_to_the_box_they_are_in() -> None:
    boxes = [(0.0, 0.0, 100.0, 400.0), (120.0, 0.0, 220.0, 400.0)]
    assert owners([face(170, 60), face(50, 60)], boxes) == {0: 1, 1: 0}


def test_a_child_in_front_of_an_adult_keeps_its_face_where_boxes_overlap() -> None:
    adult, child = (100.0, 0.0, 300.0, 600.0), (150.0, 250.0, 270.0, 600.0)
    adult_face, child_face = face(200, 80, 60), face(210, 300, 50)
    assert owners([adult_face, child_face], [adult, child]) == {0: 0, 1: 1}
    assert owners([child_face, adult_face], [child, adult]) == {0: 0, 1: 1}
    # An adult who looks away has no face, not the child's.
    assert owners([child_face], [adult, child]) == {0: 1}


def test_joints_tell_whose_face_it_is_where_boxes_cannot() -> None:
    # Two people in nearly the same box: one bends down, the head of the other is where the crown is.
    boxes = [(100.0, 0.0, 300.0, 500.0), (105.0, 0.0, 305.0, 500.0)]
    upright, bent = joints(nose=(200, 60), left_eye=(210, 50)), joints(nose=(220, 320), left_eye=(230, 310))
    low, high = face(222, 315), face(203, 57)
    assert owners([low, high], boxes, [upright, bent]) == {0: 1, 1: 0}
    assert owners([low, high], boxes, [bent, upright]) == {0: 0, 1: 1}


def test_a_face_away_from_the_joints_of_the_head_is_not_taken() -> None:
    box = (100.0, 0.0, 300.0, 500.0)
    assert owners([face(200, 200)], [box], [joints(nose=(200, 60))]) == {}
    assert owners([face(200, 200)], [box], [joints(nose=(210, 190))]) == {0: 0}


def test_joints_that_are_not_seen_leave_the_upper_part_of_the_box() -> None:
    box = (100.0, 0.0, 300.0, 500.0)
    nobody = joints(left_shoulder=(250, 120), right_shoulder=(150, 120))
    assert owners([face(200, 70)], [box], [nobody]) == {0: 0}
    assert owners([face(200, 400)], [box], [nobody]) == {}


def test_a_face_outside_every_box_has_no_person() -> None:
    assert owners([face(500, 70)], [(100.0, 0.0, 300.0, 500.0)]) == {}
    assert owners([], [(100.0, 0.0, 300.0, 500.0)]) == {}
    assert assign_faces([face(10, 10)], np.zeros((0, 4)), []) == {}


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), with_joints=st.booleans())
def test_a_face_has_one_person_and_a_person_one_face_whoever_comes_first(
    seed: int, with_joints: bool
) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 200, (6, 2))
    boxes = [
        (x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, random.uniform(80, 300, (6, 2)), strict=True)
    ]
    faces = [face(x, y) for x, y in random.uniform(0, 300, (5, 2))]
    heads: list[Any] = [
        joints(nose=(float(x), float(y))) if with_joints else None for x, y in random.uniform(0, 300, (6, 2))
    ]
    given_to = owners(faces, boxes, heads)
    assert len(set(given_to.values())) == len(given_to)
    for f, p in given_to.items():
        x, y = (faces[f].box[:2] + faces[f].box[2:]) / 2
        assert boxes[p][0] <= x <= boxes[p][2]
        assert boxes[p][1] <= y <= boxes[p][3]
    backwards = owners(faces[::-1], boxes[::-1], heads[::-1])
    assert {4 - f: 5 - p for f, p in backwards.items()} == given_to
