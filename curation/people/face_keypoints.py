"""Faces from the pose detector's own keypoints: nose and both eyes seen make a face. No weights."""

from typing import Any

import numpy as np

from curation.models import Models
from curation.people.face import ARCFACE_TEMPLATE, similarity
from curation.people.protocols import Detections, Face
from curation.settings.people import KeypointsFaceSettings

# COCO names sides as the person has them, so the right eye is the left one as seen; Face's order.
_RIGHT_EYE, _LEFT_EYE, _NOSE = 2, 1, 0
_SEEN = ARCFACE_TEMPLATE[:3]
# Where the face lies in an aligned face: middle and sides in px of the template, the means over the
# boxes that YuNet draws around the 11 faces of tests' portraits (deviations: 8, 2; 5, 5). A face of
# `min_face_px` is thus about equally large, whoever found it.
_BOX_MIDDLE = np.array([56.0, 63.0])
_BOX_SIDES = np.array([76.0, 103.0])


class KeypointsFaceFinder:
    """A FaceFinder. A person seen from behind or in profile, nose or an eye unseen, has no face."""

    def __init__(self, settings: KeypointsFaceSettings, models: Models) -> None:
        self._settings = settings

    def find(self, photo: np.ndarray, people: Detections) -> list[Face]:
        """At most one face a person; none at all where the detector gives no keypoints."""
        if people.keypoints is None:
            return []
        faces = [self._face_of(joints) for joints in people.keypoints.astype(np.float64)]
        found = [face for face in faces if face is not None]
        return sorted(found, key=lambda face: (-face.score, *face.box.tolist()))

    def _face_of(self, joints: np.ndarray) -> Face | None:
        seen = joints[[_RIGHT_EYE, _LEFT_EYE, _NOSE]]
        score = float(seen[:, 2].min())
        points = seen[:, :2]
        across, down = points[1] - points[0], points[2] - points[0]
        # In a face that is not mirrored the nose lies on one side of the line through the eyes.
        upright = across[0] * down[1] - across[1] * down[0] > 0
        if score < self._settings.floor or np.hypot(*across) < self._settings.min_eye_px or not upright:
            return None
        matrix = similarity(points, _SEEN)
        middle = _undo(matrix, _BOX_MIDDLE[None])[0]
        half = _BOX_SIDES / np.hypot(matrix[0, 0], matrix[1, 0]) / 2
        box = np.concatenate([middle - half, middle + half])
        return Face(box, with_mouth(points), score)


def with_mouth(points: np.ndarray) -> np.ndarray:
    """The five points of a Face from its first three [3, 2]: the mouth where the template has it."""
    mouth = _undo(similarity(points, _SEEN), ARCFACE_TEMPLATE[3:])
    return np.concatenate([points, mouth])


def _undo(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [n, 2] of the template, in the photo."""
    inverse: Any = np.linalg.inv(matrix[:, :2])
    return np.asarray((points - matrix[:, 2]) @ inverse.T)
