"""Writes a dataset from a stream of samples: the tar of a shard, a shard with its index rows, the whole.

A shard is a plain USTAR tar with fixed times and owners; checksums are computed as it is written.
"""

import tarfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash

from shards.format.atomic_file import AtomicFile, write_whole
from shards.format.card import CARD, card_files
from shards.format.contents import Census, facets_of, licences_of
from shards.format.dataset import dataset_bytes, shard_name
from shards.format.index import INDEX_SCHEMA, IndexWriter, index_rows
from shards.format.members import is_picture

_BLOCK = 512
_JOINED_BYTES = 32_768  # up to here a copy costs less than more writes
_PLACES = ("key", "shard", "offset", "length", "members")
# Columns that tell of the content; a copy of a sample has the same.
FACETS = [name for name in INDEX_SCHEMA.names if name not in _PLACES]
_HEADER = 512


@dataclass(frozen=True)
class Member:
    """A member as the index holds it. `checksum` is xxh3-128 of its bytes, hex."""

    key: str
    member: str
    offset: int
    length: int
    checksum: str


class ShardWriter:
    """`add` members in order, then `close`; a shard appears whole or not at all.

    As a context manager it leaves nothing behind unless it was closed.
    """

    def __init__(self, path: str) -> None:
        self._file = AtomicFile(path)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.discard()

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return self._file.length

    def add(self, key: str, name: str, data: bytes) -> Member:
        """Appends one member of the sample `key`."""
        head, padding = header_of(name, len(data)), bytes(-len(data) % _BLOCK)
        start = self._file.length + len(head)
        if len(data) <= _JOINED_BYTES:
            self._file.write(b"".join((head, data, padding)))
        else:
            for part in (head, data, padding):
                self._file.write(part)
        return Member(key, name, start, len(data), xxhash.xxh3_128_hexdigest(data))

    def close(self) -> tuple[int, str]:
        """Ends the tar and makes it visible. Returns its bytes and the xxh3-128 of the whole."""
        self._file.write(bytes(2 * _BLOCK))
        self._file.commit()
        return self._file.length, self._file.checksum


def header_of(name: str, size: int) -> bytes:
    """The header of a member, as `tarfile` writes it in its PAX format, with mode 644 and nothing else.

    A name beyond USTAR's 255 bytes, or not in ASCII, gets a PAX header before it.
    """
    if len(name) >= _NAME_BYTES or size > _USTAR_BYTES or not name.isascii():
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        return header.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
    block, encoded, octal = bytearray(_EMPTY), name.encode(), b"%011o" % size
    block[: len(name)] = encoded
    block[_SIZE] = octal
    block[_SUM] = b"%06o\0" % (_EMPTY_SUM + sum(encoded) + sum(octal))
    return bytes(block)


def _empty() -> bytes:
    """The header of a member without a name and a size, its checksum as blanks, as which it is summed."""
    header = tarfile.TarInfo("")
    header.mode = 0o644
    block = bytearray(header.tobuf(format=tarfile.PAX_FORMAT))
    block[_SUM] = b" " * 7  # the eighth is one already
    block[_SIZE] = bytes(11)
    return bytes(block)


# Fields of a header block, POSIX.1-1988 (ustar): name 100 bytes, size 12 from 124, checksum 8 from 148.
_NAME_BYTES, _SIZE, _SUM = 100, slice(124, 135), slice(148, 155)
_USTAR_BYTES = 8**11 - 1
_EMPTY = _empty()
_EMPTY_SUM = sum(_EMPTY)


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
        contents = facets_of(members) if facets is None else {name: facets[name] for name in FACETS}
        photos = sum(is_picture(suffix) for suffix in members)
        self._photos += photos
        self._census.add(key, contents["people"], licences_of(members))
        span = {"key": key, "shard": self._number, "offset": start, "length": self._writer.length - start}
        self._rows.append({**span, **contents, "members": places})

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
        """Ends the dataset. `about`: keys of dataset.json besides the counts."""
        if self._shard is not None:
            self._end_shard()
        self._await_shard()
        self._thread.shutdown()
        hashes = self._index.close()
        record = {"config": "", "models": {}, **self._census.to_json(), **about, "index": hashes}
        record["card"] = list(CARD)
        files = card_files(title, self._entries, record)
        for name, data in {**files, "dataset.json": dataset_bytes(self._entries, record)}.items():
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
