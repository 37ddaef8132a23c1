"""An order in which samples of one kind come in runs, so that batches can be cut from a run.

The samples of an epoch come in the order that they have anyway, and each kind gathers its own. When
`length` of a kind have gathered they are a run, and stand in the new order behind the runs that were
whole before. What has gathered when all have come makes shorter runs, one of each kind, at the end. So
every sample stands there once, not far from where it stood, whatever ranks and batches there are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


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
