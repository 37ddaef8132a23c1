"""Heads of people on a photo who are not its group's: where they are.

A face that was measured is where it was found, with what surrounds it. A person whose face was not (they were
ruled out before, turn away, or are too small) has their head blurred: where nose, eyes and ears are, else the
top of their box. Whom the detector did not find is not blurred.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_AROUND = 0.25  # of a face's sides, on each side: hair, chin and ears
_SAME = 0.5  # of the smaller face: two detections of one person have faces that overlap by more
_HEAD_JOINTS = 5  # nose, eyes and ears come first in COCO's order
_MIN_JOINT_SCORE = 0.5
_HEADS_WIDE = 2.5  # of the widest distance between these joints


def head_of(person: Mapping[str, Any]) -> list[float]:
    """x0, y0, x1, y1 in px of the upright photo: the head of a detected person."""
    face = person.get("face")
    if face is not None and face.get("box") is not None:
        x0, y0, x1, y1 = face["box"]
        aside, above = _AROUND * (x1 - x0), _AROUND * (y1 - y0)
        return [x0 - aside, y0 - above, x1 + aside, y1 + above]
    x0, y0, x1, y1 = person["box"]
    if person.get("keypoints") is not None:
        joints = np.array(person["keypoints"], np.float64).reshape(-1, 3)[:_HEAD_JOINTS]
        seen = joints[joints[:, 2] >= _MIN_JOINT_SCORE, :2]
        if len(seen) > 1:
            middle, half = seen.mean(axis=0), _HEADS_WIDE / 2 * max(np.ptp(seen, axis=0).max(), (x1 - x0) / 8)
            return [*(middle - half).tolist(), *(middle + half).tolist()]
    width, height = x1 - x0, y1 - y0
    return [x0, y0, x1, y0 + min(height, max(0.2 * height, 0.8 * width))]


def heads_of_others(people: Sequence[Mapping[str, Any]], own: int) -> list[list[float]]:
    """The heads of all people on a photo but the one at place `own`, rounded to whole px.

    people   box, keypoints and face of each, as the phase `people` stores them
    """
    spared = people[own].get("face")
    found = []
    for place, person in enumerate(people):
        face = person.get("face")
        if place == own or (spared is not None and face is not None and _overlap(spared, face) > _SAME):
            continue
        found.append([float(round(side)) for side in head_of(person)])
    return found


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How much of the smaller of two faces the other one covers, 0 to 1."""
    if one.get("box") is None or other.get("box") is None:
        return 0.0
    a, b = np.array(one["box"], np.float64), np.array(other["box"], np.float64)
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    smaller = min(float(np.prod(a[2:] - a[:2])), float(np.prod(b[2:] - b[:2])))
    return float(np.prod(sides)) / smaller if smaller > 0 else 0.0
