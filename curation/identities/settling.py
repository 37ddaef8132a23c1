"""The linking cosine, settled by the clusters that it makes.

The counts of pairs alone do not say which of them are of strangers; a clustering does. Of the pairs at a
cosine t or above, those that lie inside a cluster are right(t), nearly all of one person, and those that
lie across two clusters are nearly all of strangers (at the cosine found, 80 to 100 in 100 are; drawn faces):
a stranger has a face near one of a cluster and far from its others, and average linkage asks for the mean.
strangers(t) is how many of these pairs a face has on average. So faces are grouped at a first cosine, the t
is looked for where

    right(t) · (1 − strangers(t) / (4.5 · false_links))

is largest, and they are grouped there, until the cosine stays; then the next lower one is tried, as long as
its own clusters ask for none higher. No label is needed and no curve is assumed.

What endangers a face is the strangers who are near that one face, and a mixed cluster costs the right pairs
of its faces. A fixed price for each wrong pair (two for one, as it was) took no account of either: among more
people a face has fewer right pairs above the cosine, so the same price asked for ever fewer strangers a face
and parted people whom nobody stood between.

All this holds for faces that have somebody of their own, who is nearer than the stranger. A face of a
person who was seen once has nobody: it joins the stranger, or the stranger's whole cluster, and pairs that
joined are no longer among those across. So the settled cosine is raised until such joins are bearable. How
many have nobody shows in the strangers that are near and did not join: a is the share of these faces that are
in no cluster, l that of all faces. Who is alone because the person's other photos are not like enough is like
no stranger either, so a / l is small there. In drawn collections a² / l is 0.03 to 0.05 where nobody was seen
once, 0.08 where half of the people were, 0.26 to 0.45 where 95 in 100 were; and for each pair of strangers at
t or above there are 6 · (a² / l − 0.05) wrong pairs, within a factor of two and a half.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from curation.identities.linking import COPY, FEW, NEARLY, SAME_MEAN, LinkCosines, near_copies
from curation.identities.search import Pairs

Grouped = TypeVar("Grouped")

_STEP = 0.01
_FURTHEST = 10  # steps down at once: what lies far below was not open to the clusters at hand
_ROUNDS = 16  # no collection that we drew needed more than twelve
_BEARABLE = 4.5  # strangers at which nothing is worth joining: ours, docs/identities.md says what others cost
_CHANCE = 0.15  # ours: of the deviation of a count, what says nothing; of some hundred pairs more than NEARLY
_PRIOR_SHARE = 0.5  # ours: of few faces, what embedders show on average counts as much as the curves
_NEAR = 8  # steps below a cosine, from which on strangers are near: at it, who has nobody has joined
_WRONG_PAIRS, _NOBODY_ALONE = 6.0, 0.05  # see above: drawn collections
_LOST = 0.05  # pairs of one person across clusters for each one inside: 0.01 to 0.08 in drawn collections
_UNPROTECTED = 0.01  # of all pairs in clusters, those that may be wrong because a face has nobody: ours
_RISES = 6  # the higher the cosine, the more faces look as if they had nobody: so no more than these
_EXPECTED = 1.0  # pair of strangers that may lie above a first cosine
_HIGHEST = 0.95


def settle(
    cosines: LinkCosines,
    pairs: Pairs,
    may_join: np.ndarray,
    blocks: np.ndarray,
    looking: np.ndarray,
    false_links: float,
    group: Callable[[LinkCosines], tuple[np.ndarray, Grouped]],
) -> tuple[LinkCosines, Grouped]:
    """The cosines that the clusters confirm, and what `group` made at them.

    cosines   from the curves
    pairs     every pair from `cosines.lowest` on
    may_join  bool [pairs]: nothing forbids that the two faces are linked
    blocks    int [n]: the collection of each face
    looking   bool [n]: good enough to link, and not linked before
    group     cosines → (int [n]: the cluster of each face, anything)
    """
    counted = _Counted(cosines, pairs, may_join, blocks, looking)
    # Of few faces the curves know little. Too low, all would be one cluster, which contradicts nothing; too
    # high, each face would be alone, and each pair of one person would speak against its own cosine.
    begin = 0 if len(blocks) > FEW else int(np.ceil((_first(cosines, len(blocks)) - cosines.inside) / _STEP))
    step = max(begin, counted.lowest)
    tried: set[int] = set()

    def grouped(step: int) -> tuple[_Worth, _Made[Grouped]]:
        at = cosines.moved(step * _STEP)
        label, other = group(at)
        tried.add(step)
        return counted.worth(label, step, _BEARABLE * false_links), _Made(at, label, other)

    worth, made = grouped(step)
    while worth.best != step and len(tried) < _ROUNDS:
        if worth.best in tried:  # back and forth: the higher one, splits before merges
            if worth.best > step:
                step = worth.best
                _, made = grouped(step)
            break
        step = worth.best
        worth, made = grouped(step)
    # Come to from above, a cosine is confirmed too early: what would join below it is in no cluster yet. So
    # the next lower one is tried, as long as its own clusters gain by it and ask for none higher.
    while step > counted.lowest and step - 1 not in tried and len(tried) < _ROUNDS:
        worth, lower = grouped(step - 1)
        if worth.best >= step or not worth.gains:
            break
        step, made = step - 1, lower
    for _ in range(_RISES):
        higher = counted.raised(made.label, step, _UNPROTECTED * false_links)
        if higher == step:
            break
        step = higher
        _, made = grouped(step)
    return made.at, made.other


def _first(cosines: LinkCosines, faces: int) -> float:
    """The first cosine of few faces: half of the way to the prior's, and no higher than strangers reach."""
    way = cosines.inside + _PRIOR_SHARE * (SAME_MEAN - cosines.inside)
    assert cosines.curve is not None
    return min(way, cosines.curve.threshold(_EXPECTED / (faces * (faces - 1) / 2)))


