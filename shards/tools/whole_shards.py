"""Whole shards, read through: each once from front to back and hashed, many in several processes."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import IO, Any, TypeVar

import xxhash

_CHUNK = 2**20
Given = TypeVar("Given")
Made = TypeVar("Made")


class ForwardReader:
    """`stream` is at its beginning. Places that are asked for must not lie before what was read."""

    def __init__(self, stream: IO[bytes] | Any) -> None:
        self._stream = stream
        self._digest = xxhash.xxh3_128()
        self.at = 0

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset; fewer only where the file ends."""
        if offset < self.at:
            raise ValueError(f"byte {offset} lies before byte {self.at}, where the reader is")
        for _ in self._chunks(offset - self.at):
            pass
        return b"".join(self._chunks(length))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """The same, in pieces of at most 1 MiB."""
        self.read(offset, 0)
        return self._chunks(length)

    def finish(self) -> tuple[int, str]:
        """Reads to the end. Returns the bytes of the file and the xxh3-128 of all."""
        while self.read(self.at, _CHUNK):
            pass
        return self.at, str(self._digest.hexdigest())

    def _chunks(self, length: int) -> Iterator[bytes]:
        while length > 0:
            data = self._stream.read(min(length, _CHUNK))
            if not data:
                return
            self._digest.update(data)
            self.at += len(data)
            length -= len(data)
            yield data


def in_order(work: Callable[[Given], Made], given: Iterable[Given], processes: int) -> Iterator[Made]:
    """`work` of each, in the order given; of what is given, two a process are taken ahead."""
    if processes < 2:
        yield from map(work, given)
        return
    # Not fork: Arrow has threads.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[Made]] = deque()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            for item in given:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
