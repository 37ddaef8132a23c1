"""One pass through a source: which samples stand at its places, and how each of them is read."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from shards.reading.plan import Position
from shards.reading.revisions import Revisions


class Source(Protocol):
    """Samples by number. One that does more than that says so by the protocols below."""

    def __len__(self) -> int: ...

    def read(self, sample: int) -> Any:
        """What a decoder takes. Raises OSError or ValueError where it cannot be read."""
        ...


class Epoch(Protocol):
    """What a Loader reads from. `position` is where it begins, `samples` the places of the whole pass."""

    position: Position
    samples: int

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places, 0 to samples − 1 → numbers, as `read` takes them."""
        ...

    def read(self, number: int) -> Any:
        """What a decoder takes. Called from several threads at a time."""
        ...

    def prefetch(self, numbers: np.ndarray) -> None:
        """Says what will be read soon, in this order."""
        ...


@runtime_checkable
class HasRuns(Protocol):
    """An Epoch whose samples come in runs of one kind: a batch lies in one run, and each kind has a decoder
    of its own.

    ends   int64 [runs], ascending: the place behind each run
    """

    ends: np.ndarray

    def kind(self, place: int) -> int:
        """Of the sample at a place: which decoder."""
        ...


@runtime_checkable
class HasEpochs(Protocol):
    """A source that has an order of its own, or reads other things in each epoch."""

    def epoch(self, position: Position) -> Epoch:
        """The pass that a position lies in. Raises ValueError where it is no place of this source."""
        ...


@runtime_checkable
class HasRevisions(Protocol):
    """A source of which samples were forgotten, or may be."""

    revisions: Revisions


@runtime_checkable
class Prefetches(Protocol):
    """A source that reads faster what it was told of before."""

    def prefetch(self, samples: np.ndarray) -> None:
        """These samples, int64 [k], will be read soon, in this order."""
        ...


class SkippedSampleError(ValueError):
    """A sample that has not what is asked for. It is left out, and counts as none that is broken."""


class ShuffledEpoch:
    """All samples of a source once, in the order of `order.EpochOrder`, also across revisions."""

    def __init__(self, source: Source, position: Position) -> None:
        revisions = revisions_of(source)
        self.position = revisions.map_position(position)
        order = revisions.order(self.position)
        self.samples = order.samples
        self.numbers: Callable[[np.ndarray], np.ndarray] = order
        self.read: Callable[[int], Any] = source.read
        self._source = source

    def prefetch(self, numbers: np.ndarray) -> None:
        """Says what will be read soon, where the source wants to know."""
        if isinstance(self._source, Prefetches):
            self._source.prefetch(numbers)


def epoch_of(source: Source, position: Position) -> Epoch:
    """The pass that a position lies in. Raises ValueError where it is no place of this source."""
    return source.epoch(position) if isinstance(source, HasEpochs) else ShuffledEpoch(source, position)


def revisions_of(source: Source) -> Revisions:
    """What was forgotten of a source; of most: nothing."""
    return source.revisions if isinstance(source, HasRevisions) else Revisions(len(source))
