"""People by ultralytics: real COCO weights on a real photo, and pose models of random weights."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from curation.errors import ConfigError
from curation.people.protocols import Detections
from curation.people.ultralytics_backends import UltralyticsDetector, quiet_ultralytics
from curation.settings.people import UltralyticsSettings
from tests.real_weights import model_at, photo_at, real_models

IMAGE_PX = 160
# Where the four people of bus.jpg stand, read off the photo: the last is cut by its left border.
PEOPLE_OF_BUS = [(50, 398, 244, 902), (223, 408, 345, 860), (670, 392, 810, 878), (0, 551, 66, 874)]


@pytest.fixture(scope="module")
def assets() -> Path:
    quiet_ultralytics()
    from ultralytics.utils import ASSETS

    return Path(ASSETS)


@pytest.fixture(scope="module")
def photos(assets: Path) -> list[np.ndarray]:
    """Photos of four sizes, upright and lying."""
    bus, zidane = photo_at(assets / "bus.jpg"), photo_at(assets / "zidane.jpg")
    return [bus, zidane, bus[390:910, 0:260], zidane[::4, ::4]]


@pytest.fixture(scope="module")
def pose_weights(tmp_path_factory: pytest.TempPathFactory, photos: list[np.ndarray]) -> Path:
    """yolo11n-pose with random weights, made to find people everywhere and nothing else."""
    quiet_ultralytics()
    import cv2
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    torch.manual_seed(3)
    yolo = YOLO("yolo11n-pose.yaml")
    network = yolo.model
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics are the mean over all batches seen
    seen = np.stack([cv2.resize(photo, (IMAGE_PX, IMAGE_PX)) for photo in photos])
    with torch.no_grad():
        network.train()
        network(torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 255)
        network.eval()
        head = network.model[-1]
        for classes, extents in zip(head.cv3, head.cv2, strict=True):
            torch.nn.init.normal_(classes[-1].weight, std=0.02)
            classes[-1].bias.fill_(-9.0)
            classes[-1].bias[0] = 0.0
            torch.nn.init.normal_(extents[-1].weight, std=0.1)
    file = tmp_path_factory.mktemp("pose") / "random-pose.pt"
    yolo.save(str(file))
    return file


def detector(weights: Path, image_px: int = IMAGE_PX) -> UltralyticsDetector:
    settings = UltralyticsSettings(model="weights", image_px=image_px, nms_iou=0.5)
    return UltralyticsDetector(settings, {"weights": model_at(weights)})


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.maximum(sides, 0).prod())
    return shared / float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def assert_same(one: Detections, other: Detections) -> None:
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.5)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
    assert (one.keypoints is None) == (other.keypoints is None)
    if one.keypoints is not None and other.keypoints is not None:
        np.testing.assert_allclose(one.keypoints[..., :2], other.keypoints[..., :2], atol=2)
        np.testing.assert_allclose(one.keypoints[..., 2], other.keypoints[..., 2], atol=1e-3)


def test_real_weights_find_the_four_people_at_the_bus_and_nobody_else(assets: Path) -> None:
    models = real_models(yolo11n="yolo11n_int8.tflite")
    found = UltralyticsDetector(UltralyticsSettings(model="yolo11n"), models).detect(
        [photo_at(assets / "bus.jpg")]
    )[0]
    certain = found.boxes[found.scores >= 0.25]
    assert len(certain) == 4
    for person in PEOPLE_OF_BUS:
        assert max(iou(np.array(person), box) for box in certain) > 0.75
    assert found.keypoints is None


def test_an_exported_model_answers_each_photo_of_a_batch_as_alone(photos: list[np.ndarray]) -> None:
    models = real_models(yolo11n="yolo11n_int8.tflite")
    yolo = UltralyticsDetector(UltralyticsSettings(model="yolo11n"), models)
    together = yolo.detect(photos)
    for photo, among_others in zip(photos, together, strict=True):
        assert_same(yolo.detect([photo])[0], among_others)


def test_a_pose_model_gives_seventeen_joints_a_person(pose_weights: Path, photos: list[np.ndarray]) -> None:
    for photo, found in zip(photos, detector(pose_weights).detect(photos), strict=True):
        people = len(found.boxes)
        assert people > 3
        assert found.boxes.shape == (people, 4)
        assert found.scores.shape == (people,)
        assert found.keypoints is not None
        assert found.keypoints.shape == (people, 17, 3)
        height, width = photo.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= (width, height, width, height)).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all()
        assert found.scores.max() <= 1
        assert ((found.keypoints[..., 2] >= 0) & (found.keypoints[..., 2] <= 1)).all()


def test_a_photo_is_answered_the_same_alone_and_among_photos_of_other_sizes(
    pose_weights: Path, photos: list[np.ndarray]
) -> None:
    pose = detector(pose_weights)
    together = pose.detect(photos)
    backwards = pose.detect(photos[::-1])[::-1]
    for photo, among_others, from_the_end in zip(photos, together, backwards, strict=True):
        alone = pose.detect([photo])[0]
        assert np.ptp(alone.scores) > 0.05  # the answer is about the photo, not one constant
        assert_same(alone, among_others)
        assert_same(alone, from_the_end)


def test_a_decoded_photo_is_answered_as_ultralytics_answers_the_file(
    pose_weights: Path, photos: list[np.ndarray], tmp_path: Path
) -> None:
    quiet_ultralytics()
    from ultralytics import YOLO

    Image.fromarray(photos[2]).save(tmp_path / "photo.png")
    theirs = YOLO(str(pose_weights)).predict(
        str(tmp_path / "photo.png"),
        imgsz=IMAGE_PX,
        conf=0.01,
        iou=0.5,
        classes=[0],
        rect=False,
        device="cpu",
        verbose=False,
    )[0]
    ours = detector(pose_weights).detect([photos[2]])[0]
    np.testing.assert_allclose(ours.boxes, theirs.boxes.xyxy.numpy(), atol=0.5)
    np.testing.assert_allclose(ours.scores, theirs.boxes.conf.numpy(), atol=1e-3)


def test_an_exported_pose_model_keeps_its_joints_under_any_file_name(
    pose_weights: Path, photos: list[np.ndarray], tmp_path: Path
) -> None:
    quiet_ultralytics()
    from ultralytics import YOLO

    exported = Path(YOLO(str(pose_weights)).export(format="torchscript", imgsz=IMAGE_PX))
    renamed = exported.rename(tmp_path / "best.torchscript")
    assert_same(detector(pose_weights).detect([photos[1]])[0], detector(renamed).detect([photos[1]])[0])


@pytest.mark.parametrize("file", ["people.pt", "people.onnx", "people.tflite", "people.torchscript"])
def test_a_file_that_is_no_model_is_refused_in_one_line_before_any_photo(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigError, match=file) as error:
        detector(tmp_path / file)
    assert "\n" not in str(error.value)


def test_ultralytics_does_not_change_how_a_broken_photo_is_told() -> None:
    quiet_ultralytics()
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"no picture"))
