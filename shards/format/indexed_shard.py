"""One shard that is being written, and what the index and dataset.json say of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shards.format.census import Census, licences_of
from shards.format.facets import facets_of
from shards.format.index import INDEX_SCHEMA, index_rows
from shards.format.names import is_picture
from shards.format.tar_writer import ShardWriter

_PLACES = ("key", "shard", "offset", "length", "members")
# Columns that tell of the content; a copy of a sample has the same.
FACETS = [name for name in INDEX_SCHEMA.names if name not in _PLACES]


@dataclass(frozen=True)
class WrittenShard:
    """entry: its part of `shards` in dataset.json; rows: its part of the index."""

    entry: dict[str, Any]
    rows: pa.Table


class IndexedShard:
    """`add` samples, then `close`; as a context manager it leaves nothing behind unless closed."""

    def __init__(self, folder: str, name: str, number: int, census: Census) -> None:
        self._writer = ShardWriter(f"{folder}/{name}")
        self._name, self._number, self._census = name, number, census
        self._rows: list[dict[str, Any]] = []
        self._photos = 0

    def __enter__(self) -> "IndexedShard":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._writer.__exit__(kind, error, trace)

    def __len__(self) -> int:
        """Samples so far."""
        return len(self._rows)

    @property
    def length(self) -> int:
        """Bytes so far."""
        return self._writer.length

    def add(self, key: str, members: Mapping[str, bytes], facets: Mapping[str, Any] | None = None) -> None:
        """Appends a sample: {suffix: bytes}, in this order. `facets`: of the index, where known."""
        start = self._writer.length
        places = []
        for suffix, data in members.items():
            member = self._writer.add(key, f"{key}.{suffix}", data)
            places.append(
                {
                    "suffix": suffix,
                    "offset": member.offset,
                    "length": member.length,
                    "checksum": bytes.fromhex(member.checksum),
                }
            )
        said = facets_of(members) if facets is None else {name: facets[name] for name in FACETS}
        photos = sum(is_picture(suffix) for suffix in members)
        self._photos += photos
        self._census.add(key, said["people"], licences_of(members))
        span = {"key": key, "shard": self._number, "offset": start, "length": self._writer.length - start}
        self._rows.append({**span, **said, "members": places})

    def close(self) -> WrittenShard:
        """Makes the shard visible."""
        size, checksum = self._writer.close()
        entry = {
            "name": self._name,
            "groups": len(self._rows),
            "photos": self._photos,
            "bytes": size,
            "checksum": checksum,
        }
        return WrittenShard(entry, index_rows(self._rows))
