"""Batches of decoded samples: threads read and decode ahead, in the order of a plan.

Decoders of pictures release Python's lock, so threads of one process decode side by side and write
into the batch's own arrays: nothing is pickled, copied or sent.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Event
from typing import Any, NamedTuple, Protocol

import numpy as np

from shards.reading.source import Epoch, SkippedSampleError, Source
from shards.reading.steps import EpochSteps, Position, RunSteps, Step, Tail

_LOOK_UP = 1024  # places of which the samples are looked up together, which is faster
_LOG = logging.getLogger(__name__)


class Decoder(Protocol):
    """Turns one sample into one slot of a batch. Called from several threads at a time."""

    def allocate(self, batch: int) -> dict[str, Any]:
        """Arrays [batch, …], and lists of `batch` where there are no numbers."""
        ...

    def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
        """Fills a slot. Raises ValueError where the sample is broken."""
        ...


@dataclass
class LoadedBatch:
    """arrays as the decoder allocated them; samples int64 [batch]; weight float32 [batch]: 0 where a
    slot only fills the batch up, or its sample was broken or skipped (what such a slot holds is
    undefined); `epoch` that it is of; `after`: the position behind this batch.

    The arrays belong to whoever holds them. Memory that nobody holds any more is used for later batches.
    """

    arrays: dict[str, Any]
    samples: np.ndarray
    weight: np.ndarray
    epoch: int
    after: Position


class TooManyBrokenError(RuntimeError):
    """More samples were broken than `max_broken`."""


@dataclass
class Loader:
    """Iterates over the batches of one rank, from `position` to the end of its epoch, or `endless`.

    decoder      of samples; of a source whose samples come in runs (source.Epoch.ends), one for each kind
    tail         what becomes of the last samples that fill no step of all ranks (steps.EpochSteps). With
                 `drop`, `dropped` counts them, and a warning says so where there are any
    threads      that read and decode
    ahead        batches in work besides the one that is used
    read_ahead   batches beyond these, at least, that are announced to the source
    max_broken   samples that may be skipped in an epoch; the next one stops with TooManyBrokenError
    broken       what was wrong, a line for each such sample
    skipped      samples that had not what the source asks for, such as a group too small for a pair

    `broken`, `skipped` and `dropped` are of the epoch of the batch that was handed out last.
    """

    source: Source
    decoder: Decoder | Sequence[Decoder]
    batch: int
    position: Position = field(default_factory=Position)
    rank: int = 0
    world: int = 1
    tail: Tail = "drop"
    threads: int = 2
    ahead: int = 2
    read_ahead: int = 8
    max_broken: int = 100
    broken: list[str] = field(default_factory=list)
    skipped: int = 0
    dropped: int = 0

    def __post_init__(self) -> None:
        """Raises TypeError for a source that lacks what `Source` brings."""
        if not isinstance(self.source, Source):
            raise TypeError(f"{type(self.source).__name__}: must derive from shards.reading.source.Source")

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch that was handed out, as plain numbers."""
        return self.state_at(self.position)

    def state_at(self, position: Position) -> dict[str, Any]:
        """The state of a training that has come to this position, as `LoadedBatch.after` is one."""
        state: dict[str, Any] = {
            "seed": position.seed,
            "epoch": position.epoch,
            "consumed": position.consumed,
            "revision": position.revision,
            "began": position.began,
            "samples": len(self.source),
        }
        if self.source.has_state:
            state["source"] = self.source.state_at(position)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, with this loader's own ranks. Raises ValueError for another dataset's."""
        position = Position(
            state["seed"],
            state["epoch"],
            state["consumed"],
            state.get("revision", 0),
            state.get("began", 0),
        )
        if ("source" in state) != self.source.has_state and position.consumed:
            raise ValueError(
                "the state is of data in another order (in buckets or not, of one dataset or several): go on "
                "as it was begun"
            )
        if "source" in state and self.source.has_state:
            self.source.load_state(state["source"], position)
        elif "samples" in state:
            known = self.source.revisions.samples(position.revision)
            if state["samples"] != known:
                raise ValueError(
                    f"the state is of a dataset of {state['samples']} samples; "
                    f"revision {position.revision} of this one has {known}"
                )
        self.position = position

    def end_of_epoch(self) -> Position:
        """The position behind the epoch that `position` lies in."""
        return self.source.epoch(self.position).position.next_epoch()

    def steps_per_epoch(self) -> int:
        """Batches of this rank in the whole epoch that `position` lies in, 0 where it has no whole step."""
        whole = replace(self.position, consumed=0)
        return len(_Pass(self, whole).numbers)

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self.steps()

    def steps(self, first: int = 0, stride: int = 1) -> Iterator[LoadedBatch]:
        """Every `stride`-th batch of the epoch, for workers that share a rank's batches among them."""
        only = _Pass(self, self.position, first, stride)
        self._count(only)
        yield from self._read(iter([only]))
        # Also of a worker that has not read the last batch itself.
        self.position = only.end

    def endless(self) -> Iterator[LoadedBatch]:
        """All batches from `position` on: what is read ahead goes over the ends of epochs.

        Ends where a whole epoch has no step of all ranks.
        """
        return self._read(self._passes())

    def _passes(self) -> Iterator["_Pass"]:
        position, is_whole = self.position, False
        while True:
            found = _Pass(self, position)
            if not found.numbers and is_whole:
                return
            yield found
            position, is_whole = found.end, True

    def _read(self, passes: Iterator["_Pass"]) -> Iterator[LoadedBatch]:
        waiting: deque[_Begun] = deque()
        stopped = Event()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="shards") as pool:
            try:
                for one in passes:
                    for step, samples in one.steps():
                        waiting.append(one.begin(pool, step, samples, stopped))
                        if len(waiting) > self.ahead:
                            yield self._finish(waiting.popleft())
                while waiting:
                    yield self._finish(waiting.popleft())
            finally:
                stopped.set()

    def _finish(self, begun: "_Begun") -> LoadedBatch:
        if begun.is_first:
            self._count(begun.of)
        for part in begun.parts:
            broken, skipped = part.result()
            self.skipped += skipped
            for problem in broken:
                self.broken.append(problem)
                if len(self.broken) > self.max_broken:
                    raise TooManyBrokenError(
                        f"{len(self.broken)} samples of this epoch cannot be read (max_broken "
                        f"{self.max_broken}), the last one: {problem}"
                    )
        self.position = begun.batch.after
        return begun.batch

    def _count(self, one: "_Pass") -> None:
        """From here on what is broken, skipped and dropped is of this pass."""
        self.broken.clear()
        self.skipped, self.dropped = 0, one.dropped


