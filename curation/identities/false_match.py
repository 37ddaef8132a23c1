"""The false-match curve of an embedder on this collection, and the cosine that so many faces ask for.

Two faces of one photo are two people: their cosines are a sample of what strangers look like to the
embedder, without a label. On normal-deviate axes error rates of biometric systems lie on nearly straight
lines (Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997). So the
upper tail of the sample is fitted by a line there, and the line says what rarer matches cost.

A collage, a mirror or a second box on one body shows one person twice. Such pairs lie far above all others
and are left out: a hundredth of them would otherwise be the whole tail.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from curation.identities.exact_cosines import on_grid
from curation.identities.vectors import Vectors

_LEAST_PAIRS = 100  # fewer pairs say too little
_RANDOM_FACES = 1414  # a million pairs
# The line is fitted to this share of the largest cosines, or to a larger one that holds so many pairs: drawn
# again and again, 400 pairs then give the cosine for a rate of 5e-7 within 0.04 in nine of ten draws, where
# their upper twentieth alone is off by up to 0.12 (drawn faces, benchmarks/synthetic_faces.py) …
_TAIL, _TAIL_PAIRS, _LARGEST_TAIL = 0.05, 200, 0.5
_LEAST_ABOVE = 5  # … down to the rate at which this many pairs lie above
_POINTS = 40
_RANDOM_FROM = 20_000  # faces; below that, pairs drawn at random are too often one person
# Pairs this many spreads above the middle are one person. A normal law has 3e-7 of its values there; where
# strangers' own tail is so heavy, the line has its slope from all that lies below.
_DOUBLED = 5.0
_BELOW = 15.866  # percentile of a normal law a spread below its middle, where no doubled pair reaches


@dataclass(frozen=True)
class FalseMatchCurve:
    """P(cosine of two strangers ≥ t) = Φ(−(t − middle) / spread), in the upper tail.

    pairs   how many pairs of strangers it was measured on
    source  `one photo`: pairs of faces of one photo; `random`: pairs drawn at random
    doubled  pairs that were left out, since they are one person
    """

    middle: float
    spread: float
    pairs: int
    source: str
    doubled: int = 0

    def threshold(self, rate: float) -> float:
        """The cosine that a pair of strangers reaches with probability `rate`, at most 1."""
        return min(round(self.middle - self.spread * float(ndtri(min(max(rate, 1e-300), 0.5))), 4), 1.0)


def fit_curve(cosines: np.ndarray, source: str, least_rate: float = 0.0) -> FalseMatchCurve:
    """The curve through the upper tail of strangers' cosines; rates below `least_rate` are left out."""
    rising = np.sort(cosines.astype(np.float64))
    below, middle = np.percentile(rising, [_BELOW, 50])
    count = int(np.searchsorted(rising, middle + _DOUBLED * (middle - below), "right"))
    doubled, rising = len(rising) - count, rising[:count]
    lowest = max(_LEAST_ABOVE / count, least_rate)
    tail = min(max(_TAIL, _TAIL_PAIRS / count), _LARGEST_TAIL)
    rates = np.geomspace(tail, min(lowest, tail / 2), _POINTS)
    cuts = rising[np.clip((count * (1 - rates)).astype(np.int64), 0, count - 1)]
    spread, middle = np.polyfit(-ndtri(rates), cuts, 1)
    return FalseMatchCurve(
        round(float(middle), 6), round(max(float(spread), 1e-6), 6), count, source, doubled
    )


def measure_curve(
    strangers: np.ndarray, vectors: Vectors, photos: np.ndarray, neighbours: int
) -> FalseMatchCurve | None:
    """The curve of a collection, or None where it has too few pairs of strangers.

    strangers   cosines between two faces of one photo (`same_photo_cosines`)
    photos      int [n]: faces of one photo share a number
    neighbours  the most photos that a person is expected to have: pairs drawn at random, which stand in
                where photos hold one face each, are one person about as often as neighbours / n
    """
    if len(strangers) >= _LEAST_PAIRS:
        return fit_curve(strangers, "one photo")
    count = len(photos)
    if count < _RANDOM_FROM:
        return None
    # Faces are numbered by hashes of their photos, so any of them are as good as drawn.
    some = np.unique(np.linspace(0, count - 1, _RANDOM_FACES).astype(np.int64))
    rows = vectors.take(some)
    i, j = np.triu_indices(len(some), 1)
    apart = photos[some[i]] != photos[some[j]]
    cosines = (rows @ rows.T)[i[apart], j[apart]]
    return fit_curve(cosines, "random", 10 * neighbours / count)


def same_photo_cosines(rows: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Cosines of each face to the next one of its photo, for rows of length 1, sorted by photo.

    Not of all pairs: a crowd of n faces gives n − 1, and does not outvote the other photos.
    """
    together = np.flatnonzero(np.diff(photos) == 0)
    cosines: np.ndarray = np.einsum("ij,ij->i", on_grid(rows[together]), on_grid(rows[together + 1]))
    return cosines