@dataclass(frozen=True)
class _Made(Generic[Grouped]):
    """What `group` made at some cosines."""

    at: LinkCosines
    label: np.ndarray
    other: Grouped


@dataclass(frozen=True)
class _Worth:
    """What clusters say of the cosine that they were made at.

    best   the step that is worth most; this one where none is worth noticeably more
    gains  it has noticeably more right pairs than the next higher one
    """

    best: int
    gains: bool


class _Counted:
    """Pairs that may be linked, by how many steps they lie above the first cosines.

    lowest  the step that those may not go below
    """

    def __init__(
        self,
        cosines: LinkCosines,
        pairs: Pairs,
        may_join: np.ndarray,
        blocks: np.ndarray,
        looking: np.ndarray,
    ) -> None:
        copies = near_copies(pairs, may_join)
        alone = np.ones(len(blocks), bool)
        alone[copies] = False
        keep = may_join & alone[pairs.left] & alone[pairs.right] & (pairs.cosine < COPY)
        self._left, self._right = pairs.left[keep], pairs.right[keep]
        self._copy, self._looking = ~alone, looking & alone
        self._faces = max(int(self._looking.sum()), 1)
        self._ends = self._looking[self._left].astype(np.int64) + self._looking[self._right]
        inside = blocks[self._left] == blocks[self._right]
        above = pairs.cosine[keep] - np.where(inside, cosines.inside, cosines.between)
        self.lowest = int(np.ceil(round((cosines.lowest - cosines.inside) / _STEP, 4)))
        self._highest = max(int((_HIGHEST - cosines.between) / _STEP), self.lowest)
        # A thousandth of a step: the cosines are float32.
        steps = np.floor(above / _STEP + 1e-3).astype(np.int64)
        self._place = np.clip(steps, self.lowest - 1, self._highest) - self.lowest + 1

    def worth(self, label: np.ndarray, step: int, bearable: float) -> _Worth:
        """What the steps are worth by these clusters, which were made at `step`."""
        together = label[self._left] == label[self._right]
        right = self._at_least(together.astype(np.int64))
        strangers = self._at_least(np.where(together, 0, self._ends)) / self._faces
        begin = max(step - _FURTHEST - self.lowest, 0)
        worth = (right * (1 - strangers / bearable))[begin:]
        here = step - self.lowest
        if here >= len(right):
            return _Worth(step, False)
        noticed = max(NEARLY * right[here], _CHANCE * np.sqrt(right[here]))
        gains = begin <= here < len(right) - 1 and right[here] > right[here + 1] + noticed
        enough = worth.max() - noticed
        if here >= begin and worth[here - begin] >= enough:
            return _Worth(step, gains)
        good = np.flatnonzero(worth >= enough)
        return _Worth(self.lowest + begin + int(good[-1] if right[begin] else good[0]), gains)

    def raised(self, label: np.ndarray, step: int, most: float) -> int:
        """The lowest step from `step` on where a share of `most` or less is wrong as faces have nobody.

        By clusters made at `step`; where no higher one is bearable either, it stays.
        """
        together = label[self._left] == label[self._right]
        sizes = np.bincount(label, ~self._copy, minlength=len(label))
        alone = sizes[label] <= 1
        right = self._at_least(together.astype(np.int64))
        across = self._at_least((~together).astype(np.int64))
        ends = alone[self._left].astype(np.int64) + alone[self._right]
        near = np.maximum(np.arange(len(across)) - _NEAR, 0)
        share = self._at_least(np.where(together, 0, ends))[near] / np.maximum(2 * across[near], 1)
        everywhere = max(int((alone & self._looking).sum()), 1) / self._faces
        nobody = np.maximum(share**2 / everywhere - _NOBODY_ALONE, 0)
        wrong = _WRONG_PAIRS * nobody * np.maximum(across - _LOST * right, 0)
        new = np.bincount(label, self._looking, minlength=len(label))
        here = min(step - self.lowest, len(right) - 1)
        # A higher cosine takes as large a part of the pairs in clusters as of those of them that reach it.
        pairs = float((new * (sizes - (new + 1) / 2)).sum()) * right / max(right[here], 1)
        bearable = np.flatnonzero(wrong[here:] <= most * pairs[here:])
        return step + (int(bearable[0]) if len(bearable) else 0)

    def _at_least(self, counts: np.ndarray) -> np.ndarray:
        """The sum of the pairs' counts at each step or above, from the lowest step on."""
        found = np.bincount(self._place, counts, minlength=self._highest - self.lowest + 2)
        return np.cumsum(found[::-1])[::-1][1:]
