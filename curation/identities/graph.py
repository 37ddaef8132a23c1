"""The neighbour graph of faces: who may be linked to whom.

An edge needs at least the cosine that joins two clusters (a mean that reaches it has such a pair), and to be
mutual among the k nearest or to share neighbours, and never joins two faces of one photo.
"""

import numpy as np

from curation.identities.linking import LinkCosines
from curation.identities.search import Pairs
from curation.settings.identities import IdentitiesSettings


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
    least = np.where(blocks[left] == blocks[right], cosines.inside, cosines.between)
    keep = (pairs.cosine >= least.astype(np.float32)) & may_join(pairs, photos, hints, seeds, settings)
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


def may_join(
    pairs: Pairs, photos: np.ndarray, hints: np.ndarray, seeds: np.ndarray, settings: IdentitiesSettings
) -> np.ndarray:
    """bool [pairs]: both faces are good enough to link, and neither a photo nor a hint keeps them apart."""
    left, right = pairs.left, pairs.right
    may = seeds[left] & seeds[right] & (photos[left] != photos[right])
    if settings.hints == "separate":
        may &= (hints[left] < 0) | (hints[right] < 0) | (hints[left] == hints[right])
    return may


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
