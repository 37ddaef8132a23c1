"""Bytes of shards on a local disk, by place: one open file a shard, read at offsets from any thread."""

import os
import threading
from collections.abc import Sequence
from typing import Any

from shards.reading.byte_ranges import Span

_OPEN_FILES = 256


class LocalFiles:
    """Reads ranges of numbered files. Safe to call from several threads."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self._open: dict[int, _OpenFile] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return LocalFiles, (self._paths,)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises OSError, also where the file ends before."""
        opened = self._open.get(file) or self._opened(file)
        data = os.pread(opened.descriptor, length, offset)
        while len(data) < length:  # a signal may cut a read short
            more = os.pread(opened.descriptor, length - len(data), offset + len(data))
            if not more:
                size = os.fstat(opened.descriptor).st_size
                raise OSError(f"{self._paths[file]}: ends at byte {size}, wanted {offset + length}")
            data += more
        return data

    def prefetch(self, spans: Sequence[Span]) -> None:
        """Tells the system what will be read soon. Errors wait for `read`."""
        for file, offset, length in spans:
            try:
                opened = self._open.get(file) or self._opened(file)
                os.posix_fadvise(opened.descriptor, offset, length, os.POSIX_FADV_WILLNEED)
            except OSError:
                continue

    def close(self) -> None:
        """Closes what is open, as soon as nobody reads from it any more."""
        with self._lock:
            self._open.clear()

    def _opened(self, file: int) -> "_OpenFile":
        with self._lock:
            opened = self._open.get(file)
            if opened is None:
                if len(self._open) >= _OPEN_FILES:
                    del self._open[next(iter(self._open))]
                opened = self._open[file] = _OpenFile(self._paths[file])
            return opened


class _OpenFile:
    """A descriptor that lives as long as a thread still reads from it, also when it was put away."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
