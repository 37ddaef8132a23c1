"""What becomes of a person with m photos: questions to the judge, groups, photos kept, pairs.

Any two photos of a person are as good as any other two, so rates of the sample hold for people of whom the
collection has more photos than the sample.

Strategy `paper`: the first pair is the same with probability a; then each further photo is kept with
probability b, after c questions. Other strategies: the photos of a person fall into outfits as in Ewens'
partition (two of them share one with probability s = 1 / (1 + θ)), and questions go with photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from curation.plan.cluster_sizes import Value


@dataclass(frozen=True)
class JudgedPerson:
    """One identity of the sample: its photos, the questions asked, the sizes of its kept groups."""

    photos: int
    asked: int
    groups: tuple[int, ...]


class PaperYield:
    """Draws of a, b and c, from people drawn again with replacement."""

    def __init__(
        self, people: Sequence[JudgedPerson], min_photos: int, draws: int, random: np.random.Generator
    ) -> None:
        judged = [person for person in people if person.photos >= max(min_photos, 2) and person.asked]
        same = [person for person in judged if person.asked > 1 or person.groups]
        self._least = min_photos
        weights = random.poisson(1, (draws, len(judged)))
        is_judged = np.array([bool(p.groups) or p.asked > 1 for p in judged], float)
        self._a = _share(weights @ is_judged, weights.sum(1))
        later = random.poisson(1, (draws, len(same)))
        further = later @ np.array([p.photos - 2 for p in same], float)
        kept = np.array([max(sum(p.groups) - 2, 0) for p in same], float)
        self._b = _share(later @ kept, further)
        # People differ in how many outfits they wear: two further photos are kept more often than b².
        possible = later @ np.array([(p.photos - 2) * (p.photos - 3) for p in same], float)
        self._both = (later @ (kept * (kept - 1)) + self._b**2) / (possible + 1)
        asked = later @ np.array([max(p.asked - 1, 0) for p in same], float)
        self._c = (asked + 1) / (further + 1)

    def identities(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """One."""
        return np.ones(len(m))

    def asked(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Questions to the judge."""
        return np.asarray(
            (m >= self._least) * (1 + self._a[draws, None] * self._c[draws, None] * np.maximum(m - 2, 0))
        )

    def groups(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Kept groups."""
        enough: Any = 1.0
        if self._least > 2:
            enough = binom.sf(self._least - 3, np.maximum(m - 2, 0), self._b[draws, None])
        return np.asarray((m >= self._least) * self._a[draws, None] * enough)

    def kept(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Photos in kept groups."""
        return np.asarray(self.groups(draws, m) * (2 + self._b[draws, None] * np.maximum(m - 2, 0)))

    def pairs(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Pairs of photos inside groups: (2 + k)(1 + k) / 2 of a group of 2 + k."""
        further, b = np.maximum(m - 2, 0), self._b[draws, None]
        two_further = further * (further - 1) * self._both[draws, None]
        return np.asarray(self.groups(draws, m) * (two_further + 4 * further * b + 2) / 2)


class PartitionYield:
    """Draws of θ, from people drawn again with replacement."""

    def __init__(
        self, people: Sequence[JudgedPerson], min_photos: int, draws: int, random: np.random.Generator
    ) -> None:
        several = [person for person in people if person.photos >= 2]
        weights = random.poisson(1, (draws, len(several)))
        inside = np.array([sum(g * (g - 1) / 2 for g in p.groups) for p in several], float)
        possible = np.array([p.photos * (p.photos - 1) / 2 for p in several], float)
        same = np.clip(_share(weights @ inside, weights @ possible), 1e-3, 1 - 1e-3)
        self._theta = (1 - same) / same
        self._least = min_photos
        asked, photos = (
            weights @ np.array(values, float)
            for values in ([p.asked for p in several], [p.photos for p in several])
        )
        self._asked = asked / np.maximum(photos, 1)

    def identities(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """One."""
        return np.ones(len(m))

    def asked(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Questions to the judge."""
        return np.asarray((m >= self._least) * m * self._asked[draws, None])

    def groups(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Kept groups: all outfits but those of too few photos."""
        theta = self._theta[draws, None]
        outfits = np.cumsum(theta / (theta + np.arange(m.max())), axis=1)[:, m - 1]
        return np.asarray(np.maximum(outfits - sum(self._of_size(k, draws, m) for k in self._small()), 0))

    def kept(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Photos in kept groups."""
        return np.asarray(np.maximum(m - sum(k * self._of_size(k, draws, m) for k in self._small()), 0))

    def pairs(self, draws: slice, m: np.ndarray) -> np.ndarray:
        """Pairs of photos inside groups."""
        lost = sum(k * (k - 1) / 2 * self._of_size(k, draws, m) for k in self._small())
        return np.asarray(np.maximum(m * (m - 1) / 2 / (1 + self._theta[draws, None]) - lost, 0))

    def _small(self) -> range:
        return range(1, self._least)

    def _of_size(self, k: int, draws: slice, m: np.ndarray) -> np.ndarray:
        """Expected number of outfits of k photos in Ewens' partition of m photos."""
        theta = self._theta[draws, None]
        rest = np.maximum(m - k, 0)
        logs = gammaln(m + 1) - gammaln(rest + 1) + gammaln(theta + rest) - gammaln(theta + m)
        return np.where(m >= k, theta / k * np.exp(logs), 0.0)


OutfitYield = PaperYield | PartitionYield
QUANTITIES = ("identities", "asked", "groups", "kept", "pairs")


def value_of(found: OutfitYield, quantity: str) -> Value:
    """The function of one of QUANTITIES."""
    value: Value = getattr(found, quantity)
    return value


def observed(people: Sequence[JudgedPerson], quantity: str) -> float:
    """The same quantity as the sample has it."""
    if quantity == "identities":
        return len(people)
    if quantity == "asked":
        return sum(person.asked for person in people)
    sizes = [size for person in people for size in person.groups]
    if quantity == "groups":
        return len(sizes)
    return sum(sizes) if quantity == "kept" else sum(size * (size - 1) / 2 for size in sizes)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Half a case is added to either side, so that none of none is a half."""
    return np.asarray((part + 0.5) / (whole + 1.0))
