"""Whom a detection shows: by its box, and where that fits nobody's, by the place of the nose.

Boxes of the truth end where something hides a person; a detector that guesses the hidden legs overlaps them
too little and counts as nobody, as does a second detection of one person. For detection both are errors. For
identities and outfits they are not: face and clothes are that person's, and to put them with their other
photos is right.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from curation.evaluation.answers import LookedAt

_NOSE, _EYES = 0, (1, 2)  # of COCO's joints


def whose_faces(photos: Iterable[LookedAt]) -> dict[str, str | None]:
    """{person_id: the true identity, or None} of everyone whom the detector kept."""
    return {name: None if row is None else str(row["identity"]) for name, row in who_is_shown(photos).items()}


def who_is_shown(photos: Iterable[LookedAt]) -> dict[str, dict[str, Any] | None]:
    """{person_id: the true person, a row of people.parquet, or None} of everyone whom the detector kept.

    A detection without a matched box is the only person of the photo whose nose and eyes are visible and
    whose nose lies within one distance of their eyes of the detected nose, or, of a person who was derived
    from a face, in that face.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for photo in photos:
        for person in photo.people:
            if person.truth is not None:
                found[person.person_id] = person.truth
                continue
            if person.lone_face is not None:
                near = _inside(person.lone_face, photo.truth)
            else:
                near = [] if person.keypoints is None else _near(person.keypoints[_NOSE, :2], photo.truth)
            found[person.person_id] = near[0] if len(near) == 1 else None
    return found


def _near(nose: np.ndarray, people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    near = []
    for row in people:
        joints = np.reshape(row["keypoints"], (17, 3))
        eyes = float(np.hypot(*(joints[_EYES[0], :2] - joints[_EYES[1], :2])))
        if _is_seen(joints) and float(np.hypot(*(nose - joints[_NOSE, :2]))) <= eyes:
            near.append(row)
    return near


def _inside(face: np.ndarray, people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inside = []
    for row in people:
        joints = np.reshape(row["keypoints"], (17, 3))
        x, y = joints[_NOSE, :2]
        if _is_seen(joints) and face[0] <= x <= face[2] and face[1] <= y <= face[3]:
            inside.append(row)
    return inside


def _is_seen(joints: np.ndarray) -> bool:
    return bool(joints[[_NOSE, *_EYES], 2].min() == 2)
