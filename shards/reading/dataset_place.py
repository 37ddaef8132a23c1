"""Where the files of a dataset lie: a folder of this machine, or a URL of an object store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from shards.format.index import Index
from shards.reading.byte_ranges import ByteRanges
from shards.reading.local_files import LocalFiles
from shards.remote.disk_cache import DiskCache


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
        raise OSError(
            f"{folder}: needs the package {error.name}: pip install 'persona[object-stores]'"
        ) from None
    return RemoteDataset(folder, cache)
