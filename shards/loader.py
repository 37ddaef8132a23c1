"""Batches of decoded samples: threads read and decode ahead, in the order of a plan.

Decoders of pictures release Python's lock, so threads of one process decode side by side and write
into the batch's own arrays: nothing is pickled, copied or sent.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np

from shards.epoch import Epoch, HasRuns, SkippedSampleError, Source, epoch_of, revisions_of
from shards.plan import Plan, Position, Step, Tail
from shards.run_plan import RunPlan

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


@runtime_checkable
class Stateful(Protocol):
    """A source whose state is more than a position."""

    def state_at(self, position: Position) -> Any:
        """What a later run needs besides the position, as plain numbers, lists and dicts."""
        ...

    def load_state(self, state: Any, position: Position) -> None:
        """Goes on from such a state."""
        ...


@dataclass
class Batch:
    """arrays as the decoder allocated them; samples int64 [batch]; weight float32 [batch]: 0 where a
    slot only fills the batch up, or its sample was broken or skipped (what such a slot holds is
    undefined); `after`: the position behind this batch.

    The arrays belong to whoever holds them. Memory that nobody holds any more is used for later batches.
    """

    arrays: dict[str, Any]
    samples: np.ndarray
    weight: np.ndarray
    after: Position


class TooManyBrokenError(RuntimeError):
    """More samples were broken than the loader was told to bear."""


@dataclass
class Loader:
    """Iterates over the batches of one rank, from `position` to the end of its epoch.

    decoder      of samples; of a source whose samples come in runs (epoch.HasRuns), one for each kind
    tail         what becomes of the last samples that fill no step of all ranks (plan.Plan). With
                 `drop`, `dropped` counts them, and a warning says so where there are any
    threads      that read and decode
    ahead        batches in work besides the one that is used
    read_ahead   batches beyond these, at least, that the source is told of, if it wants to know
    max_broken   samples that may be skipped in an epoch; the next one stops with TooManyBrokenError
    broken       what was wrong, a line for each such sample
    skipped      samples that had not what the source asks for, such as a group too small for a pair
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

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch that was handed out, as plain numbers."""
        return self.state_at(self.position)

    def state_at(self, position: Position) -> dict[str, Any]:
        """The state of a training that has come to this position, as `Batch.after` is one."""
        state: dict[str, Any] = {
            "seed": position.seed,
            "epoch": position.epoch,
            "consumed": position.consumed,
            "revision": position.revision,
            "began": position.began,
            "samples": len(self.source),
        }
        if isinstance(self.source, Stateful):
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
        if ("source" in state) != isinstance(self.source, Stateful) and position.consumed:
            raise ValueError(
                "the state is of data in another order (in buckets, or not): go on as it was begun"
            )
        if "source" in state and isinstance(self.source, Stateful):
            self.source.load_state(state["source"], position)
        elif "samples" in state:
            known = revisions_of(self.source).samples(position.revision)
            if state["samples"] != known:
                raise ValueError(
                    f"the state is of a dataset of {state['samples']} samples; "
                    f"revision {position.revision} of this one has {known}"
                )
        self.position = position

    def __iter__(self) -> Iterator[Batch]:
        return self.steps()

    def steps(self, first: int = 0, stride: int = 1) -> Iterator[Batch]:
        """Every `stride`-th batch of the epoch, for workers that share a rank's batches among them."""
        epoch = epoch_of(self.source, self.position)
        plan = self._plan(epoch)
        self.broken.clear()
        self.skipped, self.dropped = 0, plan.dropped
        if first == 0:
            self._say_what_is_dropped(epoch, plan)
        numbers = range(first, len(plan), stride)
        work = _Work(self, epoch)
        at_once = max(_LOOK_UP // self.batch, 1)
        told: deque[tuple[Step, np.ndarray]] = deque()
        waiting: deque[tuple[Batch, list[Future[list[str]]]]] = deque()
        coming = iter(numbers)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="shards") as pool:
            try:
                for _ in numbers:
                    if len(told) <= self.read_ahead:
                        told += _look_up(epoch, [plan[n] for n in islice(coming, at_once)])
                    waiting.append(work.begin(pool, *told.popleft()))
                    if len(waiting) > self.ahead:
                        yield self._finish(*waiting.popleft())
                while waiting:
                    yield self._finish(*waiting.popleft())
                # Also of a worker that has not read the last batch itself.
                self.position = plan[len(plan) - 1].after if len(plan) else epoch.position.next_epoch()
            finally:
                work.stopped = True

    def _plan(self, epoch: Epoch) -> Plan | RunPlan:
        if isinstance(epoch, HasRuns):
            return RunPlan(epoch.ends, epoch.position, self.batch, self.rank, self.world, self.tail)
        return Plan(epoch.samples, epoch.position, self.batch, self.rank, self.world, self.tail)

    def _finish(self, batch: Batch, parts: list[Future[list[str]]]) -> Batch:
        for problem in (problem for part in parts for problem in part.result()):
            self.broken.append(problem)
            if len(self.broken) > self.max_broken:
                raise TooManyBrokenError(
                    f"{len(self.broken)} samples of this epoch cannot be read (max_broken "
                    f"{self.max_broken}), the last one: {problem}"
                )
        self.position = batch.after
        return batch

    def _say_what_is_dropped(self, epoch: Epoch, plan: Plan | RunPlan) -> None:
        if plan.dropped and self.rank == 0:
            _LOG.warning(
                "epoch %d: %d of %d samples fill no step of %d × %d and are left out (tail 'drop')",
                epoch.position.epoch,
                plan.dropped,
                epoch.samples,
                self.world,
                self.batch,
            )


