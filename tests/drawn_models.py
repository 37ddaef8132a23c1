"""Models that know where drawn people stand, as plugin backends: cheap, exact, without weights."""

import time
from typing import Any

import cv2
import numpy as np

from curation.people.face import ARCFACE_TEMPLATE
from curation.people.protocols import Detections, Face, PersonView
from tests.drawn_people import BOX, GRID, HEAD, LEGS, SHOES, TORSO

NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class DrawnDetector:
    """The one figure, in the middle."""

    def __init__(self, settings: Any, models: Any) -> None:
        self._options = settings.options

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        time.sleep(self._options.get("seconds", 0.0) * len(photos))
        return [Detections(np.array([BOX], np.float32), np.array([0.9], np.float32)) for _ in photos]


class ToldDetector:
    """`boxes` of the options, [x0, y0, x1, y1, score] each, on every photo."""

    def __init__(self, settings: Any, models: Any) -> None:
        self._boxes = np.array(settings.options["boxes"], np.float32).reshape(-1, 5)

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        return [Detections(self._boxes[:, :4], self._boxes[:, 4]) for _ in photos]


class ToldJoints:
    """All 17 joints in the middle of the box; `score` of the options; breaks down below `least_px`."""

    def __init__(self, settings: Any, models: Any) -> None:
        self._options = settings.options

    def joints(self, photo: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        if photo.shape[1] < self._options.get("least_px", 0):
            raise RuntimeError("the joints broke down")
        middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        scores = np.full((len(boxes), 17, 1), self._options.get("score", 0.9))
        return np.concatenate([np.repeat(middles, 17, axis=1), scores], axis=-1).astype(np.float32)


class ToldFaceFinder:
    """`faces` of the options, as ToldDetector's boxes; breaks down on photos narrower than `least_px`."""

    def __init__(self, settings: Any, models: Any) -> None:
        self._options = settings.options

    def find(self, photo: np.ndarray, people: Detections) -> list[Face]:
        if photo.shape[1] < self._options.get("least_px", 0):
            raise RuntimeError("the finder broke down")
        found = []
        for x0, y0, x1, y1, score in self._options["faces"]:
            scale = np.array([x1 - x0, y1 - y0]) / 112
            box = np.array([x0, y0, x1, y1], np.float32)
            found.append(Face(box, ARCFACE_TEMPLATE * scale + (x0, y0), score))
        return found


class DrawnClassifier:
    """The last digit of the sum of a picture's pixels, divided by ten: 0 to 0.9."""

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def score(self, pictures: list[np.ndarray]) -> np.ndarray:
        return np.array([int(picture.sum()) % 10 / 10 for picture in pictures], np.float32)


class DrawnFaceFinder:
    """The head, with five points where the template has them."""

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def find(self, photo: np.ndarray, people: Detections) -> list[Face]:
        x0, y0, x1, y1 = HEAD
        scale = np.array([x1 - x0, y1 - y0]) / 112
        return [Face(np.array(HEAD, np.float32), ARCFACE_TEMPLATE * scale + (x0, y0), 0.9)]


class DrawnEmbedder:
    """The colours of the head's grid, centred: the same for all photos of a person."""

    def __init__(self, settings: Any, models: Any) -> None:
        self._revision = settings.options.get("revision", 1)

    def embed(self, faces: np.ndarray) -> np.ndarray:
        middle = [
            cv2.resize(face[16:96, 16:96], (GRID, GRID), interpolation=cv2.INTER_AREA) for face in faces
        ]
        vectors = np.stack(middle).reshape(len(faces), -1).astype(np.float32) - 128
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6))


class DrawnSegmenter:
    """Head, torso, legs and shoes."""

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        whole = np.zeros(photo.shape[:2], bool)
        for x0, y0, x1, y1 in (HEAD, TORSO, LEGS, SHOES):
            whole[y0:y1, x0:x1] = True
        return [whole[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()]


class DrawnParser:
    """Face, upper clothes, pants and shoes."""

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def parse(self, photo: np.ndarray, people: list[PersonView]) -> list[np.ndarray]:
        whole = np.zeros(photo.shape[:2], np.uint8)
        for (x0, y0, x1, y1), label in ((HEAD, 11), (TORSO, 4), (LEGS, 6), (SHOES, 9)):
            whole[y0:y1, x0:x1] = label
        return [whole[p.box[1] : p.box[3], p.box[0] : p.box[2]] for p in people]
