"""Writes a whole dataset from a stream of samples: shards, index, card and, last, dataset.json."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from shards.format.atomic_file import write_whole
from shards.format.card import CARD, card_files
from shards.format.census import Census
from shards.format.dataset import dataset_bytes
from shards.format.dataset_files import shard_name
from shards.format.index import IndexWriter
from shards.format.indexed_shard import IndexedShard, WrittenShard

_HEADER = 512


class DatasetWriter:
    """`add` samples, then `close`. Nothing is seen of a shard before it is whole, nor of the dataset.

    max_samples, max_bytes   of one shard; a sample that is larger alone fills one by itself
    prefix                   of the shards' names
    """

    def __init__(
        self, folder: str, *, max_samples: int = 1000, max_bytes: int = 512 * 2**20, prefix: str = ""
    ) -> None:
        self._folder, self._prefix = folder, prefix
        self._max = (max_samples, max_bytes)
        self._index = IndexWriter(folder)
        self._census = Census()
        self._shard: IndexedShard | None = None
        self._entries: list[dict[str, Any]] = []
        self._shards = 0
        # A shard that is full waits for its disk on a thread, while the next one is written.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shards-write")
        self._ending: Future[WrittenShard] | None = None

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._thread.shutdown()
        if self._shard is not None:
            self._shard.__exit__(kind, error, trace)
        self._index.__exit__(kind, error, trace)

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Appends a sample: {suffix: bytes}, in this order. Raises ValueError for a key that readers cut."""
        if "." in key or "/" in key or not key:
            raise ValueError(f"sample key {key!r}: must not be empty or hold '.' or '/'")
        size = sum(_HEADER + len(data) + -len(data) % _HEADER for data in members.values())
        if self._shard is not None and (
            len(self._shard) >= self._max[0] or self._shard.length + size > self._max[1]
        ):
            self._end_shard()
        if self._shard is None:
            number = self._shards
            self._shards += 1
            self._shard = IndexedShard(self._folder, shard_name(number, self._prefix), number, self._census)
        self._shard.add(key, members)

    def close(self, title: str, about: Mapping[str, Any]) -> None:
        """Ends the dataset. `about`: what dataset.json says beside the counts."""
        if self._shard is not None:
            self._end_shard()
        self._await_shard()
        self._thread.shutdown()
        hashes = self._index.close()
        said = {"config": "", "models": {}, **self._census.to_json(), **about, "index": hashes}
        said["card"] = list(CARD)
        files = card_files(title, self._entries, said)
        for name, data in {**files, "dataset.json": dataset_bytes(self._entries, said)}.items():
            write_whole(f"{self._folder}/{name}", data)

    def _end_shard(self) -> None:
        assert self._shard is not None
        self._await_shard()
        self._ending = self._thread.submit(_closed, self._shard)
        self._shard = None

    def _await_shard(self) -> None:
        """Takes the shard before the present one into the index. Raises OSError where it failed."""
        if self._ending is None:
            return
        written = self._ending.result()
        self._ending = None
        self._entries.append(written.entry)
        self._index.write(written.rows)


def _closed(shard: IndexedShard) -> WrittenShard:
    with shard:
        return shard.close()
