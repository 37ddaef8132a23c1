"""The cosine from which faces are joined, by the curves of strangers and of one person.

Of N pairs of faces, those with a cosine ≥ t are N · f(t) pairs of strangers and M · s(t) pairs of one person.
f is the strangers' curve (curation/identities/false_match.py), s a normal law; M, the law's mean and spread
and the steepness of f's tail are those that explain the counted pairs best. The cosine that joins is the t
where

    M · s(t) − N · f(t) / false_links

is largest: from there down, a right pair more would cost more wrong pairs than it is worth. Average linkage
takes in far fewer wrong pairs than lie above t, since most of the faces that have a stranger there have
somebody of their own who is nearer (docs/identities.md says how many).

Nothing switches: what is not seen yet counts with the weight of so many pairs, and gives way to what is. The
prior is a small embedder's tail, because it costs a good embedder next to nothing: its people lie far above.

Two curves often explain the counts as well as two others that lie elsewhere. The cosine found here is
therefore where grouping begins; what the clusters say of it is curation/identities/settling.py's.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from curation.identities.false_match import (
    LEAST_TAIL,
    FalseMatchCurve,
    fisher,
    measured_tail,
    sampled_cosines,
)
from curation.identities.search import Pairs
from curation.identities.vectors import Vectors
from curation.settings.identities import IdentitiesSettings

# The prior, in spreads of the lower half of strangers, on Fisher's scale: where their upper tail begins
# and how steep it is; how many pairs of strangers they weigh as much as; how far off the logarithm of the
# steepness may be.
_KNEE, _SLOPE = 1.2, 1.7
_WORTH = 60.0
_SLOPE_SPREAD = 0.25
_MEASURED_SPREAD = 2.0  # over the root of the pairs that a tail was measured on
# The prior of one person's pairs: the mean over embedders, and how much it differs between them.
SAME_MEAN, _SAME_SPREAD, _SAME_WEIGHT = 0.58, 0.12, 0.5
_MEANS, _SPREADS = np.arange(84, 162) / 200, np.arange(32, 69) / 400
_STEEPER = np.exp(np.arange(-10, 11) * 0.08)
COPY = 0.95  # from here on, two faces are one picture
_STEP = 0.01  # cosines at which pairs are counted …
_COUNTED = 0.75  # … up to here: what joins is decided by the lower flank of one person's pairs
_FINE = 0.005  # cosines between which t is chosen
_LARGEST = 0.9
# A count differs from what the curves say by chance, and by what the curves do not know; neighbouring counts
# hold the same pairs, so five say what one would.
_UNKNOWN, _REPEATED = 0.05, 5.0
_SHARES = (0.02, 0.25, 0.6)  # of all pairs that may be of one person, to begin with: few people, many photos
_LEAST_SAME = 0.05  # pairs of one person for each face that may always be there
_OPTIMISTIC = 10.0  # strangers whom a face meets above the cosine from which pairs are counted, …
_OPTIMISTIC_SLOPE = 1.0  # … if their tail is as steep as its lower half
FEW, _READ = 2000, 300  # of more faces, the likest pairs are read: about half as many for each face at most
_CROWD = 20_000  # of more faces, one person has no large share
NEARLY = 0.008  # of one person's pairs: of cosines that are worth nearly as much the highest is taken


@dataclass(frozen=True)
class OnePerson:
    """The curve of one person's pairs: a normal law of cosines with this mean and spread."""

    mean: float
    spread: float

    def rate(self, cosines: np.ndarray) -> np.ndarray:
        """P(cosine of two faces of one person ≥ t) for each t."""
        found: np.ndarray = ndtr((self.mean - cosines) / self.spread)
        return found


@dataclass(frozen=True)
class LinkCosines:
    """The mean cosine that joins two clusters.

    inside   of one collection
    between  of several collections
    lowest   `inside` may not be lower: no pair below was looked for, or the settings forbid it
    curve    of strangers; None: not measured
    same     of one person; None: not measured
    """

    inside: float
    between: float
    lowest: float = -1.0
    curve: FalseMatchCurve | None = None
    same: OnePerson | None = None

    @property
    def recall(self) -> float | None:
        """Share of one person's pairs that are expected at `between` or above; None: not measured."""
        return None if self.same is None else round(float(self.same.rate(np.array(self.between))), 2)

    def least(self) -> float:
        """The lower of the two: `inside`."""
        return self.inside

    def moved(self, by: float) -> "LinkCosines":
        """Both cosines higher by so much."""
        inside, between = round(self.inside + by, 4), round(self.between + by, 4)
        return replace(self, inside=inside, between=between)


