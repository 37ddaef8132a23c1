"""What a model of each kind must do. Backends keep these; stages know nothing else of a model.

Photos are uint8 [height, width, 3], RGB, upright. Boxes are x0, y0, x1, y1 in px of the photo.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Detections:
    """People of one photo, best score first.

    boxes      float32 [n, 4]
    scores     float32 [n], 0 to 1
    keypoints  float32 [n, 17, 3]: x, y, score in the order of COCO; None where the model has none
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None


class PersonDetector(Protocol):
    """Finds people."""

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """One answer a photo."""
        ...


class JointFinder(Protocol):
    """Finds the joints of people whose boxes are known."""

    def joints(self, photo: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """float32 [n, 4] boxes → float32 [n, 17, 3]: x, y in px of the photo, score 0 to 1; COCO's order."""
        ...


@dataclass(frozen=True)
class Face:
    """A face: box [4], points [5, 2] (right eye, left eye, nose, mouth corners, as seen), score."""

    box: np.ndarray
    points: np.ndarray
    score: float


class FaceFinder(Protocol):
    """Finds faces."""

    def find(self, photo: np.ndarray, people: Detections) -> list[Face]:
        """All faces of a photo, best score first; `people` are its detections, for who needs them."""
        ...


class FaceEmbedder(Protocol):
    """Turns aligned faces into vectors whose cosine tells who is the same."""

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """uint8 [n, 112, 112, 3] RGB, aligned to the ArcFace template → float32 [n, d], length 1."""
        ...


class Segmenter(Protocol):
    """Masks people inside their boxes."""

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """int [n, 4] boxes inside the photo → n masks, bool [y1 − y0, x1 − x0]."""
        ...


class PictureClassifier(Protocol):
    """Says how much of something a picture shows."""

    def score(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Pictures of any sizes → float32 [n], 0 to 1."""
        ...


@dataclass(frozen=True)
class PersonView:
    """What a parser is told of a person: integer box [4], mask of the box's size, keypoints, face."""

    box: np.ndarray
    mask: np.ndarray
    keypoints: np.ndarray | None
    face_box: np.ndarray | None


class Parser(Protocol):
    """Labels a person's pixels."""

    def parse(self, photo: np.ndarray, people: list[PersonView]) -> list[np.ndarray]:
        """One uint8 map of ATR labels (0 to 17) a person, of the size of the box."""
        ...
