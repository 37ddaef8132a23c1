"""What `forget` took out of a dataset, revision by revision, and reading that goes on across it.

An epoch that has begun keeps its order. The places of forgotten samples are cut out of it, so what is
left is again an order of all samples there are: each remaining one comes exactly once. The next epoch
draws its order from the revision that it begins in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from shards.reading.order import EpochOrder
from shards.reading.steps import Position


class Order(Protocol):
    """A permutation of the samples of a dataset."""

    samples: int

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places, 0 to samples − 1 → numbers of the samples that stand there."""
        ...

    def place_of(self, samples: np.ndarray) -> np.ndarray:
        """The places at which these samples stand."""
        ...


@dataclass(frozen=True)
class Revision:
    """A state of the dataset that is no more: its samples, and which of them the next one lacks.

    removed  int64 [k], ascending numbers of this revision
    """

    samples: int
    removed: np.ndarray

    def __post_init__(self) -> None:
        gone = self.removed
        if gone.size and (gone[0] < 0 or gone[-1] >= self.samples or (np.diff(gone) < 1).any()):
            raise ValueError(f"removed samples must ascend within 0 to {self.samples - 1}")


class CutOrder:
    """An order without the places of some of its samples; the samples behind them move up in number.

    removed  int64 [k], ascending numbers of the samples that `order` has and this one has not
    """

    def __init__(self, order: Order, removed: np.ndarray) -> None:
        self.samples = order.samples - len(removed)
        self._order, self._removed = order, removed
        # The place that follows k removed places, counted without them, is at least _shift[k - 1].
        self._gone = np.sort(order.place_of(removed))
        self._shift = self._gone - np.arange(len(removed))

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places, 0 to samples − 1 → numbers of the samples that stand there."""
        places = np.asarray(places, np.int64)
        if places.size and (places.min() < 0 or places.max() >= self.samples):
            raise IndexError(f"places must be 0 to {self.samples - 1}")
        old = self._order(places + np.searchsorted(self._shift, places, side="right"))
        return old - np.searchsorted(self._removed, old)

    def place_of(self, samples: np.ndarray) -> np.ndarray:
        """The places at which these samples stand."""
        numbers = np.asarray(samples, np.int64)
        kept = self._removed - np.arange(len(self._removed))
        places = self._order.place_of(numbers + np.searchsorted(kept, numbers, side="right"))
        return places - np.searchsorted(self._gone, places)

    def carry(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places of the whole order → where those that are left stand in this one."""
        left = places[~np.isin(places, self._gone)]
        return left - np.searchsorted(self._gone, left)

    def consumed(self, places: int) -> int:
        """Of the first `places` places of the whole order: how many are left of them."""
        return places - int(np.searchsorted(self._gone, places))


class Revisions:
    """The history of a dataset of `samples` samples; `past` begins with revision 0."""

    def __init__(self, samples: int, past: Sequence[Revision] = ()) -> None:
        self.past = tuple(past)
        self._counts = [*(revision.samples for revision in past), samples]
        for number, revision in enumerate(self.past):
            left = revision.samples - len(revision.removed)
            if left != self._counts[number + 1]:
                raise ValueError(
                    f"revision {number} leaves {left} samples, revision {number + 1} has "
                    f"{self._counts[number + 1]}"
                )

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Revisions":
        """The history that dataset.json states. Raises ValueError where it does not add up."""
        history = about.get("history", [])
        return cls(
            about["groups"], [Revision(int(step["groups"]), from_ranges(step["removed"])) for step in history]
        )

    @property
    def current(self) -> int:
        """The number of the present revision."""
        return len(self.past)

    def samples(self, revision: int) -> int:
        """How many samples a revision had. Raises ValueError where it is not known."""
        if not 0 <= revision <= self.current:
            raise ValueError(
                f"the position is of revision {revision} of the dataset; this copy has {self.current}"
            )
        return self._counts[revision]

    def to_json(self) -> list[dict[str, Any]]:
        """`history` of dataset.json."""
        return [
            {"revision": number, "groups": step.samples, "removed": to_ranges(step.removed)}
            for number, step in enumerate(self.past)
        ]

    def map_position(self, position: Position) -> Position:
        """The same place of the epoch in the present revision.

        Raises ValueError for a position of a revision that this dataset has not had, or beyond its end.
        """
        samples = self.samples(position.revision)
        if position.began > position.revision or position.consumed > samples:
            raise ValueError(f"{position} is no place of a dataset of {samples} samples")
        if position.consumed == 0:  # nothing is read yet: the epoch begins here
            return replace(position, revision=self.current, began=self.current)
        order = self._order(position, position.revision)
        consumed = position.consumed
        for step in self.past[position.revision :]:
            order = CutOrder(order, step.removed)
            consumed = order.consumed(consumed)
        return replace(position, revision=self.current, consumed=consumed)

    def map_places(self, position: Position, places: np.ndarray) -> np.ndarray:
        """int64 [k] places of the order of a position's revision → in that of the present one, without the
        places of samples that were forgotten."""
        order = self._order(position, position.revision)
        for step in self.past[position.revision :]:
            order = CutOrder(order, step.removed)
            places = order.carry(places)
        return places

    def order(self, position: Position) -> Order:
        """The order of the epoch that a position lies in, over the samples of its revision."""
        return self._order(position, position.revision)

    def _order(self, position: Position, revision: int) -> Order:
        order: Order = EpochOrder(self.samples(position.began), position.seed, position.epoch)
        for step in self.past[position.began : revision]:
            order = CutOrder(order, step.removed)
        return order


def map_position(past: Sequence[Revision], samples: int, position: Position) -> Position:
    """A position of a training, in a dataset of which `forget` has made another revision."""
    return Revisions(samples, past).map_position(position)


def to_ranges(numbers: np.ndarray) -> str:
    """Ascending numbers as text: 3, 17, 18, 19 is "3,17-19"."""
    if not len(numbers):
        return ""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def from_ranges(text: str) -> np.ndarray:
    """int64 [k] of what `to_ranges` wrote."""
    numbers: list[np.ndarray] = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        numbers.append(np.arange(int(first), int(last or first) + 1, dtype=np.int64))
    return np.concatenate(numbers) if numbers else np.empty(0, np.int64)
