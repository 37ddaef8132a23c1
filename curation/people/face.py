"""Stage `face`: the face of each person, aligned and embedded, and whether it is good enough."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Reason, Threshold
from curation.ledger import REJECTED, Outcome, judged
from curation.people.detect import Detect
from curation.people.lone_faces import own_face
from curation.people.person_stage import Measured, People, Person, PersonStage
from curation.people.protocols import Detections, Face
from curation.settings.people import FaceSettings

# Where the five points lie in an aligned face of 112 px: the template that ArcFace models are
# trained on (published with InsightFace, and in the ArcFace paper's reference code).
ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)
ALIGNED_PX = 112
_MOST_PX = 2.0  # of the photo, in each direction, that linear interpolation does justice to
_HEAD_SHARE = 0.55  # without keypoints the middle of a face lies in this upper part of the box
_HEAD_MIDDLE = 0.15  # and on average here
_HEAD_JOINTS = (0, 1, 2, 3, 4)  # nose, eyes, ears
_MIN_JOINT_SCORE = 0.5

FACE = pa.struct(
    [
        ("found", pa.bool_()),
        ("box", pa.list_(pa.float32())),
        ("points", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("embedding", pa.binary()),
    ]
)


class FaceStage(PersonStage):
    """`face` holds box and points in px of the photo and a float32 embedding."""

    name: ClassVar[str] = "face"
    version: ClassVar[int] = PersonStage.version + 1  # large faces are shrunk by areas
    fills: ClassVar[pa.Schema] = pa.schema([("face", FACE), ("face_error", pa.string())])
    needs: ClassVar[tuple[str, ...]] = (Detect.name,)
    settings_type: ClassVar[Any] = FaceSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("no_face", "no face was found where the person's head is", "people.face"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("face_score", "people.face.min_score", "at least", "certainty of the face"),
        Threshold(
            "face_too_small", "people.face.min_face_px", "at least", "shorter side of the face", unit="px"
        ),
    )

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        """The face of each wanted person, embedded: the one where the person's head is."""
        own = {person["person_index"]: own_face(person) for person in everyone}
        faces = {
            **own,
            **self._assigned(photo, [person for person in everyone if own[person["person_index"]] is None]),
        }
        found = [faces[person["person_index"]] for person in wanted]
        aligned = [align_face(photo, face.points) for face in found if face is not None]
        embeddings = iter(self.backends["embed"].embed(np.stack(aligned)) if aligned else ())
        return [
            {"face": {"found": False} if face is None else _record(face, next(embeddings))} for face in found
        ]

    def _assigned(self, photo: np.ndarray, people: People) -> dict[int, Face]:
        """{person_index: face} of the people whom the detector found. All of them compete for the faces, also
        those already ruled out."""
        if not people:
            return {}
        detections = _detections(people)
        faces = self.backends["find"].find(photo, detections)
        joints = [person["keypoints"] for person in people]
        owners = assign_faces(faces, detections.boxes.astype(np.float64), joints)
        return {people[person]["person_index"]: faces[face] for face, person in owners.items()}

    def ruling(self, row: Person) -> Outcome:
        """Rejects people without a face that identities can be linked by."""
        face = row["face"]
        if not face["found"]:
            return Outcome(REJECTED, "no_face")
        x0, y0, x1, y1 = face["box"]
        side = min(x1 - x0, y1 - y0)
        size = replace(self.check("face_too_small", side), score=round(side, 2))
        return judged([self.check("face_score", face["score"]), size])


def _detections(people: People) -> Detections:
    joints = [person["keypoints"] for person in people if person["keypoints"] is not None]
    return Detections(
        np.array([person["box"] for person in people], dtype=np.float32).reshape(-1, 4),
        np.array([person["box_score"] for person in people], dtype=np.float32),
        # A detector gives everyone keypoints, or nobody.
        np.array(joints, dtype=np.float32).reshape(-1, 17, 3) if joints else None,
    )


