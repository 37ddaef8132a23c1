"""Masks and regions against true labels, pixel by pixel, over people matched to the truth."""

import numpy as np

from curation.evaluation.answers import LookedAt
from curation.evaluation.measure import Measure, share
from curation.people.atr import REGIONS, decode_map
from curation.people.boxes import whole_box


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
