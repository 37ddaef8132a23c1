"""Which parts of objects are fetched when: what is waited for at once, what comes later in its order.

Neighbouring spans are fetched in one request. All state belongs to the event loop of the requests, so
there are no locks.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from shards.format.index import Span
from shards.remote.range_requests import RangeRequests

_GAP_BYTES = 65_536  # spans that lie nearer are fetched in one request
RUN_BYTES = 4 * 2**20
_AHEAD = 16  # requests at a time for what nobody waits for yet


class FetchSink(Protocol):
    """Store of fetched spans, besides the threads that wait for them."""

    def wants(self, span: Span) -> bool:
        """Whether a span is to be fetched ahead now: False where the sink has it, or another
        process fetches it."""
        ...

    def holds(self, span: Span) -> bool:
        """Whether the sink has a span."""
        ...

    def has_room(self) -> bool:
        """Whether more may be fetched ahead. When that changes to yes, `FetchQueue.go_on` is called."""
        ...

    def put(self, span: Span, data: memoryview) -> None:
        """Stores a fetched span. Called on a thread; must not raise."""
        ...

    def missed(self, span: Span) -> None:
        """Notes that a span could not be fetched."""
        ...


class _Run:
    """Spans that one request gets."""

    def __init__(self, spans: list[Span]) -> None:
        self.file, self.start = spans[0].file, spans[0].offset
        self.stop = max(span.offset + span.length for span in spans)
        self.spans = spans
        self.ahead = True  # nobody waited for it when it began
        self.task: asyncio.Task[Any] | None = None  # None while it is queued


class FetchQueue:
    """Fetches spans of numbered objects. Safe to call from several threads.

    keys        the objects' names below the store's URL
    run_bytes   up to which neighbouring spans are fetched in one request
    """

    def __init__(
        self, requests: RangeRequests, keys: Sequence[str], sink: FetchSink, *, run_bytes: int = RUN_BYTES
    ) -> None:
        self._requests, self._keys, self._sink = requests, list(keys), sink
        self._run_bytes = run_bytes
        self._runs: dict[Span, _Run] = {}  # queued or on their way, until the sink has them
        self._queue: dict[_Run, None] = {}
        self.waits = False  # for room in the sink
        self._active = 0  # runs ahead that are on their way, or being stored
        self._storing = ThreadPoolExecutor(2, thread_name_prefix="shards-store")
        self._tasks: set[asyncio.Task[Any]] = set()  # a loop alone would let go of them

    def ahead(self, spans: Sequence[Span]) -> None:
        """Fetches these later, in this order, where the sink still wants them then."""
        self._requests.call(self._enqueue, list(spans))

    def now(self, span: Span, offset: int, length: int, *, unless_held: bool) -> bytes | None:
        """`length` bytes at `offset` of a span, which is fetched before all that is ahead.

        unless_held   answers None where the sink has got the span since the caller looked for it there
        Raises OSError.
        """
        try:
            found = self._requests.submit(self._demand(span, unless_held)).result()
        except CancelledError:
            raise OSError(f"{self._requests.url}: the reader is closed") from None
        if found is None:
            return None
        data, start = found
        begin = span.offset + offset - start
        return bytes(memoryview(data)[begin : begin + length])

    def go_on(self) -> None:
        """Starts requests again: the sink has room."""
        self._requests.call(self._begin_next)

    def close(self) -> None:
        """Waits for what is being stored; the requests are closed before."""
        self._storing.shutdown()
        for span in self._runs:
            self._sink.missed(span)

    async def _demand(self, span: Span, unless_held: bool) -> tuple[Any, int] | None:
        """A buffer that holds the span, and the place in the object at which it starts."""
        run = self._runs.get(span)
        if run is None:
            # A run is forgotten here, after its spans were stored: this answer is not late again.
            if unless_held and self._sink.holds(span):
                return None
            run = self._runs[span] = _Run([span])
        if run.task is None:
            self._queue.pop(run, None)
            run.ahead = False
            self._begin(run)
        assert run.task is not None
        return await asyncio.shield(run.task), run.start

    def _enqueue(self, spans: list[Span]) -> None:
        missing = [span for span in dict.fromkeys(spans) if span not in self._runs]
        for run in _joined(missing, self._run_bytes):
            self._queue[run] = None
            self._runs.update(dict.fromkeys(run.spans, run))
        self._begin_next()

    def _begin_next(self) -> None:
        self.waits = False
        while self._queue and self._active < _AHEAD:
            if not self._sink.has_room():
                self.waits = True
                return
            run = next(iter(self._queue))
            del self._queue[run]
            self._forget(run)
            wanted = [span for span in run.spans if self._sink.wants(span)]
            for part in _joined(wanted, self._run_bytes):
                self._runs.update(dict.fromkeys(part.spans, part))
                self._begin(part)

    def _begin(self, run: _Run) -> None:
        self._active += run.ahead
        get = self._requests.get(self._keys[run.file], run.start, run.stop)
        run.task = asyncio.get_running_loop().create_task(get)
        run.task.add_done_callback(lambda task: self._arrived(run, task))

    def _arrived(self, run: _Run, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():
            return
        if task.exception() is None:
            storing = asyncio.get_running_loop().create_task(self._put(run, memoryview(task.result())))
            self._tasks.add(storing)
            storing.add_done_callback(self._tasks.discard)
            return
        for span in run.spans:
            self._sink.missed(span)
        self._end(run)  # whoever reads a span asks again, and gets the error

    async def _put(self, run: _Run, data: memoryview) -> None:
        def put() -> None:
            for span in run.spans:
                begin = span.offset - run.start
                self._sink.put(span, data[begin : begin + span.length])

        try:
            with suppress(RuntimeError):  # the process is ending, and starts no more work on threads
                await asyncio.get_running_loop().run_in_executor(self._storing, put)
        finally:
            self._end(run)

    def _end(self, run: _Run) -> None:
        self._active -= run.ahead
        self._forget(run)
        self._begin_next()

    def _forget(self, run: _Run) -> None:
        for span in run.spans:
            if self._runs.get(span) is run:
                del self._runs[span]


def _joined(spans: list[Span], run_bytes: int) -> list[_Run]:
    """Runs of spans that lie together, in the order in which the first span of each is wanted."""
    place = {span: number for number, span in enumerate(spans)}
    runs: list[list[Span]] = []
    for span in sorted(spans):
        last = runs[-1] if runs else []
        if (
            last
            and last[0].file == span.file
            and span.offset - last[-1].offset - last[-1].length <= _GAP_BYTES
            and span.offset + span.length - last[0].offset <= run_bytes
        ):
            last.append(span)
        else:
            runs.append([span])
    runs.sort(key=lambda run: min(place[span] for span in run))
    return [_Run(run) for run in runs]
