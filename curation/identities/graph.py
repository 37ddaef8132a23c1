"""The neighbour graph of faces: who may be linked to whom.

An edge needs a cosine of at least the threshold, and to be mutual among the k nearest or to share
neighbours, and never joins two faces of one photo (a verification threshold alone links a few wrong
pairs for each face once there are millions: ../docs/identities.md).
"""

from dataclasses import dataclass

import numpy as np

from curation.identities.false_match import FalseMatchCurve
from curation.identities.search import Pairs
from curation.settings.identities import IdentitiesSettings


@dataclass(frozen=True)
class LinkCosines:
    """The least cosine of an edge: inside each block, and between two of them.

    inside   float64 [blocks]: strangers that a face meets in its own block are few, so it is lower there
    between  that of the whole collection
    """

    inside: np.ndarray
    between: float

    def of(self, left_block: np.ndarray, right_block: np.ndarray) -> np.ndarray:
        """For each pair of blocks."""
        return np.where(left_block == right_block, self.inside[left_block], self.between)

    def least(self) -> float:
        """The lowest of all."""
        return float(min(self.between, self.inside.min()))


def link_cosines(
    curve: FalseMatchCurve | None, blocks: np.ndarray, settings: IdentitiesSettings
) -> LinkCosines:
    """`link_cosine`, raised so far that a face expects at most `false_links` wrong links to strangers.

    A face is compared with all others of its block, and with all of the collection: at n faces and a
    false-match rate f it meets n · f strangers above the threshold.
    """
    sizes = np.bincount(blocks)
    if curve is None or settings.false_links is None:
        return LinkCosines(np.full(len(sizes), settings.link_cosine), settings.link_cosine)

    def raised(faces: int) -> float:
        assert curve is not None
        assert settings.false_links is not None
        return max(settings.link_cosine, curve.threshold(settings.false_links / max(faces, 1)))

    by_size = {int(size): raised(int(size)) for size in np.unique(sizes)}
    return LinkCosines(np.array([by_size[int(size)] for size in sizes]), raised(len(blocks)))


def build_edges(
    pairs: Pairs,
    photos: np.ndarray,
    hints: np.ndarray,
    blocks: np.ndarray,
    seeds: np.ndarray,
    cosines: LinkCosines,
    settings: IdentitiesSettings,
) -> Pairs:
    """Those of the pairs that the rules allow as edges.

    photos  int [n]: faces of one photo share a number and are never linked
    hints   int [n]: faces with different hints are never linked where the settings say so; −1 is none
    blocks  int [n]: the face's collection
    seeds   bool [n]: faces good enough to link
    """
    left, right = pairs.left, pairs.right
    keep = pairs.cosine >= cosines.of(blocks[left], blocks[right]).astype(np.float32)
    keep &= seeds[left] & seeds[right] & (photos[left] != photos[right])
    if settings.hints == "separate":
        keep &= (hints[left] < 0) | (hints[right] < 0) | (hints[left] == hints[right])
    left, right, cosine = left[keep], right[keep], pairs.cosine[keep]
    place = _places(left, right, cosine)
    near = place < settings.neighbours  # [2, edges]: among the k nearest of the left, of the right
    keep = near[0] & near[1]
    one_sided = np.flatnonzero((near[0] | near[1]) & ~keep)
    if len(one_sided):
        lists = _Lists(left, right, near, len(photos))
        for edge in one_sided.tolist():
            keep[edge] = lists.shared(left[edge], right[edge]) >= settings.min_shared
    return Pairs(left[keep], right[keep], cosine[keep])


def _places(left: np.ndarray, right: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """[2, edges]: the place of each edge in the list of its left and of its right face, nearest first."""
    face, other = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.lexsort((other, -np.concatenate([cosine, cosine]), face))
    sorted_face = face[order]
    starts = np.searchsorted(sorted_face, sorted_face, side="left")
    place = np.empty(len(face), np.int64)
    place[order] = np.arange(len(face)) - starts
    return place.reshape(2, -1)


class _Lists:
    """The k nearest of each face."""

    def __init__(self, left: np.ndarray, right: np.ndarray, near: np.ndarray, count: int) -> None:
        face = np.concatenate([left[near[0]], right[near[1]]])
        other = np.concatenate([right[near[0]], left[near[1]]])
        order = np.argsort(face, kind="stable")
        self._others = other[order]
        self._starts = np.searchsorted(face[order], np.arange(count + 1))

    def shared(self, a: int, b: int) -> int:
        """How many faces are in both lists."""
        mine = self._others[self._starts[a] : self._starts[a + 1]]
        theirs = self._others[self._starts[b] : self._starts[b + 1]]
        return len(np.intersect1d(mine, theirs))
