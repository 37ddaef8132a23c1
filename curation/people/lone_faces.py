"""People whom only their face shows: a face that lies in nobody's box is a person of its own.

A detector of people looks for bodies. Where a face fills the photo it often finds nobody, and in a group
photo it can miss who stands behind others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.fingerprint import fingerprint
from curation.ledger import Check, at_least
from curation.models import used_models
from curation.people.chain import ChainContext
from curation.people.detect import FOUND, Detect
from curation.people.protocols import Detections, Face
from curation.settings.base import Settings
from curation.settings.people import DetectSettings, LoneFacesSettings, PeopleSettings

LONE_FACE = pa.struct(
    [("box", pa.list_(pa.float32())), ("points", pa.list_(pa.float32())), ("score", pa.float32())]
)
# Head and shoulders around a face box, in its widths and heights. A head is about a quarter higher than
# its face box and shoulders are about three faces wide; ours.
_ASIDE, _ABOVE, _BELOW = 1.0, 0.5, 1.0


class DetectWithFaces(Detect):
    """Detect, and behind the people that it finds one for each face that lies in none of their boxes.

    `from_face` is the face that a person was derived from, null where the detector found the person. The
    box of a derived person is `head_and_shoulders` of the face, the score that of the face; there are no
    keypoints. People whom the detector finds keep the place, and so the person_id, that they have without.
    """

    fills: ClassVar[pa.Schema] = pa.schema(
        [("found", pa.list_(pa.struct([*FOUND, ("from_face", LONE_FACE)]))), ("detect_error", pa.string())]
    )

    def __init__(
        self, settings: DetectSettings, chain: ChainContext, faces: LoneFacesSettings, find: Settings
    ) -> None:
        """`find`: the backend that finds faces, as `people.face.find` chooses it."""
        used = {**used_models(settings, chain.models), **used_models(find, chain.models)}
        super().__init__(settings, chain, used)
        self._faces, self._found_with = faces, find
        self._finder = chain.backend("face_finder", find)
        config = fingerprint([settings.ruling(), faces.ruling(), find.ruling()])
        self.stamp = replace(self.stamp, config=config)

    @classmethod
    def of(cls, people: PeopleSettings, chain: ChainContext) -> Detect:
        """Detect alone where the pipeline does not ask for lone faces."""
        if people.lone_faces is None:
            return Detect(people.detect, chain)
        return cls(people.detect, chain, people.lone_faces, people.face.find)

    def measured_with(self) -> dict[str, Any]:
        """That of Detect, and how faces are found."""
        found_with = {"faces": self._faces.measurement(), "find": self._found_with.measurement()}
        return {**super().measured_with(), **found_with}

    def _found(self, photo: np.ndarray, people: Detections) -> list[dict[str, Any]]:
        found = super()._found(photo, people)
        height, width = photo.shape[:2]
        faces = lone_faces(self._finder.find(photo, people), [person["box"] for person in found], photo)
        return found + [
            {
                "box": head_and_shoulders(face.box, width, height).tolist(),
                "box_score": face.score,
                "from_face": {
                    "box": face.box.tolist(),
                    "points": face.points.reshape(-1).tolist(),
                    "score": face.score,
                },
            }
            for face in faces
        ]

    def _check(self, person: dict[str, Any]) -> Check:
        if person["from_face"] is None:
            return super()._check(person)
        return at_least("face_score", person["box_score"], self._faces.min_score)


def lone_faces(
    faces: Sequence[Face], boxes: Sequence[Sequence[float]] | np.ndarray, photo: np.ndarray
) -> list[Face]:
    """The faces whose middle lies on the photo and in none of the boxes, best score first."""
    height, width = photo.shape[:2]
    found = []
    for face in faces:
        x, y = (face.box[:2] + face.box[2:]) / 2
        in_a_box = any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)
        flat = (face.box[2:] <= face.box[:2]).any()
        if 0 <= x < width and 0 <= y < height and not in_a_box and not flat:
            found.append(face)
    return sorted(found, key=lambda face: (-face.score, *face.box.tolist()))


def head_and_shoulders(face: np.ndarray, width: int, height: int) -> np.ndarray:
    """float [4]: a face box grown to head and shoulders and cut at the borders of the photo.

    Three faces wide, from half a face above it to one face below it.
    """
    x0, y0, x1, y1 = (float(value) for value in face)
    wide, high = x1 - x0, y1 - y0
    grown = (x0 - _ASIDE * wide, y0 - _ABOVE * high, x1 + _ASIDE * wide, y1 + _BELOW * high)
    return np.clip(np.array(grown), 0, (width, height, width, height))


def own_face(person: dict[str, Any]) -> Face | None:
    """The face that a person was derived from; None where the detector found the person."""
    face = person.get("from_face")
    return face and Face(np.array(face["box"]), np.array(face["points"]).reshape(5, 2), face["score"])