def assign_faces(
    faces: list[Face], boxes: np.ndarray, keypoints: Sequence[Sequence[float] | None]
) -> dict[int, int]:
    """{face: person}: a face belongs to the person whose head region holds it.

    The head is where the keypoints of nose, eyes and ears are, otherwise the upper part of the box.
    The nearest pair is taken first; a face has one person and a person one face.
    """
    options = []
    for f, face in enumerate(faces):
        middle = (face.box[:2] + face.box[2:]) / 2
        for p, box in enumerate(boxes):
            width, height = box[2] - box[0], box[3] - box[1]
            inside = box[0] <= middle[0] <= box[2] and box[1] <= middle[1] <= box[3]
            if not inside or width <= 0 or height <= 0:
                continue
            head = _head_of(keypoints[p])
            if head is not None:
                face_px = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
                if np.abs(middle - head).max() > face_px:
                    continue
            else:
                if middle[1] > box[1] + _HEAD_SHARE * height:
                    continue
                head = np.array([(box[0] + box[2]) / 2, box[1] + _HEAD_MIDDLE * height])
            options.append((float(np.hypot(*(middle - head)) / np.hypot(width, height)), f, p))
    owners: dict[int, int] = {}
    for _, f, p in sorted(options):
        if f not in owners and p not in owners.values():
            owners[f] = p
    return owners


def _head_of(keypoints: Sequence[float] | None) -> np.ndarray | None:
    if keypoints is None:
        return None
    joints = np.array(keypoints, dtype=np.float64).reshape(17, 3)[list(_HEAD_JOINTS)]
    seen = joints[joints[:, 2] >= _MIN_JOINT_SCORE]
    return None if len(seen) == 0 else np.asarray(seen[:, :2].mean(axis=0))


def align_face(photo: np.ndarray, points: np.ndarray) -> np.ndarray:
    """uint8 [112, 112, 3]: the face turned, scaled and moved onto the ArcFace template.

    Linear interpolation looks at four pixels of the photo. Where a pixel of the result stands for more
    than 2 × 2 of them, the photo is shrunk by areas to that first; smaller faces are read as they are.
    """
    import cv2

    matrix = similarity(points.astype(np.float64), ARCFACE_TEMPLATE)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    # Points that all but coincide say nothing of a size.
    if 1 / max(photo.shape) < scale * _MOST_PX < 1:
        photo, matrix = _shrunk(photo, matrix, scale * _MOST_PX)
    return np.asarray(cv2.warpAffine(photo, matrix, (ALIGNED_PX, ALIGNED_PX), flags=cv2.INTER_LINEAR))


def _shrunk(photo: np.ndarray, matrix: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photo that a matrix maps into an aligned face, and its matrix from there."""
    import cv2

    corners = np.array([[0, 0, 1], [ALIGNED_PX, 0, 1], [0, ALIGNED_PX, 1], [ALIGNED_PX, ALIGNED_PX, 1]])
    shown = corners @ cv2.invertAffineTransform(matrix).T
    margin = 2 / scale
    high, wide = photo.shape[:2]
    left, top = np.clip(np.floor(shown.min(axis=0) - margin), 0, (wide - 1, high - 1)).astype(int)
    right, bottom = np.clip(np.ceil(shown.max(axis=0) + margin), (left + 1, top + 1), (wide, high)).astype(
        int
    )
    part = photo[top:bottom, left:right]
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    # Middles of pixels lie at whole numbers, so both grids begin at -0.5.
    steps = np.array([part.shape[1] / size[0], part.shape[0] / size[1]])
    start = np.array([left, top]) + (steps - 1) / 2
    return small, np.column_stack([matrix[:, :2] * steps, matrix[:, :2] @ start + matrix[:, 2]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The [2, 3] rotation, scale and shift that brings points [n, 2] nearest to others.

    Least squares after Umeyama (Least-squares estimation of transformation parameters between two
    point patterns, PAMI 1991), written for two dimensions as complex numbers; no reflection.
    """
    a = source[:, 0] + 1j * source[:, 1]
    b = target[:, 0] + 1j * target[:, 1]
    centred = a - a.mean()
    turn = (np.conj(centred) @ (b - b.mean())) / max(float((np.abs(centred) ** 2).sum()), 1e-12)
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _record(face: Face, embedding: np.ndarray) -> dict[str, Any]:
    return {
        "found": True,
        "box": face.box.tolist(),
        "points": face.points.reshape(-1).tolist(),
        "score": face.score,
        "embedding": np.ascontiguousarray(embedding, dtype="<f4").tobytes(),
    }
