"""Memory of batches that is used again as soon as nothing refers to it.

A batch of pictures is tens of megabytes; memory that is fresh from the system costs a fault for every
page of it, which is a fifth of the time of decoding. An array that was taken belongs to whoever holds
it, or any view of it, for as long as they like: only what nobody holds any more is handed out again.
"""

from collections import deque
from typing import Any

import numpy as np

_KEPT = 4  # unused pieces of one size


class BatchMemory:
    """Hands out arrays with undefined content. Safe to use from several threads."""

    def __init__(self) -> None:
        self._unused: dict[int, deque[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of this shape."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        unused = self._unused.setdefault(size, deque(maxlen=_KEPT))
        try:
            memory = unused.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Lease(memory, unused)).view(kind).reshape(shape)


class _Lease:
    """What every view of an array refers to in the end (numpy's `base`); its end is theirs."""

    def __init__(self, memory: np.ndarray, unused: deque[np.ndarray]) -> None:
        self._memory, self._unused = memory, unused
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._unused.append(self._memory)