@dataclass(frozen=True)
class _Explained:
    """The curves that explain the counted pairs; `error` is how badly."""

    strangers: FalseMatchCurve
    pairs: float
    same: OnePerson
    error: float


class LinkEvidence:
    """What is known of a collection's cosines before its pairs are looked for.

    strangers  cosines between two faces of one photo, of any number of pairs
    """

    def __init__(self, strangers: np.ndarray, vectors: Vectors, photos: np.ndarray) -> None:
        self._faces = len(photos)
        sample = fisher(sampled_cosines(vectors, photos))
        self._sample = sample if len(sample) else np.zeros(1)  # all faces are on one photo
        self._tail = measured_tail(strangers)

    def floor(self) -> float:
        """The cosine from which pairs are counted: all that may be joined lie above."""
        many = self._faces > FEW
        share = _SHARES[0] if self._faces > _CROWD else _SHARES[1] if many else _SHARES[-1]
        lowest = self._prior(share, _OPTIMISTIC_SLOPE).threshold(_OPTIMISTIC / self._faces)
        if many:
            crowded = np.quantile(self._sample, 1 - _READ / self._faces)
            lowest = max(lowest, float(np.tanh(crowded)))
        else:  # where one person has most of the faces, the quantiles are no stranger's
            lowest = min(lowest, SAME_MEAN - 2 * _SAME_SPREAD)
        return min(max(round(lowest, 2), 0.0), _LARGEST - 0.1)

    def weigh(
        self,
        pairs: Pairs,
        photos: np.ndarray,
        blocks: np.ndarray,
        fresh: np.ndarray | None,
        floor: float,
        settings: IdentitiesSettings,
    ) -> LinkCosines:
        """The cosines that join; never below `link_cosine` and `merge_cosine`.

        pairs  all with a cosine ≥ `floor` that the search found
        """
        cost = settings.false_links
        assert cost is not None
        least = max(settings.link_cosine, settings.merge_cosine)
        apart = photos[pairs.left] != photos[pairs.right]
        copies = near_copies(pairs, apart)
        if len(copies):
            alone = np.ones(self._faces, bool)
            alone[copies] = False
            apart &= alone[pairs.left] & alone[pairs.right]
            fresh = alone if fresh is None else fresh & alone
        cosine = np.sort(pairs.cosine[apart])
        at = np.arange(round(floor / _STEP), round(max(_COUNTED, floor + 0.1) / _STEP)) * _STEP
        compared = _compared(self._faces - len(copies), fresh)
        best = self._explain(at, _counts(cosine, at), compared)

        def chosen(right: float, wrong: float) -> float:
            fine = np.arange(round(floor / _FINE), round(_LARGEST / _FINE) + 1) * _FINE
            worth = right * best.same.rate(fine)
            worth -= wrong * best.strangers.rate(fine) / cost
            enough = np.flatnonzero(worth >= worth.max() - NEARLY * right)
            return max(round(float(fine[enough[-1]]), 4), least)

        between = inside = chosen(best.pairs, compared)
        if blocks.max(initial=0) > 0:
            same = blocks[pairs.left] == blocks[pairs.right]
            within = _compared_inside(blocks, fresh)
            for mine in (True, False):
                wrong = within if mine else compared - within
                counted = _counts(np.sort(pairs.cosine[apart & (same == mine)]), at)
                right = _least_squares(counted - wrong * best.strangers.rate(at), counted, at, best)
                found = chosen(max(right, _LEAST_SAME * self._faces), wrong)
                inside, between = (found, between) if mine else (inside, found)
            inside = min(inside, between)
        return LinkCosines(inside, between, max(floor, least), best.strangers, best.same)

    def _measured(self) -> float:
        """What the measured tail weighs: the smallest that is looked at, nothing yet."""
        return 0.0 if self._tail is None else float(self._tail.pairs - LEAST_TAIL + 1)

    def _prior(self, share: float, steep: float) -> FalseMatchCurve:
        """Strangers' curve before any pair is counted, where `share` of all pairs is of one person."""
        ranks = np.array([0.15866, 0.5]) * (1 - share)
        low, middle = np.quantile(self._sample, ranks)
        below = max(float(middle - low), 1e-3)
        parts = [(_WORTH, float(middle), float(middle) + _KNEE * below)]
        if self._tail is not None:
            parts.append((self._measured(), self._tail.middle, self._tail.knee))
        whole = sum(weight for weight, _, _ in parts)
        centre = sum(weight * value for weight, value, _ in parts) / whole
        knee = sum(weight * value for weight, _, value in parts) / whole
        pairs, doubled = (0, 0) if self._tail is None else (self._tail.pairs, self._tail.doubled)
        return FalseMatchCurve(centre, max(knee, centre + 1e-3), steep * below, pairs, doubled)

    def _explain(self, at: np.ndarray, counted: np.ndarray, compared: float) -> _Explained:
        """The best of several beginnings: where one person has most photos, the median is no stranger's."""
        best: _Explained | None = None
        for share in _SHARES:
            for _ in range(2):
                found = self._fit(at, counted, compared, share)
                share = min(found.pairs / compared, _SHARES[-1])
                best = found if best is None or found.error < best.error else best
        assert best is not None
        return best

    def _fit(self, at: np.ndarray, counted: np.ndarray, compared: float, share: float) -> _Explained:
        prior = self._prior(share, _SLOPE)
        weight = 1 / (counted + (_UNKNOWN * counted) ** 2 + 2) / _REPEATED
        above = ndtr((_MEANS[:, None, None] - at) / _SPREADS[:, None])
        best: _Explained | None = None
        for steeper in _STEEPER:
            curve = prior.steeper(float(steeper))
            rest = counted - compared * (curve.rate(at) - curve.rate(np.array([COPY])))
            along, lengths = (above * (rest * weight)).sum(-1), (above**2 * weight).sum(-1)
            pairs = np.maximum(along / lengths, _LEAST_SAME * self._faces)
            error = (rest**2 * weight).sum() - 2 * pairs * along + pairs**2 * lengths
            error += _SAME_WEIGHT * ((_MEANS[:, None] - SAME_MEAN) / _SAME_SPREAD) ** 2
            error += (np.log(steeper) / _SLOPE_SPREAD) ** 2
            if self._tail is not None:
                spread = _MEASURED_SPREAD / np.sqrt(self._measured())
                error += (np.log(curve.slope / self._tail.slope) / spread) ** 2
            i, j = np.unravel_index(int(np.argmin(np.round(error, 9))), error.shape)
            if best is None or float(error[i, j]) < best.error:
                same = OnePerson(float(_MEANS[i]), float(_SPREADS[j]))
                best = _Explained(curve, float(pairs[i, j]), same, float(error[i, j]))
        assert best is not None
        return best


