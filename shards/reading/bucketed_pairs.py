"""Pairs in an order that has one size of target for many samples in a row, so that a batch has one size.

The target of a group is drawn for each epoch, so its size is too; both follow from the index, before
anything is read. Groups gather by size as shards.reading.runs has it. A group that has no pair is in no run.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from shards.reading.epoch import Epoch
from shards.reading.folder import DatasetFolder
from shards.reading.pairs import Pair, Pairs, draw_pairs
from shards.reading.plan import Position
from shards.reading.runs import Rest, Runs
from shards.reading.size_buckets import Size, nearest_sizes


class BucketedPairs(Pairs):
    """A Source of `Pair`s for a Loader with one decoder for each size.

    sizes    of targets, height and width
    length   samples of a run: batches of a size that divides it waste nothing
    Further settings are those of `Pairs`.

    The order is a function of (seed, epoch) and of these settings. A state holds the samples that are
    gathering too, so that sizes, length, or the dataset (by `forget`) may change between a stop and a
    resume, and what is left of the epoch is still read once.
    """

    def __init__(
        self, folder: DatasetFolder, sizes: Sequence[Size], *, length: int = 64, **settings: Any
    ) -> None:
        super().__init__(folder, **settings)
        if not sizes:
            raise ValueError("targets need at least one size")
        self.sizes, self.length = list(sizes), length
        photos = folder.index.photos
        fit = photos.regions & self._needed == self._needed
        # The photos that will do, one group behind the other, and where those of each group begin.
        self._size_of = nearest_sizes(photos.aspects[fit], self.sizes)
        before = np.concatenate([[0], np.cumsum(fit)])
        self._first, self._fit = before[photos.starts[:-1]], np.diff(before[photos.starts])
        self._hashes = photos.hashes
        # Where a state was loaded: as it was given, as it is in the present revision, what was left then.
        self._loaded: tuple[Position, Position, Rest] | None = None
        self._last: BucketedEpoch | None = None

    def epoch(self, position: Position) -> Epoch:
        """The pass that a position lies in. Raises ValueError for the middle of an epoch of another
        revision of the dataset, unless its state was loaded."""
        return self._pass_of(position)

    def state_at(self, position: Position) -> dict[str, Any]:
        """What is left of the epoch."""
        if position.consumed == 0:
            return Rest()._asdict()
        return self._pass_of(position).rest(position.consumed)._asdict()

    def load_state(self, state: Any, position: Position) -> None:
        """Goes on from such a state. Raises ValueError for a position that this dataset has not had."""
        rest, self._last = Rest(**state), None
        moved = self.revisions.map_position(replace(position, consumed=rest.next))
        ready, waiting = (
            self.revisions.map_places(position, np.array(places, np.int64)).tolist() for places in rest[:2]
        )
        left = Rest(ready, waiting, moved.consumed)
        if not position.consumed:
            self._loaded = None
            return
        kinds = self.kinds(moved)
        done = int((kinds >= 0).sum()) - len(Runs(kinds, self.length, left).places)
        self._loaded = (position, replace(moved, consumed=done), left)

    def kinds(self, position: Position) -> np.ndarray:
        """int64 [samples]: at each place of the plain order of an epoch, the place of the target's size in
        `sizes`; -1 for a group that has no pair."""
        kinds = np.full(len(self), -1, np.int64)
        whole = np.flatnonzero(self._fit > 1)
        _, target = draw_pairs(position.seed, position.epoch, self._hashes[whole], self._fit[whole])
        kinds[whole] = self._size_of[self._first[whole] + target]
        return kinds[self.revisions.order(position)(np.arange(len(self)))]

    def _pass_of(self, position: Position) -> "BucketedEpoch":
        start, rest = replace(position, consumed=0), Rest()
        if self._loaded is not None:
            given, mapped, left = self._loaded
            if position == given:
                position = mapped
            if (position.seed, position.epoch) == (mapped.seed, mapped.epoch):
                start, rest = mapped, left
        if position.revision != self.revisions.current:
            if position.consumed:
                raise ValueError(
                    f"{position} is in the middle of an epoch: the state of these pairs is needed"
                )
            position = start = self.revisions.map_position(position)
        if self._last is None or self._last.start != start:
            self._last = BucketedEpoch(self, start, rest)
        return self._last.at(position)


class BucketedEpoch:
    """One pass, from a place on at which `rest` was left of it. Each batch lies in one of its runs."""

    def __init__(self, pairs: BucketedPairs, start: Position, rest: Rest) -> None:
        self.position, self.start, self._pairs = start, start, pairs
        self._kinds = pairs.kinds(start)
        self._runs = Runs(self._kinds, pairs.length, rest)
        self._order = pairs.revisions.order(start)
        self.samples = start.consumed + len(self._runs.places)
        self.ends = start.consumed + self._runs.ends

    def at(self, position: Position) -> "BucketedEpoch":
        """The same pass, to be read from a later place on."""
        found = copy(self)
        found.position = position
        return found

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places → numbers of samples. IndexError for places before the one that was loaded."""
        return self._order(self._plain(places))

    def kind(self, place: int) -> int:
        """Which of the sizes the target at a place has."""
        return int(self._kinds[self._plain(np.array([place]))[0]])

    def read(self, number: int) -> Pair:
        """The pair of a sample in this epoch."""
        return self._pairs.read_in(number, self.position)

    def prefetch(self, numbers: np.ndarray) -> None:
        """Says what will be read soon."""
        self._pairs.prefetch(numbers)

    def rest(self, consumed: int) -> Rest:
        """What is left of it behind so many samples."""
        return self._runs.rest(consumed - self.start.consumed)

    def _plain(self, places: np.ndarray) -> np.ndarray:
        own = np.asarray(places, np.int64) - self.start.consumed
        if own.size and own.min() < 0:
            raise IndexError(f"places before {self.start.consumed} were read before this state was saved")
        return self._runs.places[own]
