"""The linking cosine, settled by the clusters that it makes.

The counts of pairs alone do not say which of them are of strangers; a clustering does. Of the pairs at a
cosine t or above, those that lie inside a cluster are right(t), nearly all of one person, and those that
lie across two clusters are wrong(t), nearly all of strangers (at the cosine found, 80 to 100 in 100 are;
drawn faces): a stranger has a face near one of a cluster and far from its others, and average linkage asks
for the mean. So faces are grouped at a first cosine, the t is looked for where

    right(t) − wrong(t) / (2 · false_links)

is largest, and they are grouped there, until the cosine stays. No label is needed and no curve is assumed.

A wrong pair counts half of one that is joined, since it was left apart. Where few people are seen twice,
strangers that happen to be near make clusters of two that nothing contradicts; the curves of
curation/identities/linking.py say how far down the cosine may go.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from curation.identities.linking import COPY, FEW, NEARLY, SAME_MEAN, LinkCosines, near_copies
from curation.identities.search import Pairs

Grouped = TypeVar("Grouped")

_STEP = 0.01
_FURTHEST = 10  # steps down at once: what lies far below was not open to the clusters at hand
_ROUNDS = 12  # no collection that we drew needed more than eight
_LEFT_APART = 2.0  # ours: with 1.5, 1,000 drawn faces lose .03 of pairwise F; with 2.5, .02 of precision
_CHANCE = 0.3  # ours: of the deviation of a count, what says nothing; of some hundred pairs more than NEARLY
_PRIOR_SHARE = 0.5  # ours: of few faces, what embedders show on average counts as much as the curves
_EXPECTED = 1.0  # pair of strangers that may lie above a first cosine
_HIGHEST = 0.95


def settle(
    cosines: LinkCosines,
    pairs: Pairs,
    may_join: np.ndarray,
    blocks: np.ndarray,
    false_links: float,
    group: Callable[[LinkCosines], tuple[np.ndarray, Grouped]],
) -> tuple[LinkCosines, Grouped]:
    """The cosines that the clusters confirm, and what `group` made at them.

    cosines   from the curves
    pairs     every pair from `cosines.lowest` on
    may_join  bool [pairs]: nothing forbids that the two faces are linked
    blocks    int [n]: the collection of each face
    group     cosines → (int [n]: the cluster of each face, anything)
    """
    counted = _Counted(cosines, pairs, may_join, blocks)
    # Of few faces the curves know little. Too low, all would be one cluster, which contradicts nothing; too
    # high, each face would be alone, and each pair of one person would speak against its own cosine.
    begin = 0 if len(blocks) > FEW else int(np.ceil((_first(cosines, len(blocks)) - cosines.inside) / _STEP))
    step = max(begin, 0, counted.lowest)
    tried: set[int] = set()
    while True:
        at = cosines.moved(step * _STEP)
        label, made = group(at)
        tried.add(step)
        better = counted.better(label, step, _LEFT_APART * false_links)
        if better in tried:  # back and forth: the higher one, splits before merges
            better = max(better, step)
        if better == step or len(tried) == _ROUNDS:
            return at, made
        step = better


def _first(cosines: LinkCosines, faces: int) -> float:
    """The first cosine of few faces: half of the way to the prior's, and no higher than strangers reach."""
    way = cosines.inside + _PRIOR_SHARE * (SAME_MEAN - cosines.inside)
    assert cosines.curve is not None
    return min(way, cosines.curve.threshold(_EXPECTED / (faces * (faces - 1) / 2)))


class _Counted:
    """Pairs that may be linked, by how many steps they lie above the first cosines.

    lowest  the step that those may not go below
    """

    def __init__(self, cosines: LinkCosines, pairs: Pairs, may_join: np.ndarray, blocks: np.ndarray) -> None:
        copies = near_copies(pairs, may_join)
        alone = np.ones(len(blocks), bool)
        alone[copies] = False
        keep = may_join & alone[pairs.left] & alone[pairs.right] & (pairs.cosine < COPY)
        self._left, self._right = pairs.left[keep], pairs.right[keep]
        inside = blocks[self._left] == blocks[self._right]
        above = pairs.cosine[keep] - np.where(inside, cosines.inside, cosines.between)
        self.lowest = int(np.ceil(round((cosines.lowest - cosines.inside) / _STEP, 4)))
        self._highest = max(int((_HIGHEST - cosines.between) / _STEP), self.lowest)
        # A thousandth of a step: the cosines are float32.
        steps = np.floor(above / _STEP + 1e-3).astype(np.int64)
        self._place = np.clip(steps, self.lowest - 1, self._highest) - self.lowest + 1

    def better(self, label: np.ndarray, step: int, cost: float) -> int:
        """The step that is worth most by these clusters; `step` where none is worth noticeably more."""
        together = label[self._left] == label[self._right]
        right, wrong = self._at_least(together), self._at_least(~together)
        begin = max(step - _FURTHEST - self.lowest, 0)
        worth = (right - wrong / cost)[begin:]
        here = step - self.lowest
        if here >= len(right):
            return step
        enough = worth.max() - max(NEARLY * right[here], _CHANCE * np.sqrt(right[here]))
        if here >= begin and worth[here - begin] >= enough:
            return step
        good = np.flatnonzero(worth >= enough)
        return self.lowest + begin + int(good[-1] if right[begin] else good[0])

    def _at_least(self, these: np.ndarray) -> np.ndarray:
        """How many of these pairs lie at each step or above, from the lowest step on."""
        found = np.bincount(self._place[these], minlength=self._highest - self.lowest + 2)
        return np.cumsum(found[::-1])[::-1][1:].astype(np.float64)