def near_copies(pairs: Pairs, apart: np.ndarray) -> np.ndarray:
    """Faces that are one picture with an earlier face: they say nothing that it does not say.

    apart  bool [pairs]: of two photos
    """
    return np.unique(pairs.right[apart & (pairs.cosine >= COPY)])


def fixed_cosines(settings: IdentitiesSettings) -> LinkCosines:
    """Those of the settings: nothing is measured."""
    least = max(settings.link_cosine, settings.merge_cosine)
    return LinkCosines(least, least, least)


def _least_squares(rest: np.ndarray, counted: np.ndarray, at: np.ndarray, law: _Explained) -> float:
    weight = 1 / (counted + (_UNKNOWN * counted) ** 2 + 2)
    above = law.same.rate(at)
    return float((above * rest * weight).sum() / (above**2 * weight).sum())


def _counts(rising: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How many cosines lie at each value or above; those of near copies are left out."""
    copies = len(rising) - np.searchsorted(rising, COPY)
    return np.maximum(len(rising) - np.searchsorted(rising, at) - copies, 0).astype(np.float64)


def _compared(faces: int, fresh: np.ndarray | None) -> float:
    """Pairs of faces that are compared."""
    new = faces if fresh is None else int(fresh.sum())
    return max(new * (new - 1) / 2 + new * (faces - new), 1.0)


def _compared_inside(blocks: np.ndarray, fresh: np.ndarray | None) -> float:
    sizes = np.bincount(blocks)
    new = sizes if fresh is None else np.bincount(blocks[fresh], minlength=len(sizes))
    return float((new * (new - 1) / 2 + new * (sizes - new)).sum())
