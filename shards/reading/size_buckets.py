"""Sizes of pictures for training, and which of them fits a photo.

A batch has one size. Photos have many proportions, so a dataset is read in a few sizes of about one
area: each photo is cut to the one whose proportions are nearest to its own, and loses little. That is
how SDXL was trained (arXiv 2307.01952, section 2.3 and appendix I: steps of 64 px about 1024²).
"""

import math
from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]
"""Height and width, px."""
_LEAST_AREA = 0.9  # of the one that is asked for


def sizes_around(height: int, width: int, *, step: int = 64, most: float = 2.0) -> list[Size]:
    """Sizes in multiples of `step` px, of 90 to 100 % of the area of height × width, from flat to tall.

    most   the longer side is at most so many times the shorter one

    One for each shorter side, as long as the area allows, lying and standing, and height × width itself,
    lying and standing. At 1024 × 1024 these are eleven, from 704 × 1408 to 1408 × 704.
    """
    area = height * width
    found = {(height, width), (width, height)}
    for short in range(step, math.isqrt(area) + 1, step):
        long = min(area // short, int(most * short)) // step * step
        if long >= short and short * long >= _LEAST_AREA * area:
            found |= {(short, long), (long, short)}
    return sorted(found)


def nearest_sizes(aspects: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """float [k] width / height of photos → int64 [k] places in `sizes`, nearest in proportion.

    Distance is that of logarithms, so that twice as wide and twice as tall are as far away. Of two that
    are as near, and for a photo of unknown proportions (0), it is the first.
    """
    known = np.where(np.asarray(aspects, np.float64) > 0, aspects, sizes[0][1] / sizes[0][0])
    own = np.log(np.array([width / height for height, width in sizes]))
    return np.abs(np.log(known)[:, None] - own).argmin(axis=1)
