"""Batches of one size: sizes of targets, and pairs in an order that has one size for many samples in a row.

A batch has one size. Photos have many proportions, so a dataset is read in a few sizes of about one area:
each photo is cut to the one whose proportions are nearest to its own, and loses little. That is how SDXL
was trained (arXiv 2307.01952, section 2.3 and appendix I: steps of 64 px about 1024²).

The samples of an epoch come in the order that they have anyway, and each kind (size) gathers its own. When
`length` of a kind have gathered they are a run, and stand in the new order behind the runs that were whole
before. What has gathered when all have come makes shorter runs, one of each kind, at the end. So every
sample stands in the new order once, not far from where it stood, whatever ranks and batches there are.

The target of a group is drawn for each epoch, so its size is too; both follow from the index, before
anything is read. A group that has no pair is in no run.
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from shards.reading.folder import DatasetFolder
from shards.reading.pairs import Pair, Pairs, draw_pairs
from shards.reading.source import Epoch
from shards.reading.steps import Position

Size = tuple[int, int]
"""Height and width, px."""
_LEAST_AREA = 0.9  # of the one that is asked for


def sizes_around(height: int, width: int, *, step: int = 64, most: float = 2.0) -> list[Size]:
    """Sizes in multiples of `step` px, of 90 to 100 % of the area of height × width, from flat to tall.

    most   the longer side is at most so many times the shorter one

    One for each shorter side, as long as the area allows, lying and standing, and height × width itself,
    lying and standing. At 1024 × 1024 these are eleven, from 704 × 1408 to 1408 × 704.
    """
    area = height * width
    found = {(height, width), (width, height)}
    for short in range(step, math.isqrt(area) + 1, step):
        long = min(area // short, int(most * short)) // step * step
        if long >= short and short * long >= _LEAST_AREA * area:
            found |= {(short, long), (long, short)}
    return sorted(found)


def nearest_sizes(aspects: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """float [k] width / height of photos → int64 [k] places in `sizes`, nearest in proportion.

    Distance is that of logarithms, so that twice as wide and twice as tall are as far away. Of two that
    are as near, and for a photo of unknown proportions (0), it is the first.
    """
    known = np.where(np.asarray(aspects, np.float64) > 0, aspects, sizes[0][1] / sizes[0][0])
    own = np.log(np.array([width / height for height, width in sizes]))
    return np.abs(np.log(known)[:, None] - own).argmin(axis=1)


class Rest(NamedTuple):
    """What is left of an epoch: places in its plain order.

    ready     of the run that was begun, as they stand in it
    waiting   that have come and are in no run that was begun, as they came
    next      from here on none has come
    """

    ready: Sequence[int] = ()
    waiting: Sequence[int] = ()
    next: int = 0


class Runs:
    """The new order of the rest of an epoch.

    kinds    int64 [n]: of the sample at each place of the plain order; below 0: it is left out
    length   of a run
    places   int64 [k], places of the plain order as they stand in the new one
    ends     int64 [runs], ascending: where each run ends in `places`

    Kinds and length may be others than those that `rest` was made with.
    """

    def __init__(self, kinds: np.ndarray, length: int, rest: Rest | None = None) -> None:
        if length < 1:
            raise ValueError(f"a run has at least one sample, not {length}")
        self._begun = rest or Rest()
        ready, waiting = (_with_kind(kinds, part) for part in self._begun[:2])
        if len(np.unique(kinds[ready])) > 1:  # kinds have changed: what was a run gathers anew
            ready, waiting = ready[:0], np.concatenate([ready, waiting])
        following = np.arange(self._begun.next, len(kinds), dtype=np.int64)
        self._known = len(waiting)
        self._coming = np.concatenate([waiting, following[kinds[following] >= 0]])
        self._run_of, sizes, self._come = _gathered(kinds[self._coming], length)
        gathered = self._coming[np.argsort(self._run_of, kind="stable")]
        self._has_ready = len(ready) > 0
        self.places = np.concatenate([ready, gathered])
        self.ends = np.cumsum(np.append(len(ready), sizes) if self._has_ready else sizes)

    def rest(self, consumed: int) -> Rest:
        """What is left behind the first `consumed` places of the new order."""
        if consumed == 0:
            return self._begun
        begun = int(np.searchsorted(self.ends, consumed))  # the run of the last one of them
        ready = self.places[consumed : self.ends[begun]].tolist()
        run = begun - self._has_ready
        come = max(int(self._come[run]) if run >= 0 else 0, self._known)
        waiting = self._coming[:come][self._run_of[:come] > run].tolist()
        following = self._begun.next if come == self._known else int(self._coming[come - 1]) + 1
        return Rest(ready, waiting, following)


def _with_kind(kinds: np.ndarray, places: Sequence[int]) -> np.ndarray:
    found = np.array(places, np.int64)
    return found[kinds[found] >= 0]


def _gathered(kinds: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 [n] kinds as samples come → the run of each, int64 [n], and of each run its size and how many
    samples have come when it is there, int64 [runs] each."""
    n = len(kinds)
    by_kind = np.argsort(kinds, kind="stable")
    counts = np.bincount(kinds)
    within = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    run = np.cumsum(within % length == 0) - 1
    sizes = np.bincount(run)
    last = by_kind[np.cumsum(sizes) - 1]
    is_short = sizes < length
    order = np.lexsort((last, is_short))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    run_of = np.empty(n, np.int64)
    run_of[by_kind] = rank[run]
    return run_of, sizes[order], np.where(is_short, n, last + 1)[order]


class BucketedPairs(Pairs):
    """A Source of `Pair`s for a Loader with one decoder for each size.

    sizes    of targets, height and width
    length   samples of a run: batches of a size that divides it waste nothing
    Further settings are those of `Pairs`.

    The order is a function of (seed, epoch) and of these settings. A state holds the samples that are
    gathering too, so that sizes, length, or the dataset (by `forget`) may change between a stop and a
    resume, and what is left of the epoch is still read once.
    """

    has_state = True

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


class BucketedEpoch(Epoch):
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
        """Announces samples that will be read soon."""
        self._pairs.prefetch(numbers)

    def rest(self, consumed: int) -> Rest:
        """What is left of it behind so many samples."""
        return self._runs.rest(consumed - self.start.consumed)

    def _plain(self, places: np.ndarray) -> np.ndarray:
        own = np.asarray(places, np.int64) - self.start.consumed
        if own.size and own.min() < 0:
            raise IndexError(f"places before {self.start.consumed} were read before this state was saved")
        return self._runs.places[own]
