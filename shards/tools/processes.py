"""Work on many shards, one after another or in several processes; results come in their order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


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
