"""What a Loader reads: a source of samples, and one pass through it.

A source of one's own derives from `Source` and has `__len__` and `read`; everything else has a default. One
that has an order of its own, or reads other things in each epoch, returns an `Epoch` of its own.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from shards.reading.revisions import Revisions
from shards.reading.steps import Position


class SkippedSampleError(ValueError):
    """A sample that has not what is asked for. It is left out, and counts as none that is broken."""


class Source(ABC):
    """Samples by number.

    has_state   whether what a later run needs is more than a position: `state_at` and `load_state`
    """

    has_state = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, sample: int) -> Any:
        """What a decoder takes. Raises OSError or ValueError where it cannot be read.

        Called from several threads at a time.
        """

    @cached_property
    def revisions(self) -> Revisions:
        """The history of what was forgotten; of most sources: nothing."""
        return Revisions(len(self))

    def prefetch(self, samples: np.ndarray) -> None:  # noqa: B027
        """Announces that these samples, int64 [k], will be read soon, in this order."""

    def epoch(self, position: Position) -> "Epoch":
        """The pass that a position lies in: all samples once, in the order of `order.EpochOrder`.

        Raises ValueError where the position is no place of this source.
        """
        return Epoch(self, position)

    def state_at(self, position: Position) -> Any:
        """What a later run needs besides the position, as plain numbers, lists and dicts."""
        return None

    def load_state(self, state: Any, position: Position) -> None:
        """Goes on from such a state."""
        raise ValueError(f"{type(self).__name__} has no state but a position")


class Epoch:
    """One pass through a source: which samples stand at its places, and how each of them is read.

    position   where it begins, in the present revision
    samples    places of the whole pass
    ends       int64 [runs], ascending: where samples come in runs of one kind, the place behind each run. A
               batch lies in one run, and each kind has its own decoder. None: there are no runs
    """

    ends: np.ndarray | None = None

    def __init__(self, source: Source, position: Position) -> None:
        self.position = source.revisions.map_position(position)
        self._source, self._order = source, source.revisions.order(self.position)
        self.samples = self._order.samples

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places, 0 to samples − 1 → numbers, as `read` takes them."""
        return self._order(places)

    def read(self, number: int) -> Any:
        """What a decoder takes. Called from several threads at a time."""
        return self._source.read(number)

    def prefetch(self, numbers: np.ndarray) -> None:
        """Announces to the source that these numbers will be read soon, in this order."""
        self._source.prefetch(numbers)

    def kind(self, place: int) -> int:
        """Which decoder the sample at a place needs."""
        return 0
