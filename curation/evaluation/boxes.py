"""Which detected box is which true one."""

import numpy as np
from scipy.optimize import linear_sum_assignment

MIN_IOU = 0.5


def match_boxes(found: np.ndarray, true: np.ndarray, min_iou: float = MIN_IOU) -> list[int | None]:
    """For each found box the place of its true box, or None; each true box is given once.

    found float [n, 4], true float [m, 4] as x0, y0, x1, y1. Of all assignments whose pairs reach
    `min_iou` it takes one with the most pairs, and among those the largest sum of overlaps.
    """
    matches: list[int | None] = [None] * len(found)
    if len(found) == 0 or len(true) == 0:
        return matches
    overlap = box_iou(found, true)
    # A pair more counts for more than all overlaps together.
    worth = np.where(overlap >= min_iou, overlap + min(overlap.shape) + 1, 0)
    for i, j in zip(*linear_sum_assignment(worth, maximize=True), strict=True):
        if overlap[i, j] >= min_iou:
            matches[i] = int(j)
    return matches


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float [n, m]: intersection over union of boxes [n, 4] and [m, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(both / np.maximum(union, 1e-9))
