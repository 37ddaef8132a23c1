"""Sources whose samples are plain values, and a decoder of them: for tests of order and state."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shards.reading.loader import Loader
from shards.reading.source import Source


class Values(Source):
    """A source of given values."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = list(values)

    def __len__(self) -> int:
        return len(self._values)

    def read(self, sample: int) -> Any:
        return self._values[sample]


class AsList:
    """Decodes a value into a list."""

    def allocate(self, batch: int) -> dict[str, Any]:
        return {"value": [None] * batch}

    def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
        arrays["value"][slot] = sample


def values_of(batch: Any) -> list[Any]:
    """What a batch holds, without the slots that only fill it."""
    return [v for v, weight in zip(batch.arrays["value"], np.asarray(batch.weight), strict=True) if weight]


def read_by_ranks(loaders: list[Loader], steps: int) -> list[Any]:
    """What all ranks together read in so many steps, or to the end of the epoch, in the global order."""
    readers = [iter(loader) for loader in loaders]
    read: list[Any] = []
    for _ in range(steps):
        batches = [next(reader, None) for reader in readers]
        if batches[0] is None:
            break
        for batch in batches:
            read += values_of(batch)
    for reader in readers:
        reader.close()  # type: ignore[attr-defined]
    return read
