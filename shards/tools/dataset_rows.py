"""A dataset as tools read it: rows of its index in order, and the members of any of them."""

from collections.abc import Container, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from shards.format.dataset import DatasetError, index_name
from shards.format.dataset_tombstones import DatasetTombstones
from shards.format.index import INDEX_SCHEMA, IPC_ALONE
from shards.format.members import is_picture, photo_id_of, photo_ids, record_of
from shards.reading.folder import DatasetFolder, Sample

_ROWS = 4096
_AHEAD = 128  # samples


class _Records:
    """The suffixes of records, of the sample and of its photos."""

    def __contains__(self, suffix: object) -> bool:
        return isinstance(suffix, str) and suffix.rpartition(".")[2].lower() == "json"


class DatasetRows:
    """Raises DatasetError, one line, where a folder, or what a URL names, is no whole dataset.

    about   dataset.json
    table   the index, mapped: nothing is read of it before it is touched
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._data = DatasetFolder(folder)
        self.about = self._data.about
        self.table = self._data.index.table()
        counts = [int(shard["groups"]) for shard in self.about["shards"]]
        if sum(counts) != len(self.table):
            raise DatasetError(
                f"{folder}: dataset.json counts {sum(counts)} groups in its shards, "
                f"{index_name(self.about, 'arrow')} has {len(self.table)}"
            )
        # First row of each shard, and the number of rows behind the last.
        self.starts = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return len(self.table)

    def read(self, number: int, suffixes: Container[str] | None = None) -> Sample:
        """Members of a sample, all or some, each compared with its checksum. Raises DatasetError."""
        try:
            return self._data.read(number, suffixes)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.folder}: {error}") from None

    def announce(self, numbers: Sequence[int]) -> None:
        """Announces samples that will be read soon."""
        self._data.prefetch(np.asarray(numbers, np.int64))

    def records(self, number: int) -> dict[str, bytes]:
        """The members of a sample that are records, its own and those of its photos."""
        return self.read(number, _Records()).members

    def photo_records(self, number: int) -> dict[str, dict[str, Any]]:
        """{suffix of a picture: its record, {} where it has none} of a sample; no picture is read."""
        records = self.records(number)
        suffixes = [place["suffix"] for place in self.table["members"][number].as_py()]
        return {suffix: record_of(records, suffix) for suffix in filter(is_picture, suffixes)}

    def photo_ids(self, number: int) -> dict[str, str]:
        """{suffix of a picture: photo_id} of a sample; pictures are read only where no record states it."""
        stated = {suffix: photo_id_of(record) for suffix, record in self.photo_records(number).items()}
        known = {suffix: id_ for suffix, id_ in stated.items() if id_ is not None}
        return known if len(known) == len(stated) else photo_ids(self.read(number).members)

    def tombstones(self) -> DatasetTombstones:
        """The tombstones that the dataset has; none where nothing was forgotten."""
        stated = self.about.get("tombstones")
        if not isinstance(stated, dict):
            return DatasetTombstones()
        name = str(stated["name"])
        text = self._data.small_file(name).decode("utf-8", "replace")
        return DatasetTombstones.parsed(text, f"{self.folder}/{name}")

    def as_parent(self) -> dict[str, Any]:
        """What `lineage` states of a dataset that another was made of: its dataset.json (xxh3-128), size."""
        return {
            "dataset": xxhash.xxh3_128_hexdigest(self._data.small_file("dataset.json")),
            "revision": self.about.get("revision", 0),
            "groups": self.about["groups"],
            **{name: self.about[name] for name in ("pipeline", "config") if self.about.get(name)},
        }

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Rows as dicts; few of them are in memory at a time."""
        for first in range(start, stop, _ROWS):
            yield from self.table.slice(first, min(_ROWS, stop - first)).to_pylist()

    def row(self, number: int) -> dict[str, Any]:
        """One row of the index."""
        return dict(self.table.slice(number, 1).to_pylist()[0])

    def numbers(self) -> dict[str, int]:
        """{key: number of the sample}."""
        return {key: number for number, key in enumerate(self.all_keys())}

    def all_keys(self) -> Iterator[str]:
        """Keys in the order of the index."""
        for chunk in self.table.column("key").chunks:
            for start in range(0, len(chunk), _ROWS):
                yield from chunk.slice(start, _ROWS).to_pylist()

    def close(self) -> None:
        """Closes the shards that are open."""
        self._data.close()


def read_ahead(places: Sequence[tuple[DatasetRows, int]]) -> Iterator[Sample]:
    """Samples in this order; those of a store come in few large requests. Raises DatasetError."""
    for start in range(0, len(places), _AHEAD):
        lot = places[start : start + _AHEAD]
        wanted: dict[DatasetRows, list[int]] = {}
        for source, number in lot:
            wanted.setdefault(source, []).append(number)
        for source, numbers in wanted.items():
            source.announce(numbers)
        for source, number in lot:
            yield source.read(number)


def numbers_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """int64 [k] of whole numbers without nulls. (`to_numpy` imports pandas: 2 s.)"""
    found = [np.empty(0, np.int64)]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        values = np.frombuffer(chunk.buffers()[1] or b"", chunk.type.to_pandas_dtype())
        found.append(values[chunk.offset : chunk.offset + len(chunk)].astype(np.int64))
    return np.concatenate(found)


def mapped_index(path: Path) -> pa.Table:
    """The rows of an index.arrow. Raises DatasetError, one line."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path)).read_buffer(), options=IPC_ALONE).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path}: {str(error).splitlines()[0]}") from None
    if not table.schema.equals(INDEX_SCHEMA):
        raise DatasetError(f"{path}: has other columns than this version reads")
    return table
