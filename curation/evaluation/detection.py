"""People found: recall and precision of boxes, and how near the joints are.

Counted over the photos that the detector saw, crowds included: copies and files that do not decode are
ruled out before it. A true person must be found when at least MIN_VISIBLE_SHARE of the figure is visible
and the longer side of its box has MIN_SIDE_PX; a detection matched to any true person, also a smaller or
more hidden one, is right. Detections below the run's `people.detect.min_score` do not count.
"""

from typing import Any

import numpy as np

from curation.evaluation.answers import LookedAt
from curation.evaluation.measure import Measure, share

MIN_VISIBLE_SHARE = 0.25
MIN_SIDE_PX = 48
PCK_SHARE = 0.1  # of the box's longer side: as near as this a joint is right
_VISIBLE = 2  # COCO: 0 not labelled, 1 hidden, 2 visible


def detection(photos: list[LookedAt]) -> list[Measure]:
    """detect_recall, detect_precision, keypoint_pck."""
    wanted = found = right = detected = near = joints = 0
    for photo in photos:
        matched = [person for person in photo.people if person.truth is not None]
        indices = {person.truth["index"] for person in matched if person.truth is not None}
        must = [person["index"] for person in photo.truth if must_be_found(person)]
        wanted += len(must)
        found += sum(index in indices for index in must)
        detected += len(photo.people)
        right += len(matched)
        for person in matched:
            if person.keypoints is not None and person.truth is not None:
                good, total = near_joints(person.keypoints, person.truth)
                near, joints = near + good, joints + total
    return [
        share("detect_recall", "people found, of those that must be", found, wanted),
        share("detect_precision", "detections that are people (IoU 0.5)", right, detected),
        share("keypoint_pck", "visible joints within 0.1 of the box's longer side", near, joints),
    ]


def must_be_found(person: dict[str, Any]) -> bool:
    """Whether so much of a true person is visible that a detector must find it."""
    return bool(person["visible_share"] >= MIN_VISIBLE_SHARE and _longer_side(person["box"]) >= MIN_SIDE_PX)


def near_joints(found: np.ndarray, truth: dict[str, Any]) -> tuple[int, int]:
    """(right, all) of a person's visible joints: PCK after Yang and Ramanan, PAMI 2013; found [17, 3]."""
    true = np.array(truth["keypoints"], np.float64).reshape(17, 3)
    seen = true[:, 2] == _VISIBLE
    distance = np.hypot(*(found[seen, :2] - true[seen, :2]).T)
    return int((distance <= PCK_SHARE * _longer_side(truth["box"])).sum()), int(seen.sum())


def _longer_side(box: list[float]) -> float:
    return max(box[2] - box[0], box[3] - box[1])
