"""The index of a dataset: a row for each sample, with the places of its members.

index.parquet is for tools and for keeping. index.arrow holds the same rows uncompressed: a reader maps
it into memory and touches the pages that it needs, so that a dataset of any size is opened at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.atomic_file import AtomicFile

MEMBER = pa.struct(
    [
        # of the member's name, behind the key and its dot
        pa.field("suffix", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),  # bytes from the start of the shard to its content
        pa.field("length", pa.int64(), nullable=False),
        pa.field("checksum", pa.binary(16), nullable=False),  # xxh3-128
    ]
)
INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),  # number in dataset.json
        pa.field("offset", pa.int64(), nullable=False),  # of the first member's header
        pa.field("length", pa.int64(), nullable=False),  # up to the end of the last member's padding
        pa.field("people", pa.int16(), nullable=False),  # photos of the group
        pa.field("regions", pa.list_(pa.uint8()), nullable=False),  # per photo: bits in the order of REGIONS
        pa.field("aspect", pa.list_(pa.float32()), nullable=False),  # per photo: width / height, upright
        pa.field("tokens", pa.list_(pa.int16()), nullable=False),  # per photo: words of its caption
        pa.field("members", pa.list_(MEMBER), nullable=False),
    ]
)
_BATCH_ROWS = 65_536


class IndexWriter:
    """Writes index.parquet and index.arrow side by side, row by row, in the memory of one batch."""

    def __init__(self, folder: str) -> None:
        self._files = [AtomicFile(f"{folder}/index.parquet"), AtomicFile(f"{folder}/index.arrow")]
        self._parquet = pq.ParquetWriter(self._files[0], INDEX_SCHEMA, compression="zstd")
        self._arrow = pa.ipc.new_file(self._files[1], INDEX_SCHEMA)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for writer, file in zip((self._parquet, self._arrow), self._files, strict=True):
            if not file.closed:
                writer.close()  # while there is still a file to write to
            file.discard()

    def write(self, table: pa.Table) -> None:
        """Appends rows of INDEX_SCHEMA. Batches have a fixed number of rows, whatever comes in."""
        self._waiting.append(table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA))
        self._rows += table.num_rows
        while self._rows >= _BATCH_ROWS:
            self._flush(_BATCH_ROWS)

    def close(self) -> dict[str, str]:
        """Ends both files and makes them visible. Returns {file name: xxh3-128, hex}."""
        if self._rows:
            self._flush(self._rows)
        self._parquet.close()
        self._arrow.close()
        for file in self._files:
            file.commit()
        return {"index.parquet": self._files[0].checksum, "index.arrow": self._files[1].checksum}

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks()
        batch = table.slice(0, rows).combine_chunks()
        self._parquet.write_table(batch, row_group_size=rows)
        self._arrow.write_table(batch)
        rest = table.slice(rows)
        self._waiting, self._rows = [rest], rest.num_rows


@dataclass(frozen=True)
class Place:
    """Bytes of a shard: where one member's content lies."""

    suffix: str
    shard: int
    offset: int
    length: int


class _Batch:
    """Columns of one batch as arrays over mapped memory; nothing is copied."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.keys = batch.column("key")
        self.shard = _mapped(batch.column("shard"))
        self.offset = _mapped(batch.column("offset"))
        self.length = _mapped(batch.column("length"))
        self.people = _mapped(batch.column("people"))
        members = batch.column("members")
        self.first = _mapped(members.offsets)
        self.member = members.values
        self.member_offset = _mapped(self.member.field("offset"))
        self.member_length = _mapped(self.member.field("length"))
        self.suffix = self.member.field("suffix")
        self.checksum = self.member.field("checksum")


class Index:
    """A mapped index.arrow. Samples are numbered 0 to len − 1, in the order of shards and bytes."""

    def __init__(self, path: str) -> None:
        """Maps a local file. Raises ValueError where it is no index, OSError where it cannot be read."""
        try:
            reader = pa.ipc.open_file(pa.memory_map(path))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: no index: {str(error).splitlines()[0]}") from None
        if not reader.schema.equals(INDEX_SCHEMA):
            raise ValueError(f"{path}: has other columns than this version reads")
        self._reader = reader
        self._batches: dict[int, _Batch] = {}
        n = reader.num_record_batches
        last = reader.get_batch(n - 1).num_rows if n else 0
        self._per_batch = reader.get_batch(0).num_rows if n else 1
        self._len = self._per_batch * (n - 1) + last if n else 0

    def __len__(self) -> int:
        return self._len

    def spans(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 [k] samples → shard, offset and length of all their bytes, each [k]."""
        numbers = np.asarray(samples, np.int64)
        shard, offset, length = (np.empty(len(numbers), np.int64) for _ in range(3))
        where = numbers // self._per_batch
        for number in np.unique(where):
            batch, mine = self._batch(int(number)), where == number
            rows = numbers[mine] - number * self._per_batch
            shard[mine], offset[mine], length[mine] = (
                batch.shard[rows],
                batch.offset[rows],
                batch.length[rows],
            )
        return shard, offset, length

    def key(self, sample: int) -> str:
        """The key of a sample."""
        batch, row = self._row(sample)
        return str(batch.keys[row].as_py())

    def people(self, sample: int) -> int:
        """Photos of the group."""
        batch, row = self._row(sample)
        return int(batch.people[row])

    def members(self, sample: int) -> list[Place]:
        """All members of a sample, in the order of the shard."""
        batch, row = self._row(sample)
        shard = int(batch.shard[row])
        start, stop = int(batch.first[row]), int(batch.first[row + 1])
        rows = slice(start, stop)
        return [
            Place(suffix, shard, offset, length)
            for suffix, offset, length in zip(
                batch.suffix.slice(start, stop - start).to_pylist(),
                batch.member_offset[rows].tolist(),
                batch.member_length[rows].tolist(),
                strict=True,
            )
        ]

    def checksums(self, sample: int) -> list[bytes]:
        """xxh3-128 of each member."""
        batch, row = self._row(sample)
        return [batch.checksum[i].as_py() for i in range(int(batch.first[row]), int(batch.first[row + 1]))]

    def _row(self, sample: int) -> tuple[_Batch, int]:
        if not 0 <= sample < self._len:
            raise IndexError(f"samples are 0 to {self._len - 1}")
        number, row = divmod(sample, self._per_batch)
        return self._batch(number), row

    def _batch(self, number: int) -> _Batch:
        found = self._batches.get(number)
        if found is None:
            found = self._batches[number] = _Batch(self._reader.get_batch(number))
        return found


def _mapped(array: pa.Array) -> np.ndarray:
    """The numbers of an array without nulls, where they lie. (`to_numpy` imports pandas: 2 s.)"""
    values = np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype())
    return values[array.offset : array.offset + len(array)]


def index_rows(samples: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of INDEX_SCHEMA from plain dicts."""
    return pa.Table.from_pylist(list(samples), schema=INDEX_SCHEMA)
