"""What a tar holds, sample by sample, as rows of the index; everything that readers would trip over is
an error that names the file and the offset."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from shards.format.census import Census, licences_of
from shards.format.facets import facets_of
from shards.format.index import index_rows
from shards.format.names import is_picture, split_name
from shards.format.photo_records import pictures_of
from shards.format.tar_reader import Entry, TarError, check_end, walk
from shards.reading.folder import DatasetError
from shards.tools.forward_reader import ForwardReader

_MAX_KEPT_BYTES = 256 * 2**20  # of one member that the index looks into: a picture, a caption, a record


@dataclass(frozen=True)
class ScannedShard:
    """rows of the index; entry of `shards` in dataset.json; key_hashes uint64 [groups], to find keys
    that two shards have; census of its samples."""

    rows: pa.Table
    entry: dict[str, Any]
    key_hashes: np.ndarray
    census: Census


@dataclass
class _Open:
    """The sample that is being read."""

    key: str
    start: int
    end: int = 0
    places: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)


def scan_shard(path: str, number: int) -> ScannedShard:
    """Reads a tar once. Raises DatasetError, one line with the file and the offset."""
    try:
        with Path(path).open("rb") as stream:
            return _scan(ForwardReader(stream), os.fstat(stream.fileno()).st_size, Path(path).name, number)
    except TarError as error:
        raise DatasetError(f"{path}: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from None


def _scan(reader: ForwardReader, size: int, name: str, number: int) -> ScannedShard:
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    census = Census()
    photos = 0
    sample: _Open | None = None

    def close(done: _Open | None) -> None:
        nonlocal photos
        if done is None:
            return
        facets = facets_of(done.contents)
        census.add(done.key, facets["people"], licences_of(done.contents))
        photos += len(pictures_of(done.contents))
        span = {"key": done.key, "shard": number, "offset": done.start, "length": done.end - done.start}
        rows.append({**span, **facets, "members": done.places})

    for entry in walk(reader.read, size):
        split = split_name(entry.name) if entry.is_file else None
        if split is None:
            continue
        key, suffix = split
        if sample is None or sample.key != key:
            close(sample)
            if key in seen:
                raise TarError(
                    entry.start,
                    f"sample {key!r} is split: it began at byte {seen[key]}, another sample lies between",
                )
            seen[key] = entry.start
            sample = _Open(key, entry.start)
        if any(place["suffix"].lower() == suffix.lower() for place in sample.places):
            raise TarError(entry.start, f"sample {key!r} has its member {suffix!r} twice")
        sample.places.append(_place(reader, entry, suffix, sample.contents))
        sample.end = entry.end
    close(sample)
    check_end(reader.read, size, reader.at)
    _, checksum = reader.finish()
    said = {"name": name, "groups": len(rows), "photos": photos, "bytes": size, "checksum": checksum}
    hashes = np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in seen], np.uint64)
    return ScannedShard(index_rows(rows), said, hashes, census)


def _place(reader: ForwardReader, entry: Entry, suffix: str, contents: dict[str, bytes]) -> dict[str, Any]:
    """Where a member lies; keeps its content where the index tells of it."""
    digest = xxhash.xxh3_128()
    ending = suffix.rpartition(".")[2].lower()
    wanted = ending in ("txt", "json") or is_picture(suffix)
    kept: list[bytes] | None = [] if wanted and entry.length <= _MAX_KEPT_BYTES else None
    left = entry.length
    for data in reader.chunks(entry.offset, entry.length):
        digest.update(data)
        left -= len(data)
        if kept is not None:
            kept.append(data)
    if left:
        raise TarError(entry.start, f"{entry.name!r} ends {left} bytes early")
    contents[suffix] = b"".join(kept or [])
    return {
        "suffix": suffix,
        "offset": entry.offset,
        "length": entry.length,
        "checksum": digest.digest(),
    }