def _look_up(epoch: Epoch, steps: list[Step]) -> list[tuple[Step, np.ndarray]]:
    """Numbers of the samples at the places of some steps, which are announced to the source."""
    if not steps:
        return []
    samples = epoch.numbers(np.concatenate([step.places for step in steps]))
    epoch.prefetch(samples)
    return list(zip(steps, np.split(samples, len(steps)), strict=True))


class _Begun(NamedTuple):
    """A batch that is being filled, and what to wait for: what is broken and how many were skipped."""

    batch: LoadedBatch
    of: "_Pass"
    is_first: bool
    parts: list[Future[tuple[list[str], int]]]


class _Pass:
    """One epoch from a position on, and what the threads do for it.

    numbers   of its steps, those of this worker
    end       the position behind all its steps
    """

    def __init__(self, loader: Loader, position: Position, first: int = 0, stride: int = 1) -> None:
        self._loader, self._epoch = loader, loader.source.epoch(position)
        self._plan = self._planned()
        self.numbers = range(first, len(self._plan), stride)
        self.dropped = self._plan.dropped
        last = len(self._plan) - 1
        self.end = self._plan[last].after if last >= 0 else self._epoch.position.next_epoch()
        self._is_begun = False
        if first == 0 and loader.rank == 0 and self.dropped:
            self._warn_of_dropped()

    def steps(self) -> Iterator[tuple[Step, np.ndarray]]:
        """Each step with its samples. These are announced to the source, at least `read_ahead` ahead."""
        loader = self._loader
        at_once = max(_LOOK_UP // loader.batch, 1)
        announced: deque[tuple[Step, np.ndarray]] = deque()
        coming = iter(self.numbers)
        for _ in self.numbers:
            if len(announced) <= loader.read_ahead:
                announced += _look_up(self._epoch, [self._plan[n] for n in islice(coming, at_once)])
            yield announced.popleft()

    def begin(self, pool: ThreadPoolExecutor, step: Step, samples: np.ndarray, stopped: Event) -> _Begun:
        """Starts the threads that fill a batch, until `stopped` is set."""
        loader = self._loader
        decoder = self._decoder_of(step)
        epoch = self._epoch.position.epoch
        batch = LoadedBatch(decoder.allocate(loader.batch), samples, step.weight.copy(), epoch, step.after)
        # Threads take slots from one iterator: handing each over by itself would cost more.
        slots = iter(list(enumerate(samples.tolist())))
        parts = [pool.submit(self._fill, decoder, batch, slots, stopped) for _ in range(loader.threads)]
        is_first, self._is_begun = not self._is_begun, True
        return _Begun(batch, self, is_first, parts)

    def _planned(self) -> EpochSteps | RunSteps:
        loader, epoch = self._loader, self._epoch
        dealt = (epoch.position, loader.batch, loader.rank, loader.world, loader.tail)
        return EpochSteps(epoch.samples, *dealt) if epoch.ends is None else RunSteps(epoch.ends, *dealt)

    def _decoder_of(self, step: Step) -> Decoder:
        decoder = self._loader.decoder
        if not isinstance(decoder, Sequence):
            return decoder
        return decoder[self._epoch.kind(int(step.places[0]))]

    def _fill(
        self, decoder: Decoder, batch: LoadedBatch, slots: Iterator[tuple[int, int]], stopped: Event
    ) -> tuple[list[str], int]:
        """Fills slots until there are no more; returns what could not be had, and how many were skipped."""
        read, decode, arrays = self._epoch.read, decoder.decode, batch.arrays
        problems, skipped = [], 0
        for slot, number in slots:
            if stopped.is_set():
                break
            try:
                decode(read(number), arrays, slot)
            except SkippedSampleError:
                batch.weight[slot] = 0
                skipped += 1
            except (OSError, ValueError) as error:
                batch.weight[slot] = 0
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                problems.append(f"sample {number}: {reason}")
        return problems, skipped

    def _warn_of_dropped(self) -> None:
        _LOG.warning(
            "epoch %d: %d of %d samples fill no step of %d × %d and are left out (tail 'drop')",
            self._epoch.position.epoch,
            self.dropped,
            self._epoch.samples,
            self._loader.world,
            self._loader.batch,
        )
