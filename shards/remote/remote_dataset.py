"""The files of a dataset in an object store: small ones whole, the index copied, the shards by range."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import xxhash

from shards.format.index import Index
from shards.remote.disk_cache import DiskCache
from shards.remote.object_files import ObjectFiles
from shards.remote.object_store import ObjectStore
from shards.remote.range_requests import RangeRequests

_WAIT_S = 120.0  # for an index that another process fetches


class RemoteDataset:
    """A dataset below a URL such as s3://bucket/prefix.

    cache   keeps the index and pieces of shards; None keeps of the shards what is read ahead, in memory
    """

    def __init__(self, url: str, cache: DiskCache | None = None) -> None:
        self.url = url.rstrip("/")
        self._cache = cache
        self._files: ObjectFiles | None = None
        self._requests = RangeRequests(ObjectStore(self.url))

    def read(self, name: str) -> bytes:
        """A small file. Raises OSError, one line."""
        return self._requests.submit(self._requests.whole(name)).result()

    def open_index(self, name: str, checksum: str) -> Index:
        """The index, fetched once and mapped. Raises OSError, or ValueError where it is another one."""
        kept = f"{checksum}.arrow"
        if self._cache is None:
            return self._fetched(name, checksum, None)
        until = time.monotonic() + _WAIT_S
        while not (found := self._cache.kept(kept)):
            if self._cache.claim(kept) or time.monotonic() > until:
                try:
                    return self._fetched(name, checksum, self._cache)
                finally:
                    self._cache.release(kept)
            time.sleep(0.02)
        return Index(found)

    def shards(self, shards: Sequence[Mapping[str, Any]]) -> ObjectFiles:
        """Ranges of the shards, as dataset.json lists them."""
        self._files = ObjectFiles(
            self._requests,
            [shard["name"] for shard in shards],
            [shard["checksum"] for shard in shards],
            [shard["bytes"] for shard in shards],
            self._cache,
        )
        return self._files

    def close(self) -> None:
        """Ends what is on its way."""
        if self._files is not None:
            self._files.close()
        self._requests.close()

    def _fetched(self, name: str, checksum: str, cache: DiskCache | None) -> Index:
        length = self._requests.submit(self._requests.size(name)).result()
        if cache is not None:
            with cache.file(f"{checksum}.arrow", length) as path:
                if path is not None:
                    self._copy(name, checksum, length, path)
            if found := cache.kept(f"{checksum}.arrow"):
                return Index(found)
        with _temporary() as path:
            self._copy(name, checksum, length, path)
            return Index(path)  # a mapped file lives on when its name is gone

    def _copy(self, name: str, checksum: str, length: int, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._requests.submit(self._requests.copy(name, length, descriptor)).result()
            digest = xxhash.xxh3_128()
            for offset in range(0, length, 2**22):
                digest.update(os.pread(descriptor, 2**22, offset))
        finally:
            os.close(descriptor)
        if digest.hexdigest() != checksum:
            raise ValueError(f"{self.url}/{name}: is not the index that dataset.json names")


@contextmanager
def _temporary() -> Iterator[str]:
    descriptor, path = tempfile.mkstemp(suffix=".arrow")
    os.close(descriptor)
    try:
        yield path
    finally:
        os.unlink(path)
