"""Writes a whole dataset from a stream of samples: shards, index, card and, last, dataset.json."""

from collections.abc import Mapping
from typing import Any

from shards.atomic_file import AtomicFile
from shards.dataset import card_bytes, dataset_bytes
from shards.facets import facets_of, is_picture
from shards.index import IndexWriter, index_rows
from shards.tar_writer import ShardWriter


class DatasetWriter:
    """`add` samples, then `close`. Nothing is seen of a shard before it is whole, nor of the dataset.

    max_samples, max_bytes   of one shard; a sample that is larger alone fills one by itself
    """

    def __init__(self, folder: str, *, max_samples: int = 1000, max_bytes: int = 512 * 2**20) -> None:
        self._folder = folder
        self._max = (max_samples, max_bytes)
        self._index = IndexWriter(folder)
        self._writer: ShardWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._shards: list[dict[str, Any]] = []

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
        self._index.__exit__(kind, error, trace)

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Appends a sample: {suffix: bytes}, in this order. Raises ValueError for a key that readers cut."""
        if "." in key or "/" in key or not key:
            raise ValueError(f"sample key {key!r}: must not be empty or hold '.' or '/'")
        size = sum(512 + len(data) + -len(data) % 512 for data in members.values())
        if self._writer is not None and (
            len(self._rows) >= self._max[0] or self._writer.length + size > self._max[1]
        ):
            self._end_shard()
        if self._writer is None:
            self._writer = ShardWriter(f"{self._folder}/{len(self._shards):06d}.tar")
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
        self._rows.append(
            {
                "key": key,
                "shard": len(self._shards),
                "offset": start,
                "length": self._writer.length - start,
                **facets_of(members),
                "members": places,
            }
        )

    def close(self, title: str, about: dict[str, Any]) -> None:
        """Ends the dataset. `about`: what dataset.json says beside the counts."""
        if self._writer is not None:
            self._end_shard()
        hashes = self._index.close()
        filled = {
            "licences": {},
            "models": {},
            "photos_per_group": {},
            "identities": 0,
            "config": "",
            **about,
        }
        for name, data in (
            ("README.md", card_bytes(title, self._shards, filled)),
            (
                "dataset.json",
                dataset_bytes(self._shards, hashes["index.parquet"], {**about, "index": hashes}),
            ),
        ):
            with AtomicFile(f"{self._folder}/{name}") as file:
                file.write(data)
                file.commit()

    def _end_shard(self) -> None:
        assert self._writer is not None
        size, checksum = self._writer.close()
        photos = sum(is_picture(place["suffix"]) for row in self._rows for place in row["members"])
        self._shards.append(
            {
                "name": f"{len(self._shards):06d}.tar",
                "groups": len(self._rows),
                "photos": photos,
                "bytes": size,
                "checksum": checksum,
            }
        )
        self._index.write(index_rows(self._rows))
        self._writer, self._rows = None, []
