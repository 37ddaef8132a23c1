"""BlazePose by its published weights on real photos: where joints lie, what is seen, masks."""

from pathlib import Path

import numpy as np
import pytest

from curation.errors import ConfigError
from curation.people.blazepose import BlazePose
from curation.settings.people import BlazePoseSettings
from tests.real_weights import REAL, blazepose_models, model_at, photo_at

HEAD, SHOULDERS, HIPS, LEGS = slice(0, 5), slice(5, 7), slice(11, 13), slice(13, 17)
# Read off bus.jpg: the boxes of the two men who stand on it as a whole, and joints of them.
MEN = np.array([[50, 398, 244, 902], [223, 408, 345, 860]], np.float32)
NOSE, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_KNEE, LEFT_KNEE = 0, 6, 5, 14, 13
JOINTS = [
    {NOSE: (134, 443), RIGHT_SHOULDER: (88, 500), LEFT_SHOULDER: (172, 500), RIGHT_KNEE: (95, 750)},
    {NOSE: (286, 446), RIGHT_SHOULDER: (250, 500), LEFT_SHOULDER: (322, 490), LEFT_KNEE: (308, 720)},
]
SETTINGS = {"finder": {"model": "pose-finder"}, "landmarks": {"model": "pose-landmarks"}}


@pytest.fixture(scope="module")
def blazepose() -> BlazePose:
    return BlazePose(BlazePoseSettings.model_validate(SETTINGS), blazepose_models())


@pytest.fixture(scope="module")
def assets() -> Path:
    from curation.people.ultralytics_backends import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.utils import ASSETS

    return Path(ASSETS)


@pytest.fixture(scope="module")
def bus(assets: Path) -> np.ndarray:
    return photo_at(assets / "bus.jpg")


@pytest.fixture(scope="module")
def portraits(blazepose: BlazePose) -> list[np.ndarray]:
    """Photos of one man each, none of whom is seen down to his knees but one."""
    if not REAL.is_dir():
        pytest.skip(f"no real photos on this machine: {REAL} is absent")
    names = ("obama-720p", "test_obama1", "train_obama_obama", "train_obama_obama2", "train_biden_biden2")
    return [photo_at(REAL / "photos" / f"{name}.jpg") for name in names]


def whole(photo: np.ndarray) -> np.ndarray:
    return np.array([[0, 0, photo.shape[1], photo.shape[0]]], np.float32)


def test_joints_lie_where_people_have_them(blazepose: BlazePose, bus: np.ndarray) -> None:
    found = blazepose.joints(bus, MEN)
    assert (found.shape, found.dtype) == ((2, 17, 3), np.float32)
    for person, expected, box in zip(found, JOINTS, MEN, strict=True):
        assert (person[:, 2] >= 0.5).mean() > 0.9
        height = box[3] - box[1]
        for joint, (x, y) in expected.items():
            assert np.hypot(person[joint, 0] - x, person[joint, 1] - y) < 0.05 * height, joint


def test_a_portrait_shows_head_and_shoulders_and_no_knees(
    blazepose: BlazePose, portraits: list[np.ndarray]
) -> None:
    for photo in portraits:
        seen = blazepose.joints(photo, whole(photo))[0][:, 2] >= 0.5
        assert seen[HEAD].any()
        assert seen[SHOULDERS].any()
        assert not seen[LEGS].any()


def test_a_mirrored_photo_has_mirrored_joints(blazepose: BlazePose, bus: np.ndarray) -> None:
    box = MEN[1:]
    mirrored = np.array([[bus.shape[1] - box[0, 2], box[0, 1], bus.shape[1] - box[0, 0], box[0, 3]]])
    one = blazepose.joints(bus, box)[0]
    other = blazepose.joints(np.ascontiguousarray(bus[:, ::-1]), mirrored)[0]
    for left, right in zip(range(5, 17, 2), range(6, 17, 2), strict=True):
        assert abs(bus.shape[1] - other[right, 0] - one[left, 0]) < 0.06 * (box[0, 3] - box[0, 1])


