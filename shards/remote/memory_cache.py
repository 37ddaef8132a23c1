"""Pieces of remote shards in memory, where there is no disk to keep them: the read-ahead alone."""

import threading
from collections import OrderedDict
from typing import Any


class MemoryCache:
    """Entries by name, up to a number of bytes. Safe for several threads.

    What was read makes way first, then what was written longest ago.
    """

    writable = True

    def __init__(self, *, max_bytes: int) -> None:
        self._max, self._bytes, self._unread_bytes = max_bytes, 0, 0
        self._unread: OrderedDict[str, bytes] = OrderedDict()
        self._read: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, length: int, of: int, *, check: bool) -> bytes | None:
        """`length` bytes of an entry; None where it is missing."""
        with self._lock:
            data = self._unread.pop(name, None)
            if data is not None:
                self._unread_bytes -= len(data)
                self._read[name] = data
            else:
                data = self._read.get(name)
                if data is None:
                    return None
                self._read.move_to_end(name)
        return data[offset : offset + length]

    def holds(self, name: str) -> bool:
        """Whether there is such an entry; it may be gone when it is read."""
        return name in self._unread or name in self._read

    def write(self, name: str, data: Any) -> bool:
        """Keeps an entry; False where it is larger than the cache."""
        kept = bytes(data)
        if len(kept) > self._max:
            return False
        with self._lock:
            self._drop(name, self._unread)
            self._drop(name, self._read)
            self._unread[name] = kept
            self._bytes += len(kept)
            self._unread_bytes += len(kept)
            while self._bytes > self._max:
                oldest = self._read or self._unread
                self._drop(next(iter(oldest)), oldest)
        return True

    def has_room(self) -> bool:
        """Whether less than half of it waits to be read; the other half is for what is on its way."""
        return self._unread_bytes < self._max / 2

    def claim(self, name: str) -> bool:
        """There are no other processes to agree with."""
        return True

    def release(self, name: str) -> None:
        """There are no other processes to agree with."""

    def _drop(self, name: str, entries: OrderedDict[str, bytes]) -> None:
        data = entries.pop(name, b"")
        self._bytes -= len(data)
        if entries is self._unread:
            self._unread_bytes -= len(data)
