"""Bytes of shards on a local disk, by place: one open file a shard, read at offsets from any thread."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

_OPEN_FILES = 256


class LocalFiles:
    """Reads ranges of numbered files. Safe to call from several threads."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._users: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises OSError, also where the file ends before."""
        descriptor = self._take(file)
        try:
            data = os.pread(descriptor, length, offset)
            while len(data) < length:  # a signal may cut a read short
                more = os.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    size = os.fstat(descriptor).st_size
                    raise OSError(f"{self._paths[file]}: ends at byte {size}, wanted {offset + length}")
                data += more
            return data
        finally:
            self._give_back(descriptor)

    def close(self) -> None:
        """Closes what is open."""
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def _take(self, file: int) -> int:
        with self._lock:
            descriptor = self._open.get(file)
            if descriptor is None:
                descriptor = self._open[file] = os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC)
            self._open.move_to_end(file)
            self._users[descriptor] = self._users.get(descriptor, 0) + 1
            if len(self._open) > _OPEN_FILES:
                for other, handle in list(self._open.items()):
                    if not self._users.get(handle):
                        os.close(self._open.pop(other))
                        self._users.pop(handle, None)
                        break
            return descriptor

    def _give_back(self, descriptor: int) -> None:
        with self._lock:
            self._users[descriptor] -= 1
