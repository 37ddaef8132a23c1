"""How much two photos of one person in one outfit differ: in pose, and in the scene around them.

Both come from what the phases before have stored, so nothing is decoded and no model is asked.

pose    root mean square distance of the joints that both photos show, after each photo's joints were moved
        to their mean and scaled to a mean square of 1: where and how large a person stands says nothing
scene   bits between the perceptual hashes of the whole photos (curation/photos/perceptual_hash.py)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.outfits.similarity import similarities

COLUMNS = ("phash", "keypoints", "appearance")
"""Columns of a person that are read."""
_SEEN = 0.3  # the least score of a joint
_LEAST_JOINTS = 6
_OTHER_SCENE_BITS = 32.0  # by which two photos that have nothing to do with each other differ on average
# Of 1,004 pairs of one person and outfit in three rendered worlds, 1 in 10 of those with another pose, view
# or position of the arms differs by more.
_OTHER_POSE = 0.3
_DIGITS = 4


class Photos:
    """The photos of a group, ready to be compared one with all.

    people  rows with `COLUMNS`: phash a 64-bit number or None, keypoints 51 numbers (x, y in px and score of
            17 joints) or None, appearance as the stage of that name stores it, or None
    """

    def __init__(self, people: Sequence[dict[str, Any]]) -> None:
        self._hashes = np.array([row["phash"] or 0 for row in people], np.uint64)
        self._hashed = np.array([row["phash"] is not None for row in people], bool)
        joints = np.zeros((len(people), 17, 3))
        for place, row in enumerate(people):
            if row["keypoints"] is not None:
                joints[place] = np.reshape(row["keypoints"], (17, 3))
        self._joints, self._seen = joints[..., :2], joints[..., 2] >= _SEEN
        self._appearance = [row["appearance"] for row in people]

    def __len__(self) -> int:
        return len(self._hashes)

    def bits(self, one: int) -> np.ndarray:
        """float64 [n], 0 to 64: bits between the hashes of photo `one` and of each photo; NaN: not known."""
        found = np.bitwise_count(self._hashes ^ self._hashes[one]).astype(np.float64)
        found[~(self._hashed & self._hashed[one])] = np.nan
        return found

    def pose(self, one: int) -> np.ndarray:
        """float64 [n], from 0: how far apart the joints are; NaN where both show fewer than 6 of them."""
        both = self._seen & self._seen[one]
        count = both.sum(axis=1)
        weight = both[..., None] / np.maximum(count, 1)[:, None, None]

        def shaped(points: np.ndarray) -> np.ndarray:
            centred = points - (points * weight).sum(axis=1, keepdims=True)
            size = np.sqrt((centred**2 * weight).sum(axis=(1, 2), keepdims=True))
            return np.asarray(centred / np.maximum(size, 1e-9))

        mine = np.broadcast_to(self._joints[one], self._joints.shape)
        apart = np.sqrt(((shaped(self._joints) - shaped(mine)) ** 2 * weight).sum(axis=(1, 2)))
        return np.where(count >= _LEAST_JOINTS, np.round(apart, _DIGITS), np.nan)

    def colours(self, one: int, other: int) -> float:
        """0 to 1: how alike the stored colours of the clothes are; NaN: not known."""
        return float(similarities([self._appearance[one], self._appearance[other]])[0, 1])

    def diversity(self, one: int) -> np.ndarray:
        """float64 [n], 0 to 1: the mean of pose and scene, each 1 where it is as different as can be told.

        What is not known counts as neither: the other one stands alone; 0.5 where both are unknown.
        """
        parts = [
            np.minimum(self.pose(one) / _OTHER_POSE, 1),
            np.minimum(self.bits(one) / _OTHER_SCENE_BITS, 1),
        ]
        stacked = np.stack(parts)
        known = ~np.isnan(stacked)
        mean = np.where(known, stacked, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return np.round(np.where(known.any(axis=0), mean, 0.5), _DIGITS)
