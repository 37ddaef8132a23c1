"""What strangers look like to an embedder on this collection: the rate at which their cosines reach a value.

Two faces of one photo are two people: their cosines are a sample of strangers, without a label. On
normal-deviate axes error rates of biometric systems lie on nearly straight lines (Martin et al., "The DET
curve in assessment of detection task performance", Eurospeech 1997); a small embedder's do so on Fisher's
scale, arctanh of the cosine, which does not run past 1 (drawn faces, benchmarks/synthetic_faces.py). The line
through the upper tail says what rarer matches cost.

A collage, a mirror or a second box on one body shows one person twice. Such pairs lie far above all others
and are left out: a hundredth of them would otherwise be the whole tail.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri

from curation.identities.exact_cosines import on_grid
from curation.identities.vectors import Vectors

LEAST_TAIL = 20  # pairs; the tail of fewer is not looked at
# The line is fitted to this share of the largest cosines, or to a larger one that holds so many pairs …
_TAIL, _TAIL_PAIRS, _LARGEST_TAIL = 0.02, 100, 0.5
_LEAST_ABOVE = 5  # … down to the rate at which this many pairs lie above
_POINTS = 40
_SAMPLED_FACES = 1414  # a million pairs
# Pairs this many spreads above the middle are one person. A small embedder's strangers reach six once in
# 20,000 pairs; where strangers' own tail is heavier, the line has its slope from all that lies below.
_DOUBLED = 8.0
_BELOW = 15.866  # percentile of a normal law a spread below its middle, where no doubled pair reaches
_MOST = 0.999  # cosine, whose arctanh is finite


@dataclass(frozen=True)
class FalseMatchCurve:
    """P(cosine of two strangers ≥ t) = Φ(−z), z a broken line through arctanh t.

    middle  arctanh of the cosine at z = 0, the median
    knee    at z = 1
    slope   how much arctanh grows with each z above 1
    pairs, doubled  measured on how many pairs of one photo; how many more were left out as one person
    """

    middle: float
    knee: float
    slope: float
    pairs: int = 0
    doubled: int = 0

    def rate(self, cosines: np.ndarray) -> np.ndarray:
        """P for each cosine; at most a half."""
        x = fisher(cosines)
        below = np.maximum((x - self.middle) / (self.knee - self.middle), 0.0)
        found: np.ndarray = ndtr(-np.where(x < self.knee, below, 1 + (x - self.knee) / self.slope))
        return found

    def threshold(self, rate: float) -> float:
        """The cosine that a pair of strangers reaches with probability `rate`, at most 1."""
        z = -float(ndtri(min(max(rate, 1e-300), 0.5)))
        if z < 1:
            return round(float(np.tanh(self.middle + z * (self.knee - self.middle))), 4)
        return round(float(np.tanh(self.knee + (z - 1) * self.slope)), 4)

    def steeper(self, times: float) -> "FalseMatchCurve":
        """The curve with another slope."""
        return replace(self, slope=self.slope * times)


def fisher(cosines: np.ndarray) -> np.ndarray:
    """Fisher's z: arctanh, on which the spread of a correlation hardly depends on its size."""
    found: np.ndarray = np.arctanh(np.clip(np.asarray(cosines, np.float64), -_MOST, _MOST))
    return found


def measured_tail(strangers: np.ndarray) -> FalseMatchCurve | None:
    """The curve of a sample of strangers, or None where it is too small to have a tail."""
    rising = np.sort(fisher(strangers))
    if len(rising) < LEAST_TAIL:
        return None
    below, middle = np.percentile(rising, [_BELOW, 50])
    count = int(np.searchsorted(rising, middle + _DOUBLED * (middle - below), "right"))
    doubled, rising = len(rising) - count, rising[:count]
    if count < LEAST_TAIL:
        return None
    tail = min(max(_TAIL, _TAIL_PAIRS / count), _LARGEST_TAIL)
    rates = np.geomspace(tail, min(_LEAST_ABOVE / count, tail / 2), _POINTS)
    cuts = rising[np.clip((count * (1 - rates)).astype(np.int64), 0, count - 1)]
    z = -ndtri(rates)
    slope = float(((z - z.mean()) * (cuts - cuts.mean())).sum() / ((z - z.mean()) ** 2).sum())
    slope = max(slope, 0.01)
    knee = float(cuts.mean() - (z.mean() - 1) * slope)
    middle = float(np.median(rising))
    return FalseMatchCurve(middle, max(knee, middle + 0.01), slope, count, doubled)


def sampled_cosines(vectors: Vectors, photos: np.ndarray) -> np.ndarray:
    """Cosines of up to a million pairs of faces of different photos, ascending.

    photos  int [n]: faces of one photo share a number. Faces are numbered by hashes of their photos, so any
            of them are as good as drawn.
    """
    some = np.unique(np.linspace(0, len(photos) - 1, _SAMPLED_FACES).astype(np.int64))
    rows = vectors.take(some)
    i, j = np.triu_indices(len(some), 1)
    apart = photos[some[i]] != photos[some[j]]
    return np.sort((rows @ rows.T)[i[apart], j[apart]])


def same_photo_cosines(rows: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Cosines of each face to the next one of its photo, for rows of length 1, sorted by photo.

    Not of all pairs: a crowd of n faces gives n − 1, and does not outvote the other photos.
    """
    together = np.flatnonzero(np.diff(photos) == 0)
    cosines: np.ndarray = np.einsum("ij,ij->i", on_grid(rows[together]), on_grid(rows[together + 1]))
    return cosines
