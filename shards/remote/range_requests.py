"""Ranges of objects, asked for in parallel: split, sent again where they fail, hedged where they are slow.

All requests of a process wait in one event loop on a thread of its own; nothing is decoded there.

A few requests to an object store take many times as long as the rest, and a batch waits for its slowest
(Dean and Barroso, The Tail at Scale, CACM 2013). The same request, sent again, is mostly answered at once.
Second requests are bounded to a share of the first ones, so that a store which slows down as a whole is not
asked twice as much.
"""

import asyncio
import atexit
import os
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from shards.remote.object_store import ObjectStore, TransientError, refuse_in_fork

_QUANTILE = 0.9  # of recent requests; with up to a tenth of them slow it still lies among the fast ones
_FACTOR = 1.5
_FLOOR_S = 0.01
_REMEMBERED = 128  # requests of one size class
_ENOUGH = 16
_BURST = 4  # second requests that need not be earned
T = TypeVar("T")
_COPIED_AT_ONCE = 8  # parts


class Hedging:
    """Statistics of how long requests took, and how many second ones were sent. Not safe for several threads.

    share   second requests that may be sent, of first ones; 0 sends none
    """

    def __init__(self, share: float = 0.06) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of second requests must be 0 to 1, not {share}")
        self._share = share
        self._taken: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._waits: dict[int, float] = {}
        self.requests = 0
        self.hedges = 0

    def patience_s(self, length: int) -> float | None:
        """How long to wait for a request of so many bytes before a second one; None: not known yet."""
        return self._waits.get(length.bit_length())

    def took(self, length: int, seconds: float) -> None:
        """Notes how long a first request took until it, or the second one, was answered."""
        size = length.bit_length()
        taken = self._taken[size]
        taken.append(seconds)
        self.requests += 1
        if len(taken) >= _ENOUGH and (self.requests % 8 == 0 or size not in self._waits):
            ordered = sorted(taken)
            self._waits[size] = max(_FACTOR * ordered[int(_QUANTILE * (len(ordered) - 1))], _FLOOR_S)

    def allowed(self) -> bool:
        """Counts one second request as sent; False where the share is used up."""
        if self._share == 0 or self.hedges >= self._share * self.requests + _BURST:
            return False
        self.hedges += 1
        return True


@dataclass
class Requests:
    """Counts of requests to the store so far: first ones, second ones of slow, repeats of failed, bytes."""

    first: int = 0
    hedged: int = 0
    repeated: int = 0
    bytes: int = 0


class RangeRequests:
    """Gets ranges of the objects of a store.

    in_flight     requests at a time
    part_bytes    a longer range is asked for in parts, side by side
    attempts      of one request, before its error is raised
    backoff_s     mean wait before the second attempt; doubles with each one up to 5 s, and is drawn from
                  0 to twice that, so that many readers do not come back together
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        in_flight: int = 64,
        part_bytes: int = 8 * 2**20,
        attempts: int = 8,
        backoff_s: float = 0.05,
        hedging: Hedging | None = None,
    ) -> None:
        if min(in_flight, part_bytes, attempts) < 1:
            raise ValueError("in_flight, part_bytes and attempts must be at least 1")
        self._store, self.url = store, store.url
        self._part, self._attempts, self._backoff = part_bytes, attempts, backoff_s
        self._hedging = hedging or Hedging()
        self._slots = asyncio.Semaphore(in_flight)
        self.counts = Requests()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="shards-requests", daemon=True)
        self._thread.start()
        # The object store's own threads call into Python when a request ends. A process that ended
        # meanwhile was seen to do so by SIGABRT (obstore 0.12.1, a busy machine): no request outlives it.
        atexit.register(self.close)

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine in the loop, from any thread."""
        try:
            refuse_in_fork(self.url)
        except OSError:
            work.close()
            raise
        if self._loop.is_closed() or not self._thread.is_alive():
            work.close()
            raise OSError(f"{self.url}: the reader is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls a function in the loop, from any thread; nothing where the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Ends what is on its way. The end of the process does so too."""
        atexit.unregister(self.close)
        if not self._loop.is_closed() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def get(self, key: str, start: int, stop: int) -> Any:
        """The bytes as a buffer. Raises OSError; what will not change is raised at once."""
        if stop - start <= self._part:
            return await self._part_of(key, start, stop)
        edges = [*range(start, stop, self._part), stop]
        found = bytearray(stop - start)

        async def fill(begin: int, end: int) -> None:
            found[begin - start : end - start] = await self._part_of(key, begin, end)

        try:
            async with asyncio.TaskGroup() as group:
                for begin, end in pairwise(edges):
                    group.create_task(fill(begin, end))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return found

    async def copy(self, key: str, length: int, descriptor: int) -> None:
        """Writes a whole object of known length into a file, part by part, in the memory of a few parts."""
        starts = iter(range(0, length, self._part))

        async def work() -> None:
            for start in starts:
                stop = min(start + self._part, length)
                os.pwrite(descriptor, await self._part_of(key, start, stop), start)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_COPIED_AT_ONCE):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def whole(self, key: str) -> bytes:
        """A small object of unknown length."""
        return bytes(await self._again(lambda: self._store.get_whole(key)))

    async def size(self, key: str) -> int:
        """Bytes of an object."""
        return int(await self._again(lambda: self._store.size(key)))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            # Again until none is left: what was asked for just before the end begins only now.
            while left := asyncio.all_tasks(self._loop):
                for task in left:
                    task.cancel()
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _part_of(self, key: str, start: int, stop: int) -> Any:
        async with self._slots:
            found = await self._again(lambda: self._hedged(key, start, stop))
        self.counts.bytes += stop - start
        return found

    async def _again(self, ask: Any) -> Any:
        for attempt in range(self._attempts):
            try:
                return await ask()
            except TransientError as error:
                if attempt + 1 == self._attempts:
                    raise OSError(f"{error}, {self._attempts} times") from None
            self.counts.repeated += 1
            await asyncio.sleep(random.uniform(0, 2) * min(self._backoff * 2**attempt, 5.0))
        raise AssertionError

    async def _hedged(self, key: str, start: int, stop: int) -> Any:
        """One request, and a second one where it is slow: the first answer of the two."""
        length, begun = stop - start, time.monotonic()
        self.counts.first += 1
        first = asyncio.ensure_future(self._store.get(key, start, stop))
        waiting = {first}
        try:
            await asyncio.wait(waiting, timeout=self._hedging.patience_s(length))
            if not first.done() and self._hedging.allowed():
                self.counts.hedged += 1
                waiting.add(asyncio.ensure_future(self._store.get(key, start, stop)))
            while True:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None]
                if good or not waiting:
                    break
            if good:
                self._hedging.took(length, time.monotonic() - begun)
                return good[0].result()
            return done.pop().result()
        finally:
            for task in waiting:
                task.cancel()