def test_an_enlarged_photo_has_its_joints_and_its_mask_enlarged(
    blazepose: BlazePose, bus: np.ndarray
) -> None:
    import cv2

    large = cv2.resize(bus, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    one, other = blazepose.joints(bus, MEN), blazepose.joints(large, 3 * MEN)
    assert np.median(np.abs(other[..., :2] / 3 - one[..., :2])) < 5
    small, big = (
        blazepose.segment(photo, boxes.astype(int))[0] for photo, boxes in ((bus, MEN), (large, 3 * MEN))
    )
    shrunk = cv2.resize(big.astype(np.uint8), small.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert (shrunk & small).sum() / (shrunk | small).sum() > 0.9


def test_a_mask_covers_the_person_and_neither_ground_nor_bus(blazepose: BlazePose, bus: np.ndarray) -> None:
    boxes = MEN.astype(int)
    for mask, (x0, y0, x1, y1) in zip(blazepose.segment(bus, boxes), boxes.tolist(), strict=True):
        assert (mask.shape, mask.dtype) == ((y1 - y0, x1 - x0), bool)
        assert 0.35 < mask.mean() < 0.75
        assert mask[int(0.2 * len(mask)) : int(0.45 * len(mask)), int(0.45 * (x1 - x0))].all()  # chest
        corner = mask[: len(mask) // 10, : (x1 - x0) // 10], mask[: len(mask) // 10, -(x1 - x0) // 10 :]
        assert not corner[0].any()
        assert not corner[1].any()


def test_of_two_people_in_a_crossed_pair_of_boxes_each_has_a_mask_of_its_own(
    blazepose: BlazePose, assets: Path
) -> None:
    photo = photo_at(assets / "zidane.jpg")
    boxes = np.array([[749, 46, 1151, 709], [120, 200, 767, 712]])
    masks = np.zeros((2, *photo.shape[:2]), bool)
    for whose, mask, (x0, y0, x1, y1) in zip(masks, blazepose.segment(photo, boxes), boxes, strict=True):
        whose[y0:y1, x0:x1] = mask
    assert min(masks[0].sum(), masks[1].sum()) > 0.4 * 402 * 663
    assert (masks[0] & masks[1]).sum() < 0.02 * masks[0].sum()


def test_as_a_detector_it_finds_who_fills_the_photo_with_keypoints(
    blazepose: BlazePose, portraits: list[np.ndarray]
) -> None:
    for photo, found in zip(portraits, blazepose.detect(portraits), strict=True):
        assert found.keypoints is not None
        assert found.keypoints.shape == (len(found.scores), 17, 3)
        assert found.scores[0] > 0.5
        x0, y0, x1, y1 = found.boxes[0]
        assert 0 <= x0 < 0.5 * photo.shape[1] < x1 <= photo.shape[1]
        assert 0 <= y0 < 0.5 * photo.shape[0] < y1 <= photo.shape[0]
        nose = found.keypoints[0, 0, :2]
        assert x0 < nose[0] < x1
        assert y0 < nose[1] < y1


def test_a_face_that_fills_the_photo_has_a_mask(blazepose: BlazePose, portraits: list[np.ndarray]) -> None:
    face = portraits[1][300:640, 480:860]  # forehead to chin: no body
    assert blazepose.segment(face, whole(face).astype(int))[0].mean() > 0.6


def test_where_nobody_is_nobody_is_found(blazepose: BlazePose) -> None:
    grey = np.full((200, 300, 3), 128, np.uint8)
    noise = np.random.default_rng(4).integers(0, 256, (240, 180, 3), dtype=np.uint8)
    for photo in (grey, noise):
        assert (blazepose.detect([photo])[0].scores >= 0.25).sum() == 0
    assert blazepose.joints(grey, whole(grey))[0][:, 2].max() < 0.5
    assert not blazepose.segment(grey, whole(grey).astype(int))[0].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 50), (400, 2)], ids=str)
def test_photos_of_few_pixels_have_answers(blazepose: BlazePose, size: tuple[int, int]) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    photo.flags.writeable = False
    assert np.isfinite(blazepose.joints(photo, whole(photo))).all()
    assert blazepose.segment(photo, whole(photo).astype(int))[0].shape == size
    found = blazepose.detect([photo])[0]
    assert found.boxes.shape == (len(found.scores), 4)


def test_a_box_without_an_inside_has_joints_that_are_numbers(blazepose: BlazePose, bus: np.ndarray) -> None:
    assert np.isfinite(blazepose.joints(bus, np.array([[100, 100, 100, 300]], np.float32))).all()


def test_the_wrong_file_is_refused_in_one_line(tmp_path: Path) -> None:
    models = blazepose_models()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"<html>not found</html>")
    exchanged = {"pose-finder": models["pose-landmarks"], "pose-landmarks": models["pose-finder"]}
    for chosen, said in (
        (exchanged, r"takes \(1, 256, 256, 3\) .* are needed"),
        ({**models, "pose-landmarks": model_at(broken)}, r"broken\.tflite is no usable TFLite model"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            BlazePose(BlazePoseSettings.model_validate(SETTINGS), chosen)
        assert "\n" not in str(error.value)