def _look_up(epoch: Epoch, steps: list[Step]) -> list[tuple[Step, np.ndarray]]:
    """Which samples stand at the places of some steps. The source is told of them."""
    if not steps:
        return []
    samples = epoch.numbers(np.concatenate([step.places for step in steps]))
    epoch.prefetch(samples)
    return list(zip(steps, np.split(samples, len(steps)), strict=True))


class _Work:
    """What the threads of one pass do."""

    def __init__(self, loader: Loader, epoch: Epoch) -> None:
        self._loader, self._epoch = loader, epoch
        self.stopped = False

    def begin(
        self, pool: ThreadPoolExecutor, step: Step, samples: np.ndarray
    ) -> tuple[Batch, list[Future[list[str]]]]:
        """A batch that is being filled, and what to wait for."""
        loader = self._loader
        decoder = self._decoder_of(step)
        batch = Batch(decoder.allocate(loader.batch), samples, step.weight.copy(), step.after)
        # Threads take slots from one iterator: handing each over by itself would cost more.
        slots = iter(list(enumerate(samples.tolist())))
        return batch, [pool.submit(self._fill, decoder, batch, slots) for _ in range(loader.threads)]

    def _decoder_of(self, step: Step) -> Decoder:
        decoder = self._loader.decoder
        if not isinstance(decoder, Sequence):
            return decoder
        return decoder[self._epoch.kind(int(step.places[0])) if isinstance(self._epoch, HasRuns) else 0]

    def _fill(self, decoder: Decoder, batch: Batch, slots: Iterator[tuple[int, int]]) -> list[str]:
        """Fills slots until there are no more; returns what could not be had."""
        read, decode, arrays = self._epoch.read, decoder.decode, batch.arrays
        problems = []
        for slot, number in slots:
            if self.stopped:
                break
            try:
                decode(read(number), arrays, slot)
            except SkippedSampleError:
                batch.weight[slot] = 0
                self._loader.skipped += 1
            except (OSError, ValueError) as error:
                batch.weight[slot] = 0
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                problems.append(f"sample {number}: {reason}")
        return problems
