"""Which places of an epoch each rank reads where batches must not cross the ends of runs.

As `plan.Plan`, but each batch lies in one run. Batches are numbered through all runs, and step k of all
ranks takes the next `world` of them. What has been read is again one number, the samples consumed.
"""

from dataclasses import replace

import numpy as np

from shards.reading.plan import Position, Step, Tail


class RunPlan:
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
        mine = number * self._world + self._rank
        first, stop = int(self._first[min(mine, last)]), int(self._stop[min(mine, last)])
        places = first + np.arange(self._batch, dtype=np.int64)
        there = (places < stop) & (mine <= last)
        if self._tail == "wrap":
            filled = first + (places - first) % (stop - first)
        else:
            filled = np.minimum(places, stop - 1)
        done = int(self._stop[min((number + 1) * self._world, last + 1) - 1])
        at_end = number == self._steps - 1
        after = self._position.next_epoch() if at_end else replace(self._position, consumed=done)
        return Step(filled, there.astype(np.float32), after)
