"""Several datasets read as one, each in its share.

Which dataset stands at a place is a periodic schedule: in any number of places from the beginning on,
each dataset has come within one sample of its share. Each dataset goes through passes of its own, in
the order of that pass, and begins the next one when all its samples were read: small ones come round
more often. All of it is a pure function of (seed, epoch, place), for any ranks and workers.
"""

import heapq
import math
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from shards.reading.order import key_of
from shards.reading.revisions import Revisions
from shards.reading.source import Epoch, Source
from shards.reading.steps import Position

MAX_PERIOD = 65_536
_PASSES_KEPT = 4  # of a dataset, ready to be read from: the present one, and its neighbours


class Mixture(Source):
    """A Source of the samples of `sources`, of which number n has weights[n] out of every sum(weights).

    weights   whole numbers, at least 1; with their common divisor taken out, their sum is at most 65,536
    samples   of one epoch of the mixture; None: as many as all sources have. Passes of the sources go on
              from one epoch to the next

    The numbers of its samples count across passes; `whence` takes them apart. Weights and sources' own
    revisions may change between a stop and a resume; the number and order of the sources may not. An
    epoch has as many samples as when the run began.
    """

    has_state = True

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[int], *, samples: int | None = None
    ) -> None:
        if not sources or len(sources) != len(weights):
            raise ValueError(f"{len(sources)} sources and {len(weights)} weights do not make a mixture")
        for number, source in enumerate(sources):
            if not len(source):
                raise ValueError(f"source {number} of the mixture is empty")
        self.sources = list(sources)
        self._sizes = np.array([len(source) for source in sources], np.int64)
        # Number of the first sample of each source in its pass 0, and of all that there are.
        self.bases = np.concatenate([[0], np.cumsum(self._sizes)])
        self._weights = reduced(weights)
        self._part, self._before = schedule(self._weights)
        self._samples = int(self.bases[-1]) if samples is None else samples
        if self._samples < 1:
            raise ValueError(f"an epoch of {self._samples} samples has no place")
        # Where each source stood at a place of the mixture, from which passes are counted. None: 0.
        self._anchor: tuple[int, list[Position]] | None = None

    def __len__(self) -> int:
        return self._samples

    def read(self, sample: int) -> Any:
        """A sample by the number that seed 0 gives it."""
        return self.epoch(Position()).read(sample)

    def epoch(self, position: Position) -> "_MixedEpoch":
        """The samples of one epoch."""
        return _MixedEpoch(self, position)

    def whence(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 [k] numbers of samples → which source, which pass of it, which sample of it; each [k]."""
        passes, rest = np.divmod(np.asarray(numbers, np.int64), self.bases[-1])
        part = np.searchsorted(self.bases, rest, side="right") - 1
        return part, passes, rest - self.bases[part]

    def state_at(self, position: Position) -> dict[str, Any]:
        """How far each source has come at this position, and the length of an epoch."""
        at = position.epoch * self._samples + position.consumed
        start, anchors = self.anchors(position.seed)
        counts = self._counts(at) - self._counts(start)
        places = [
            self._advanced(part, anchor, int(n))
            for part, (anchor, n) in enumerate(zip(anchors, counts, strict=True))
        ]
        return {"samples": self._samples, "parts": [asdict(place) for place in places]}

    def load_state(self, state: dict[str, Any], position: Position) -> None:
        """Goes on from such a state. Raises ValueError where it is of another mixture."""
        places = [Position(**part) for part in state["parts"]]
        if len(places) != len(self.sources):
            raise ValueError(
                f"the state is of a mixture of {len(places)} sources; this one has {len(self.sources)}"
            )
        self._samples = int(state["samples"])
        self.revisions = Revisions(self._samples)
        at = position.epoch * self._samples + position.consumed
        mapped = [source.epoch(place).position for source, place in zip(self.sources, places, strict=True)]
        self._anchor = (at, mapped)

    def anchors(self, seed: int) -> tuple[int, list[Position]]:
        """A place of the whole run, and where each source stands there."""
        if self._anchor is not None:
            return self._anchor
        found = []
        for part, source in enumerate(self.sources):
            revision = source.revisions.current
            found.append(Position(key_of(seed, part), 0, 0, revision, revision))
        return 0, found

    def pass_of(self, part: int, seed: int, number: int) -> Epoch:
        """A pass of a source, ready to be read from."""
        _, anchors = self.anchors(seed)
        anchor = anchors[part]
        ahead = (number - anchor.epoch) * int(self._sizes[part]) - anchor.consumed
        place = anchor if number == anchor.epoch else self._advanced(part, anchor, ahead)
        return self.sources[part].epoch(place)

    def samples_at(self, places: np.ndarray, seed: int) -> np.ndarray:
        """int64 [k] places of the whole run → numbers of samples."""
        start, anchors = self.anchors(seed)
        period = len(self._part)
        part = self._part[places % period]
        counts = places // period * self._weights[part] + self._before[places % period]
        counts -= self._counts(start)[part]
        counts += np.array([anchor.consumed for anchor in anchors], np.int64)[part]
        passes, within = np.divmod(counts, self._sizes[part])
        passes += np.array([anchor.epoch for anchor in anchors], np.int64)[part]
        numbers = np.empty(len(places), np.int64)
        for source, number in sorted(set(zip(part.tolist(), passes.tolist(), strict=True))):
            in_pass = (part == source) & (passes == number)
            local = self.pass_of(source, seed, number).numbers(within[in_pass])
            numbers[in_pass] = number * self.bases[-1] + self.bases[source] + local
        return numbers

    def _counts(self, place: int) -> np.ndarray:
        """int64 [sources]: how many samples of each stand before a place of the whole run."""
        periods, rest = divmod(place, len(self._part))
        return periods * self._weights + np.bincount(self._part[:rest], minlength=len(self.sources))

    def _advanced(self, part: int, anchor: Position, samples: int) -> Position:
        """Where a source stands after so many more of its samples."""
        passes, consumed = divmod(anchor.consumed + samples, int(self._sizes[part]))
        began = anchor.began if passes == 0 else anchor.revision
        return Position(anchor.seed, anchor.epoch + passes, consumed, anchor.revision, began)


class _MixedEpoch(Epoch):
    """One epoch of a mixture."""

    def __init__(self, mixture: Mixture, position: Position) -> None:
        self._mixture, self.position = mixture, position
        self.samples = len(mixture)
        self._passes: OrderedDict[tuple[int, int], Epoch] = OrderedDict()
        self._bases: list[int] = mixture.bases.tolist()
        self._kept = _PASSES_KEPT * (len(self._bases) - 1)
        self._lock = threading.Lock()

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places of this epoch → numbers of samples."""
        run = np.asarray(places, np.int64) + self.position.epoch * self.samples
        return self._mixture.samples_at(run, self.position.seed)

    def read(self, number: int) -> Any:
        """The sample, as its own source reads it in that pass."""
        passes, rest = divmod(number, self._bases[-1])
        part = bisect_right(self._bases, rest) - 1
        return self._pass(part, passes).read(rest - self._bases[part])

    def prefetch(self, numbers: np.ndarray) -> None:
        """Announces to each source the samples of it that will be read soon."""
        part, passes, local = self._mixture.whence(numbers)
        for source, number in sorted(set(zip(part.tolist(), passes.tolist(), strict=True))):
            self._pass(source, number).prefetch(local[(part == source) & (passes == number)])

    def _pass(self, part: int, number: int) -> Epoch:
        key = (part, number)
        with self._lock:
            found = self._passes.get(key)
            if found is None:
                found = self._passes[key] = self._mixture.pass_of(part, self.position.seed, number)
                if len(self._passes) > self._kept:
                    self._passes.popitem(last=False)
            return found


def reduced(weights: Sequence[int]) -> np.ndarray:
    """int64 weights without their common divisor. Raises ValueError for ones that cannot be kept to."""
    for weight in weights:
        if int(weight) != weight or weight < 1:
            raise ValueError(f"weights are whole numbers of at least 1, not {weight}")
    whole = [int(weight) for weight in weights]
    found = np.array(whole, np.int64) // math.gcd(*whole)
    if found.sum() > MAX_PERIOD:
        raise ValueError(f"weights {whole} repeat after {found.sum()} samples only, at most {MAX_PERIOD}")
    return found


def schedule(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which source stands at each place of a period, and how many of its samples stand before; [sum].

    After n places a source of weight w of W has come floor or ceil of n·w/W times. So its sample j may
    stand from place floor(j·W/w) on and must by ceil((j + 1)·W/w) − 1; serving the earliest deadline
    first keeps all of these where that is possible, and it is (Steiner and Yeomans, Level schedules for
    mixed-model, just-in-time processes, 1993).
    """
    total = int(weights.sum())
    part, before = np.empty(total, np.int64), np.empty(total, np.int64)
    done = [0] * len(weights)
    released: list[list[int]] = [[] for _ in range(total)]
    ready: list[tuple[int, int]] = []
    for source in range(len(weights)):
        released[0].append(source)
    for place in range(total):
        for source in released[place]:
            weight = int(weights[source])
            heapq.heappush(ready, (-(-(done[source] + 1) * total // weight) - 1, source))
        _, source = heapq.heappop(ready)
        part[place], before[place] = source, done[source]
        done[source] += 1
        if done[source] < weights[source]:
            opens = done[source] * total // int(weights[source])
            released[max(opens, place + 1)].append(source)
    return part, before
