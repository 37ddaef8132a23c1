"""Photos and people against the truth: copies, boxes, masks and regions."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from curation.evaluation.answers import Identified, LookedAt, Photo
from curation.evaluation.truth import Measure, Truth, share
from curation.people.atr import REGIONS, decode_map
from curation.people.boxes import whole_box

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


def pixels(photos: list[LookedAt]) -> list[Measure]:
    """mask_iou, region_miou, and region_iou_NAME for each of the five regions.

    mask_iou is the mean over matched people that have a mask, of the true mask (labels > 0). region_miou
    is the mean over REGIONS of their IoU pooled over all matched people with labels, as mIoU of semantic
    segmentation is: pixels of all people are counted together, within the boxes of each person.
    """
    ious: list[float] = []
    both = dict.fromkeys(REGIONS, 0)
    either = dict.fromkeys(REGIONS, 0)
    labelled = 0
    for photo in photos:
        for person in photo.people:
            if person.truth is None or person.mask is None:
                continue
            true_box = whole_box(person.truth["box"], photo.width, photo.height)
            box = whole_box(person.box, photo.width, photo.height)
            around = np.r_[np.minimum(box[:2], true_box[:2]), np.maximum(box[2:], true_box[2:])]
            true = _placed(decode_map(person.truth["labels"]), true_box, around)
            mask = _placed(decode_map(person.mask), box, around) > 0
            ious.append(_iou(mask, true > 0))
            if person.labels is None:
                continue
            labels = _placed(decode_map(person.labels), box, around)
            labelled += 1
            for name, members in REGIONS.items():
                is_in = np.isin(np.arange(256), members)
                both[name] += int((is_in[labels] & is_in[true]).sum())
                either[name] += int((is_in[labels] | is_in[true]).sum())
    pooled = {name: both[name] / either[name] for name in REGIONS if either[name]}
    return [
        share("mask_iou", "IoU of masks, mean over people", sum(ious), len(ious)),
        _rounded("region_miou", "IoU of the five regions, mean", list(pooled.values()), labelled),
        *(
            _rounded(f"region_iou_{name}", f"IoU of {name.replace('_', ' ')}, pooled", [value], labelled)
            for name, value in pooled.items()
        ),
    ]


def _rounded(key: str, says: str, values: list[float], count: int) -> Measure:
    return Measure(key, says, round(float(np.mean(values)), 5) if values else None, count)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    either = int((a | b).sum())
    return float((a & b).sum() / either) if either else 1.0


def _placed(values: np.ndarray, box: np.ndarray, around: np.ndarray) -> np.ndarray:
    """A map of `box` on the pixels of the larger box `around`; zero elsewhere."""
    x0, y0, x1, y1 = (box - np.r_[around[:2], around[:2]]).tolist()
    if values.shape != (y1 - y0, x1 - x0):
        raise ValueError(
            f"a map of {values.shape[1]} × {values.shape[0]} px on a box of {x1 - x0} × {y1 - y0}"
        )
    whole = np.zeros((around[3] - around[1], around[2] - around[0]), values.dtype)
    whole[y0:y1, x0:x1] = values
    return whole


def copies(photos: list[Photo], truth: Truth) -> list[Measure]:
    """duplicate_recall and duplicate_precision, over the photos that the truth knows."""
    screened = [photo for photo in photos if photo.screened and photo.photo_id in truth.photos]
    family = {photo.photo_id: truth.original(photo.photo_id) for photo in screened}
    wanted = {name: count - 1 for name, count in Counter(family[p.photo_id] for p in screened).items()}
    rejected = [photo for photo in screened if photo.copy_of is not None]
    right = Counter(family[p.photo_id] for p in rejected if family.get(p.copy_of or "") == family[p.photo_id])
    found = sum(min(count, wanted[name]) for name, count in right.items())
    return [
        share("duplicate_recall", "copies that were rejected", found, sum(wanted.values())),
        share(
            "duplicate_precision", "photos rejected as copies that are", sum(right.values()), len(rejected)
        ),
    ]


def followed_copies(
    photos: Iterable[Photo], people: Iterable[Identified], who: Mapping[str, str | None], truth: Truth
) -> tuple[list[Identified], dict[str, str | None]]:
    """A person on each near copy for each person of its original, and {person_id: true identity, or None}.

    The truth of the copy says who that is: the one whom it shows with the name that the original has, or,
    of a photo wrongly taken for a copy, the only one left on either side; otherwise nobody. Copies that the
    truth does not know, or shows nobody on, are left out.
    """
    of_photo: dict[str, list[Identified]] = {}
    for person in people:
        of_photo.setdefault(person.person_id[:64], []).append(person)
    found: list[Identified] = []
    names: dict[str, str | None] = {}
    for photo in photos:
        there = [str(row["identity"]) for row in truth.people.get(photo.photo_id, [])]
        # Equal bytes are one photo to the truth, which is counted already.
        if photo.copy_of is None or photo.copy_of == photo.photo_id or not there:
            continue
        originals = of_photo.get(photo.copy_of, [])
        shown = [name if (name := who.get(person.person_id)) in there else None for person in originals]
        left = [name for name in there if name not in shown]
        if len(left) == 1 and shown.count(None) == 1:
            shown[shown.index(None)] = left[0]
        for place, (person, name) in enumerate(zip(originals, shown, strict=True)):
            copied = Identified(f"{photo.photo_id}-{place}", person.identity, person.kept)
            found.append(copied)
            names[copied.person_id] = name
    return found, names
