"""Which places of an epoch each rank reads, batch by batch, from any point on.

The places of an epoch are dealt out in steps: step k of all ranks together takes the next `world × batch`
places, rank r the r-th part of them. What has been read is therefore one number, the samples consumed,
whatever the number of ranks was: another number of ranks goes on from it, and all ranks together read the
same samples in the same order.

Where samples come in runs, each batch lies in one run (`RunSteps`): batches are numbered through all runs,
and step k of all ranks takes the next `world` of them.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Tail = Literal["drop", "pad", "wrap"]


@dataclass(frozen=True)
class Position:
    """How far reading has come: samples consumed by all ranks together in this epoch.

    revision   of the dataset, in whose samples `consumed` counts (revisions.py)
    began      revision in which this epoch began: its order is drawn from that
    """

    seed: int = 0
    epoch: int = 0
    consumed: int = 0
    revision: int = 0
    began: int = 0

    def __post_init__(self) -> None:
        if min(self.seed, self.epoch, self.consumed, self.revision, self.began) < 0:
            raise ValueError(f"a position has no negative parts: {self}")

    def next_epoch(self) -> "Position":
        """Where the epoch behind this one begins."""
        return Position(self.seed, self.epoch + 1, 0, self.revision, self.revision)


@dataclass(frozen=True)
class Step:
    """Places that one rank reads in one step.

    places  int64 [batch], of `epoch`
    weight  float32 [batch]: 0 where a place only fills the batch up and was read before
    after   the position when all ranks have done this step
    """

    places: np.ndarray
    weight: np.ndarray
    after: Position


class EpochSteps:
    """The steps of one rank through the rest of an epoch.

    `tail` says what becomes of the last samples that fill no step of all ranks: `drop` leaves them
    out, `pad` fills the step up with the last sample at weight 0, `wrap` with the epoch's first
    samples at weight 0, so that no batch holds one sample many times.
    """

    def __init__(
        self, samples: int, position: Position, batch: int, rank: int = 0, world: int = 1, tail: Tail = "drop"
    ) -> None:
        if samples < 1 or batch < 1 or world < 1 or not 0 <= rank < world:
            raise ValueError(f"no plan for {samples} samples, batch {batch}, rank {rank} of {world}")
        if position.consumed > samples:
            raise ValueError(f"{position.consumed} samples are consumed of {samples}")
        self._samples, self._position = samples, position
        self._batch, self._rank, self._world, self._tail = batch, rank, world, tail
        left = samples - position.consumed
        whole, rest = divmod(left, batch * world)
        self._steps = whole if tail == "drop" or rest == 0 else whole + 1
        self.dropped = rest if tail == "drop" else 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, number: int) -> Step:
        """The rank's part of a step, 0 to len − 1."""
        if not 0 <= number < self._steps:
            raise IndexError(f"steps are 0 to {self._steps - 1}")
        together = self._batch * self._world
        start = self._position.consumed + number * together
        places = start + self._rank * self._batch + np.arange(self._batch, dtype=np.int64)
        is_read = places < self._samples
        if self._tail == "wrap":
            filled = np.where(is_read, places, places % self._samples)
        else:
            filled = np.minimum(places, self._samples - 1)
        done = min(start + together, self._samples)
        last = number == self._steps - 1
        after = self._position.next_epoch() if last else replace(self._position, consumed=done)
        return Step(filled, is_read.astype(np.float32), after)


class RunSteps:
    """The steps of one rank through the rest of an epoch.

    ends   int64 [runs], ascending: the place behind each run; the last one is the end of the epoch

    `tail` says what becomes of what fills no batch at the end of a run, and of batches that fill no step of
    all ranks: `drop` leaves them out, `pad` fills up with the last sample at weight 0, `wrap` with the
    samples of that batch, again and again, at weight 0.
    """

    def __init__(
        self,
        ends: np.ndarray,
        position: Position,
        batch: int,
        rank: int = 0,
        world: int = 1,
        tail: Tail = "drop",
    ) -> None:
        if batch < 1 or world < 1 or not 0 <= rank < world:
            raise ValueError(f"no plan for batch {batch}, rank {rank} of {world}")
        samples = int(ends[-1]) if len(ends) else 0
        if position.consumed > samples:
            raise ValueError(f"{position.consumed} samples are consumed of {samples}")
        self._position, self._batch, self._rank, self._world, self._tail = position, batch, rank, world, tail
        edges = np.concatenate([[position.consumed], ends[ends > position.consumed]])
        sizes = np.diff(edges)
        counts = sizes // batch if tail == "drop" else -(-sizes // batch)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        # First place of each batch, and the one behind its last.
        self._first = np.repeat(edges[:-1], counts) + number * batch
        self._stop = np.minimum(self._first + batch, np.repeat(edges[1:], counts))
        whole, rest = divmod(len(self._first), world)
        self._steps = whole if tail == "drop" or rest == 0 else whole + 1
        used = self._stop[: self._steps * world] - self._first[: self._steps * world]
        self.dropped = int(samples - position.consumed - used.sum())

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, number: int) -> Step:
        """The rank's part of a step, 0 to len − 1. A batch that is not there is the last one at weight 0."""
        if not 0 <= number < self._steps:
            raise IndexError(f"steps are 0 to {self._steps - 1}")
        last = len(self._first) - 1
        own = number * self._world + self._rank
        first, stop = int(self._first[min(own, last)]), int(self._stop[min(own, last)])
        places = first + np.arange(self._batch, dtype=np.int64)
        is_read = (places < stop) & (own <= last)
        if self._tail == "wrap":
            filled = first + (places - first) % (stop - first)
        else:
            filled = np.minimum(places, stop - 1)
        done = int(self._stop[min((number + 1) * self._world, last + 1) - 1])
        at_end = number == self._steps - 1
        after = self._position.next_epoch() if at_end else replace(self._position, consumed=done)
        return Step(filled, is_read.astype(np.float32), after)
