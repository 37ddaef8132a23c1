"""Regions by body proportions, without weights: from keypoints where there are any, else face and box.

The heights are those of the eight-head figure of drawing schools: chin at 1 head, hips at 4, ankles
at 7.5. A face box of YuNet spans about 0.8 of a head.
"""

import numpy as np

from curation.models import Models
from curation.people.atr import FACE, HAIR, LEFT_SHOE, PANTS, RIGHT_SHOE, UPPER
from curation.people.protocols import PersonView
from curation.settings.people import GeometricSettings

_CHIN, _HIPS, _ANKLES = 1.1, 4.0, 7.3  # in heads from the crown
_FACE_HEADS = 0.8
_BOX_HEADS = 8.0  # heads in a box of a whole person, used when no face is seen


class GeometricParser:
    """A Parser: horizontal bands under the mask, a face where the face is."""

    def __init__(self, settings: GeometricSettings, models: Models) -> None:
        self._min_joint_score = settings.min_joint_score

    def parse(self, photo: np.ndarray, people: list[PersonView]) -> list[np.ndarray]:
        """Hair and face, upper clothes, pants, shoes; nothing below what the box shows."""
        return [self._labels(person) for person in people]

    def _labels(self, person: PersonView) -> np.ndarray:
        height, width = person.mask.shape
        chin, hips, ankles = self._heights(person)
        rows = np.arange(height) + person.box[1]
        band = np.full(height, UPPER, np.uint8)
        band[rows < chin] = HAIR
        band[rows >= hips] = PANTS
        band[rows >= ankles] = LEFT_SHOE
        labels = np.repeat(band[:, None], width, axis=1)
        right = np.arange(width) >= width // 2
        labels[:, right] = np.where(labels[:, right] == LEFT_SHOE, RIGHT_SHOE, labels[:, right])
        if person.face_box is not None:
            x0, y0, x1, y1 = person.face_box - np.tile(person.box[:2], 2)
            ys = slice(max(int(y0), 0), max(int(y1), 0))
            xs = slice(max(int(x0), 0), max(int(x1), 0))
            labels[ys, xs] = FACE
        labels[person.mask == 0] = 0
        return labels

    def _heights(self, person: PersonView) -> tuple[float, float, float]:
        """y of chin, hips and ankles in px of the photo; beyond the box where they are not seen."""
        top, bottom = float(person.box[1]), float(person.box[3])
        if person.face_box is not None:
            face = person.face_box
            head = (face[3] - face[1]) / _FACE_HEADS
            crown = max(face[3] - head * (_CHIN - 0.1), top - head)
        else:
            head = (bottom - top) / _BOX_HEADS
            crown = top
        chin, hips, ankles = (crown + head * heads for heads in (_CHIN, _HIPS, _ANKLES))
        if person.keypoints is None:
            return chin, hips, ankles
        seen = person.keypoints[:, 2] >= self._min_joint_score
        y = person.keypoints[:, 1]
        nose, shoulders, hip, ankle = [0], [5, 6], [11, 12], [15, 16]
        if seen[shoulders].any():
            shoulder_y = float(y[shoulders][seen[shoulders]].mean())
            chin = shoulder_y
            if seen[nose].all():
                chin = shoulder_y - 0.35 * (shoulder_y - float(y[0]))
        # A joint that is not seen lies outside the photo, or is hidden: then nothing is claimed below.
        hips = float(y[hip][seen[hip]].mean()) if seen[hip].any() else max(hips, bottom)
        ankles = float(y[ankle][seen[ankle]].min()) if seen[ankle].any() else max(ankles, bottom)
        return chin, hips, ankles
