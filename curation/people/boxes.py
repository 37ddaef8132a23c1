"""Boxes: whole pixels inside a photo, and the borders that a box touches."""

import math
from collections.abc import Sequence

import numpy as np

_TOUCH_SHARE = 0.01  # a box this close to a border, as a share of the photo's side, touches it


def whole_box(box: np.ndarray | Sequence[float], width: int, height: int) -> np.ndarray:
    """The box in whole pixels inside a photo, at least one pixel wide and high; int [4]."""
    left, top, right, bottom = (float(value) for value in box)
    x0 = min(max(math.floor(left), 0), width - 1)
    y0 = min(max(math.floor(top), 0), height - 1)
    x1 = min(max(math.ceil(right), x0 + 1), width)
    y1 = min(max(math.ceil(bottom), y0 + 1), height)
    return np.array([x0, y0, x1, y1], dtype=np.int64)


def borders_touched(box: np.ndarray, width: int, height: int) -> int:
    """How many of the photo's four borders the box reaches."""
    x, y = width * _TOUCH_SHARE, height * _TOUCH_SHARE
    return int(box[0] <= x) + int(box[1] <= y) + int(box[2] >= width - x) + int(box[3] >= height - y)
