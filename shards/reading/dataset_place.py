"""Where the files of a dataset lie: a folder of this machine, or a URL of an object store."""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edges.extras import install_line
from shards.format.index import Index, Span
from shards.remote.disk_cache import DiskCache

_OPEN_FILES = 256


class ByteRanges(Protocol):
    """Ranges of numbered files. Safe to call from several threads."""

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises OSError, also where the file ends before."""
        ...

    def prefetch(self, spans: Sequence[Span]) -> None:
        """Announces what will be read next, in this order. Returns at once; a later read fails, not this."""
        ...

    def close(self) -> None:
        """Gives up what is open or on its way."""
        ...


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
        """Announces to the system what will be read soon. Errors are raised by `read`."""
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


class DatasetPlace(Protocol):
    """The files of one dataset."""

    def read(self, name: str) -> bytes:
        """A small file. Raises OSError, FileNotFoundError where there is none."""
        ...

    def open_index(self, name: str, checksum: str) -> Index:
        """The index, mapped. Raises OSError, or ValueError where it is no index or another one."""
        ...

    def shards(self, shards: Sequence[Mapping[str, Any]]) -> ByteRanges:
        """Ranges of the shards, numbered as dataset.json lists them."""
        ...

    def close(self) -> None:
        """Closes what is open, the shards included."""
        ...


class LocalPlace:
    """A dataset in a folder of this machine."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._files: LocalFiles | None = None

    def read(self, name: str) -> bytes:
        """A small file."""
        return (self._folder / name).read_bytes()

    def open_index(self, name: str, checksum: str) -> Index:
        """The index where it lies; `persona shards verify` is what compares it with its checksum."""
        return Index(str(self._folder / name))

    def shards(self, shards: Sequence[Mapping[str, Any]]) -> LocalFiles:
        """Ranges of the shards."""
        self._files = LocalFiles([str(self._folder / shard["name"]) for shard in shards])
        return self._files

    def close(self) -> None:
        """Closes the shards."""
        if self._files is not None:
            self._files.close()


def place_of(folder: str, cache: DiskCache | None) -> DatasetPlace:
    """The place that a path or URL names. Raises OSError for a URL that names none."""
    if "://" not in folder:
        return LocalPlace(folder)
    try:
        from shards.remote.remote_dataset import RemoteDataset  # here: its client is needed by URLs alone
    except ModuleNotFoundError as error:
        raise OSError(f"{folder}: needs the package {error.name}: {install_line('object-stores')}") from None
    return RemoteDataset(folder, cache)
