"""How many photos, people, groups and pairs a collection will give: from its sample, with bounds.

Each number is what the sample has, and what is expected of the photos that were not drawn. Two kinds are told
apart. What is ruled photo by photo grows with the photos: their decisions are drawn again with replacement
(bootstrap). Copies, identities and all behind them depend on who meets whom: `cluster_sizes` says how often
that is. To both, the chance of the photos not drawn is added. A sample that is the whole collection is
expected to give what it gave.
"""

from dataclasses import dataclass

import numpy as np

from curation.identities.phase import Identity
from curation.ledger import KEPT, REJECTED
from curation.photos.copies import Copies
from curation.photos.screen import Screen
from curation.plan.cluster_sizes import ClusterSizes, Value, draw_sizes
from curation.plan.outfit_yield import (
    QUANTITIES,
    JudgedPerson,
    OutfitYield,
    PaperYield,
    PartitionYield,
    observed,
    value_of,
)
from curation.plan.sample_run import BEFORE_COPIES, SampleRun
from curation.settings.outfits import OutfitsSettings, PaperStrategy

DRAWS = 1000
_LOW, _HIGH = 5, 95  # percentiles


@dataclass(frozen=True)
class Expected:
    """A number that is expected: the median of draws; `low` and `high` bound the middle 90 % of them."""

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: np.ndarray | float) -> "Expected":
        """From draws, or from a number that is known."""
        values = np.atleast_1d(np.asarray(draws, float))
        low, middle, high = np.percentile(values, [_LOW, 50, _HIGH])
        return cls(float(middle), float(low), float(high))

    def to_json(self, digits: int = 0) -> dict[str, float]:
        """Rounded: whole numbers for digits = 0."""
        values = {"expected": self.expected, "low": self.low, "high": self.high}
        return {key: round(value, digits) if digits else round(value) for key, value in values.items()}


@dataclass(frozen=True)
class Counts:
    """Draws of everything that is counted. `ways` as in SampleRun, summed over the collection."""

    photos: float
    passed: np.ndarray
    ways: dict[tuple[str, str], np.ndarray]
    persons: np.ndarray
    outfits: dict[str, np.ndarray]
    """By the names of `QUANTITIES`."""
    packed: dict[str, np.ndarray]
    """`groups`, `kept` (photos), `pairs`: after the photos of each group were selected."""


def expect_counts(
    sample: SampleRun, collection: float, settings: OutfitsSettings, draws: int, seed: int
) -> Counts:
    """`collection`: how many photos there are. `seed` makes the bounds repeatable."""
    random = np.random.Generator(np.random.Philox(seed))
    share = min(sample.photos / collection, 1.0)
    photos = _Photos(np.ones(sample.photos, bool), np.full(draws, collection), random)
    ways = {key: photos.expect(values) for key, values in sample.ways.items() if key[0] in BEFORE_COPIES[:2]}
    screened = ways.get((Screen.name, KEPT), np.zeros(draws))
    copies = _copies(sample, screened, share, random)
    ways[Copies.name, KEPT], ways[Copies.name, REJECTED] = screened - copies, copies
    later = _Photos(sample.passed, screened - copies, random)
    for key, values in sample.ways.items():
        if key[0] not in BEFORE_COPIES:
            ways[key] = later.expect(values)
    persons = ways.get((Identity.name, KEPT), np.zeros(draws))
    outfits = _outfits(sample, persons, settings, random)
    packed = {name: outfits[name] * _packed(sample, name) for name in ("groups", "kept", "pairs")}
    return Counts(collection, screened - copies, ways, persons, outfits, packed)


class _Photos:
    """What is ruled photo by photo: of the photos chosen in the sample, `total` (draws) are expected."""

    def __init__(self, chosen: np.ndarray, total: np.ndarray, random: np.random.Generator) -> None:
        self._chosen = chosen
        self._count = int(chosen.sum())
        self._behind = np.maximum(total - self._count, 0)
        self._random = random
        each = np.full(self._count, 1 / max(self._count, 1))
        self._weights = random.multinomial(self._count, each, len(total)) / max(self._count, 1)

    def expect(self, values: np.ndarray) -> np.ndarray:
        """Draws of the sum of a value over all photos, never below what was seen."""
        chosen = values[self._chosen]
        if not self._count:
            return np.zeros(len(self._behind))
        rate = self._weights @ chosen
        chance = np.sqrt(self._behind * chosen.var()) * self._random.standard_normal(len(rate))
        return np.asarray(chosen.sum() + np.maximum(self._behind * rate + chance, 0))


def _copies(sample: SampleRun, screened: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Photos that are copies of another: those beyond the first of each family."""
    sizes = draw_sizes(sample.families, share, len(screened), random)
    seen = int((sample.families - 1).sum())
    photos = int(sample.families.sum())
    return _grown(seen, photos, screened, sizes, lambda draws, m: m - 1.0, random)


def _outfits(
    sample: SampleRun, persons: np.ndarray, settings: OutfitsSettings, random: np.random.Generator
) -> dict[str, np.ndarray]:
    photos = sum(person.photos for person in sample.people)
    share = min(photos / max(float(np.median(persons)), 1e-9), 1.0)
    sizes = draw_sizes(np.array([person.photos for person in sample.people]), share, len(persons), random)
    found = _yield_of(sample.people, settings, len(persons), random)
    return {
        name: _grown(observed(sample.people, name), photos, persons, sizes, value_of(found, name), random)
        for name in QUANTITIES
    }


def _packed(sample: SampleRun, name: str) -> float:
    """The share of a quantity that is left after selection, as in the sample."""
    before = observed(sample.people, name)
    after = observed([JudgedPerson(0, 0, (size,)) for size in sample.packed], name)
    return after / before if before else 1.0


def _yield_of(
    people: list[JudgedPerson], settings: OutfitsSettings, draws: int, random: np.random.Generator
) -> OutfitYield:
    kind = PaperYield if isinstance(settings.strategy, PaperStrategy) else PartitionYield
    return kind(people, settings.min_photos, draws, random)


def _grown(
    seen: float,
    photos: int,
    total: np.ndarray,
    sizes: ClusterSizes,
    value: Value,
    random: np.random.Generator,
) -> np.ndarray:
    """What is seen in the sample's photos, and what the sizes say is behind it in the `total`.

    The chance is that of every cluster but those that lie in the sample whole: where a photo is added to a
    person, other pairs are asked about first.
    """
    behind = total * sizes.per_photo(value, 1.0) - photos * sizes.per_photo(value, sizes.share)
    squares = sizes.per_photo(lambda draws, m: value(draws, m) ** 2 * (1 - sizes.share**m), 1.0)
    chance = np.sqrt(total * squares) * random.standard_normal(len(total))
    return np.asarray(np.maximum(seen + behind + chance, 0))
