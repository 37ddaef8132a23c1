"""Batches of decoded samples: threads read and decode ahead, in the order of a plan.

Decoders of pictures release Python's lock, so threads of one process decode side by side and write
into the batch's own arrays: nothing is pickled, copied or sent.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from shards.order import EpochOrder
from shards.plan import Plan, Position, Step, Tail


class Source(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    def read(self, sample: int) -> Any:
        """What a decoder takes. Raises OSError or ValueError where it cannot be read."""
        ...


class Decoder(Protocol):
    """Turns one sample into one slot of a batch. Called from several threads at a time."""

    def allocate(self, batch: int) -> dict[str, Any]:
        """Arrays [batch, …], and lists of `batch` where there are no numbers."""
        ...

    def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
        """Fills a slot. Raises ValueError where the sample is broken."""
        ...


@dataclass
class Batch:
    """arrays as the decoder allocated them; samples int64 [batch]; weight float32 [batch]: 0 where a
    slot only fills the batch up or its sample was broken; `after`: the position behind this batch."""

    arrays: dict[str, Any]
    samples: np.ndarray
    weight: np.ndarray
    after: Position


class TooManyBrokenError(RuntimeError):
    """More samples were broken than the loader was told to bear."""


@dataclass
class Loader:
    """Iterates over the batches of one rank, from `position` to the end of its epoch.

    threads      that read and decode
    ahead        batches in work besides the one that is used
    max_broken   samples that may be skipped in an epoch; the next one stops with TooManyBrokenError
    """

    source: Source
    decoder: Decoder
    batch: int
    position: Position = field(default_factory=Position)
    rank: int = 0
    world: int = 1
    tail: Tail = "drop"
    threads: int = 2
    ahead: int = 2
    max_broken: int = 100
    broken: list[str] = field(default_factory=list)

    def state_dict(self) -> dict[str, int]:
        """The position behind the last batch that was handed out."""
        return {
            "seed": self.position.seed,
            "epoch": self.position.epoch,
            "consumed": self.position.consumed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there, with this loader's own ranks."""
        self.position = Position(state["seed"], state["epoch"], state["consumed"])

    def __iter__(self) -> Iterator[Batch]:
        at = self.position
        plan = Plan(len(self.source), at, self.batch, self.rank, self.world, self.tail)
        order = EpochOrder(len(self.source), at.seed, at.epoch)
        self.broken.clear()
        waiting: deque[tuple[Batch, list[Future[str | None]]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="shards") as pool:
            try:
                for number in range(len(plan)):
                    waiting.append(self._begin(pool, order, plan[number]))
                    if len(waiting) > self.ahead:
                        yield self._finish(*waiting.popleft())
                while waiting:
                    yield self._finish(*waiting.popleft())
                if len(plan) == 0:
                    self.position = Position(at.seed, at.epoch + 1)
            finally:
                for _, parts in waiting:
                    for part in parts:
                        part.cancel()

    def _begin(
        self, pool: ThreadPoolExecutor, order: EpochOrder, step: Step
    ) -> tuple[Batch, list[Future[str | None]]]:
        samples = order(step.places)
        batch = Batch(self.decoder.allocate(self.batch), samples, step.weight.copy(), step.after)
        numbers = samples.tolist()
        return batch, [pool.submit(self._fill, batch, slot, numbers[slot]) for slot in range(self.batch)]

    def _fill(self, batch: Batch, slot: int, sample: int) -> str | None:
        """Why the sample could not be had, or None."""
        try:
            self.decoder.decode(self.source.read(sample), batch.arrays, slot)
        except (OSError, ValueError) as error:
            batch.weight[slot] = 0
            return f"sample {sample}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return None

    def _finish(self, batch: Batch, parts: list[Future[str | None]]) -> Batch:
        for part in parts:
            problem = part.result()
            if problem is not None:
                self.broken.append(problem)
                if len(self.broken) > self.max_broken:
                    raise TooManyBrokenError(
                        f"{len(self.broken)} samples of this epoch cannot be read (max_broken "
                        f"{self.max_broken}), the last one: {problem}"
                    )
        self.position = batch.after
        return batch
