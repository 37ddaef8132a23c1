"""Makes the index of a folder of tars: of other people's WebDataset shards, or of ours where it was lost.

Each tar is read once, sample by sample, into rows of the index; everything that readers would trip over is
an error that names the file and the offset.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from shards.format.atomic_file import write_whole
from shards.format.contents import Census, facets_of, licences_of
from shards.format.dataset import DatasetError, dataset_bytes, index_name, read_json, remove_temporaries
from shards.format.index import IndexWriter, index_rows
from shards.format.members import is_picture, pictures_of, split_name
from shards.format.tar_reader import Entry, TarError, check_end, walk
from shards.reading.folder import read_dataset_json
from shards.tools.commands import folder_of, on_disk, processes_of, processes_option, progress_of, say
from shards.tools.whole_shards import ForwardReader, in_order

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
    described = {"name": name, "groups": len(rows), "photos": photos, "bytes": size, "checksum": checksum}
    hashes = np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in seen], np.uint64)
    return ScannedShard(index_rows(rows), described, hashes, census)


def _place(reader: ForwardReader, entry: Entry, suffix: str, contents: dict[str, bytes]) -> dict[str, Any]:
    """The place of a member; keeps its content where the index has facts of it."""
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


def build_index(
    folder: str, *, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Writes index.parquet, index.arrow and, where there is none, dataset.json. Returns the latter.

    Where dataset.json is there, its shards must be those that it tells of. Raises DatasetError, one line
    with file and offset, for a tar that readers could not use.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    known = read_dataset_json(root) if (root / "dataset.json").exists() else None
    names = [shard["name"] for shard in known["shards"]] if known else _tars(root)
    remove_temporaries(root)
    census, entries = Census(), []
    hashes: list[np.ndarray] = []
    work = partial(_scan_named, folder)
    stem = index_name(known or {}, "arrow").removesuffix(".arrow")
    with IndexWriter(folder, stem) as index:
        for number, shard in enumerate(in_order(work, list(enumerate(names)), processes)):
            if known is not None:
                _check_known(root, known["shards"][number], shard.entry)
            entries.append(shard.entry)
            hashes.append(shard.key_hashes)
            census.licences += shard.census.licences
            census.photos_per_group += shard.census.photos_per_group
            census.identities |= shard.census.identities
            index.write(shard.rows)
            if progress is not None:
                progress(number + 1, len(names))
        _check_keys(folder, names, hashes)
        written = index.close()
    counts = census.to_json()
    if known is not None and {**known, **counts, "index": written} == known:
        return known
    about = {**({"lineage": {"operation": "index"}} if known is None else known), **counts}
    data = dataset_bytes(entries, {**about, "index": written})
    write_whole(root / "dataset.json", data)
    return dict(read_json(root / "dataset.json"))


def _tars(root: Path) -> list[str]:
    names = sorted(path.name for path in root.glob("*.tar"))
    if not names:
        raise DatasetError(f"{root}: holds no .tar")
    return names


def _scan_named(folder: str, shard: tuple[int, str]) -> ScannedShard:
    return scan_shard(str(Path(folder) / shard[1]), shard[0])


def _check_known(root: Path, known: dict[str, Any], found: dict[str, Any]) -> None:
    for name in ("bytes", "checksum", "groups"):
        if known[name] != found[name]:
            raise DatasetError(
                f"{root / known['name']}: {name} {found[name]}, but dataset.json says {known[name]}: "
                "see persona shards verify; without dataset.json, what is there is indexed"
            )


def _check_keys(folder: str, names: list[str], hashes: list[np.ndarray]) -> None:
    """Raises DatasetError where two shards have one key: readers would take them for two samples."""
    together = np.concatenate([*hashes, np.empty(0, np.uint64)])
    values, counts = np.unique(together, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[str, str] = {}
    for number, (name, keys) in enumerate(zip(names, hashes, strict=True)):
        if suspects.isdisjoint(keys.tolist()):
            continue
        for row in scan_shard(str(Path(folder) / name), number).rows.select(["key", "offset"]).to_pylist():
            if row["key"] in seen:
                other = seen[row["key"]]
                raise DatasetError(
                    f"{folder}/{name}: byte {row['offset']}: sample {row['key']!r} is in {other} too"
                )
            seen[row["key"]] = name


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards index`."""
    parser.add_argument("folder", metavar="DIR")
    processes_option(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    folder = folder_of(on_disk(options.folder))
    about = build_index(folder, processes=processes_of(options), progress=progress_of(options))
    counts = {name: about[name] for name in ("groups", "photos", "bytes")} | {"shards": len(about["shards"])}
    say(
        options,
        counts,
        [f"{counts['groups']} samples in {counts['shards']} shards, {counts['photos']} photos"],
    )
    return 0
