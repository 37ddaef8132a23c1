"""Pieces of remote shards in memory, where there is no disk to keep them: the read-ahead alone."""

import threading
from collections import OrderedDict
from typing import Any


class MemoryCache:
    """Entries by name, up to a number of bytes; those used longest ago make way. Safe for threads."""

    writable = True

    def __init__(self, *, max_bytes: int) -> None:
        self._max, self._bytes = max_bytes, 0
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, length: int, of: int, *, check: bool) -> bytes | None:
        """`length` bytes of an entry; None where it is missing."""
        with self._lock:
            data = self._entries.get(name)
            if data is None:
                return None
            self._entries.move_to_end(name)
        return data[offset : offset + length]

    def holds(self, name: str) -> bool:
        """Whether there is such an entry; it may be gone when it is read."""
        return name in self._entries

    def write(self, name: str, data: Any) -> bool:
        """Keeps an entry; False where it is larger than the cache."""
        kept = bytes(data)
        if len(kept) > self._max:
            return False
        with self._lock:
            self._bytes += len(kept) - len(self._entries.pop(name, b""))
            self._entries[name] = kept
            while self._bytes > self._max:
                self._bytes -= len(self._entries.popitem(last=False)[1])
        return True

    def claim(self, name: str) -> bool:
        """There are no other processes to agree with."""
        return True

    def release(self, name: str) -> None:
        """There are no other processes to agree with."""
