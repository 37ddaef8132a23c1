"""The index of a dataset: a row for each sample, with the places of its members.

index.parquet is for tools and for keeping. index.arrow holds the same rows uncompressed: a reader maps
it into memory and touches the pages that it needs, so that a dataset of any size is opened at once.
"""

import mmap
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.format.atomic_file import AtomicFile

# Given to every read by Arrow: see curation/storage.py. What is not compressed is not decoded anyway.
IPC_ALONE = pa.ipc.IpcReadOptions(use_threads=False)

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
_SUFFIX_LISTS = 4096  # remembered
_FAULT_BYTES = 65_536  # of a file are mapped by Linux around each page that is touched, at least
_ASK_AFTER = 32  # places that were touched, for what is mapped: each question costs 9 µs


class IndexWriter:
    """Writes index.parquet and index.arrow side by side, row by row, in the memory of one batch.

    stem   of their names; a later revision of a dataset has "index-r1" and so on
    """

    def __init__(self, folder: str, stem: str = "index") -> None:
        self._names = [f"{stem}.parquet", f"{stem}.arrow"]
        self._files = [AtomicFile(f"{folder}/{name}") for name in self._names]
        self._parquet = pq.ParquetWriter(self._files[0], INDEX_SCHEMA, compression="zstd")
        self._arrow = pa.ipc.new_file(self._files[1], INDEX_SCHEMA)
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._ended = False

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._end()  # while there are still files to write to
        for file in self._files:
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
        self._end()
        for file in self._files:
            file.commit()
        return {name: file.checksum for name, file in zip(self._names, self._files, strict=True)}

    def _end(self) -> None:
        """Ends both writers, once: a second end would be written behind the first."""
        if not self._ended:
            self._ended = True
            self._parquet.close()
            self._arrow.close()

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks()
        batch = table.slice(0, rows).combine_chunks()
        self._parquet.write_table(batch, row_group_size=rows)
        self._arrow.write_table(batch)
        rest = table.slice(rows)
        self._waiting, self._rows = [rest], rest.num_rows


class Place(NamedTuple):
    """Bytes of a shard: where one member's content lies. `checksum` is its xxh3-128."""

    suffix: str
    shard: int
    offset: int
    length: int
    checksum: bytes


class Span(NamedTuple):
    """`length` bytes from `offset` on, of the shard with this number."""

    file: int
    offset: int
    length: int


class Photos(NamedTuple):
    """All photos of an index.

    hashes    uint64 [samples], xxh3-64 of their keys
    starts    int64 [samples + 1]: the photos of sample n are those from starts[n] to starts[n + 1]
    regions   uint8 [photos], bits of the visible regions
    aspects   float32 [photos], width / height of the upright photo; 0 where it is not known
    """

    hashes: np.ndarray
    starts: np.ndarray
    regions: np.ndarray
    aspects: np.ndarray


class _Batch:
    """Columns of one batch over mapped memory: arrays, and memoryviews where single rows are read."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        keys = batch.column("key")
        self.key_start = _mapped(keys, pa.int32(), 1)
        self.key_bytes = memoryview(keys.buffers()[2] or b"")
        self.shard = _mapped(batch.column("shard"))
        self.offset = _mapped(batch.column("offset"))
        self.length = _mapped(batch.column("length"))
        self.people = _mapped(batch.column("people"))
        regions = batch.column("regions")
        self.region_start = _mapped(regions.offsets)
        self.region = _mapped(regions.values)
        self.aspect = _mapped(batch.column("aspect").values)
        members = batch.column("members")
        self.first = _mapped(members.offsets).data
        member = members.values
        self.member_offset = _mapped(member.field("offset")).data
        self.member_length = _mapped(member.field("length")).data
        suffix = member.field("suffix")
        starts = _mapped(suffix, pa.int32(), 1)
        self.suffix_start = starts.data
        # Bytes, to be compared as bytes; the only column that is computed, 2 bytes a member.
        self.suffix_length = np.diff(starts).astype(np.uint16).data
        self.suffix_bytes = memoryview(suffix.buffers()[2] or b"")
        checksum = member.field("checksum")
        self.checksum = memoryview(checksum.buffers()[1])[16 * checksum.offset :]


class Index:
    """A mapped index.arrow. Samples are numbered 0 to len − 1, in the order of shards and bytes.

    Pages that were touched count as memory of this process, although the system may take them back at
    any time. An index larger than `mapped_bytes` gives them back by itself when about so many are in
    use, so that memory stays flat over an epoch.
    """

    def __init__(self, path: str, *, mapped_bytes: int = 64 * 2**20) -> None:
        """Maps a local file. Raises ValueError where it is no index, OSError where it cannot be read."""
        self._path, self._mapped_bytes = path, mapped_bytes
        with open(path, "rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                reader = pa.ipc.open_file(pa.py_buffer(self._map), options=IPC_ALONE)
            except (pa.ArrowInvalid, ValueError) as error:
                raise ValueError(f"{path}: no index: {str(error).splitlines()[0]}") from None
        if not reader.schema.equals(INDEX_SCHEMA):
            raise ValueError(f"{path}: has other columns than this version reads")
        self._reader = reader
        self._batches: dict[int, _Batch] = {}
        self._suffixes: dict[tuple[bytes, bytes], tuple[str, ...]] = {}
        self._unasked, self._touched, self._before = 0, 0, _shared_bytes()
        n = reader.num_record_batches
        last = reader.get_batch(n - 1).num_rows if n else 0
        self._per_batch = reader.get_batch(0).num_rows if n else 1
        self._len = self._per_batch * (n - 1) + last if n else 0

    def __reduce__(self) -> Any:
        return _index_from, (self._path, self._mapped_bytes)

    def __len__(self) -> int:
        return self._len

    def table(self) -> pa.Table:
        """All rows, mapped: nothing is read of them before it is touched. Such pages stay in use."""
        return self._reader.read_all()

    def spans(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 [k] samples → shard, offset and length of all their bytes, each [k]."""
        numbers = np.asarray(samples, np.int64)
        shard, offset, length = (np.empty(len(numbers), np.int64) for _ in range(3))
        where = numbers // self._per_batch
        for number in np.unique(where):
            batch, in_batch = self._batch(int(number)), where == number
            rows = numbers[in_batch] - number * self._per_batch
            shard[in_batch], offset[in_batch], length[in_batch] = (
                batch.shard[rows],
                batch.offset[rows],
                batch.length[rows],
            )
            self._touch(3 * len(rows))  # batch by batch: many samples at once lie all over the index
        return shard, offset, length

    def key(self, sample: int) -> str:
        """The key of a sample."""
        batch, row = self._row(sample)
        self._touch(2)
        start, stop = batch.key_start.item(row), batch.key_start.item(row + 1)
        return str(batch.key_bytes[start:stop], "utf-8")

    def people(self, sample: int) -> int:
        """Photos of the group."""
        batch, row = self._row(sample)
        self._touch(1)
        return int(batch.people[row])

    def regions(self, sample: int) -> list[int]:
        """Per photo: the bits of its visible regions (`facets.REGION_NAMES`, full_body the lowest)."""
        batch, row = self._row(sample)
        self._touch(2)
        start, stop = batch.region_start.item(row), batch.region_start.item(row + 1)
        return batch.region[start:stop].tolist()

    @cached_property
    def photos(self) -> "Photos":
        """Regions and aspects of all photos; kept in memory, 5 bytes a photo and 16 a sample."""
        hashes, counts, regions, aspects = [], [np.zeros(1, np.int64)], [], []
        for number in range(self._reader.num_record_batches):
            batch = self._batch(number)
            starts, text = batch.key_start.tolist(), batch.key_bytes
            hashes += [xxhash.xxh3_64_intdigest(text[start:stop]) for start, stop in pairwise(starts)]
            counts.append(np.diff(batch.region_start))
            first, last = batch.region_start[0], batch.region_start[-1]
            regions.append(batch.region[first:last])
            aspects.append(batch.aspect[first:last])
        return Photos(
            np.array(hashes, np.uint64),
            np.cumsum(np.concatenate(counts)),
            np.concatenate([np.empty(0, np.uint8), *regions]),
            np.concatenate([np.empty(0, np.float32), *aspects]),
        )

    def members(self, sample: int) -> list[Place]:
        """All members of a sample, in the order of the shard."""
        shard, suffixes, offsets, lengths, checksums = self.layout(sample)
        return [
            Place(suffix, shard, offset, length, checksums[at : at + 16])
            for suffix, offset, length, at in zip(
                suffixes, offsets, lengths, range(0, len(checksums), 16), strict=True
            )
        ]

    def layout(self, sample: int) -> tuple[int, tuple[str, ...], list[int], list[int], bytes]:
        """The same by columns, faster: shard, suffixes, offsets, lengths, checksums of 16 bytes each."""
        batch, row = self._row(sample)
        self._touch(8)
        start, stop = batch.first[row], batch.first[row + 1]
        return (
            batch.shard.item(row),
            self._suffixes_of(batch, start, stop),
            batch.member_offset[start:stop].tolist(),
            batch.member_length[start:stop].tolist(),
            bytes(batch.checksum[16 * start : 16 * stop]),
        )

    def _suffixes_of(self, batch: _Batch, start: int, stop: int) -> tuple[str, ...]:
        """Names of members. Most samples have the same few, so each list of them is made once."""
        text = bytes(batch.suffix_bytes[batch.suffix_start[start] : batch.suffix_start[stop]])
        lengths = bytes(batch.suffix_length[start:stop])
        found = self._suffixes.get((text, lengths))
        if found is None:
            starts: list[int] = batch.suffix_start[start : stop + 1].tolist()
            found = tuple(text[a - starts[0] : b - starts[0]].decode() for a, b in pairwise(starts))
            if len(self._suffixes) >= _SUFFIX_LISTS:
                self._suffixes.clear()
            self._suffixes[text, lengths] = found
        return found

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

    def _touch(self, columns: int) -> None:
        """Counts pages that look-ups map, and gives all back when they are many.

        How many one maps is the system's business: 64 KiB around a page, or the whole 2 MiB that lie
        together in its cache. So it is asked what this process has mapped since.
        """
        if len(self._map) <= self._mapped_bytes:
            return
        self._unasked += columns
        if self._unasked < _ASK_AFTER:
            return
        self._touched += self._unasked * _FAULT_BYTES
        self._unasked = 0
        if max(self._touched, _shared_bytes() - self._before) > self._mapped_bytes:
            self._map.madvise(mmap.MADV_DONTNEED)
            # What others have mapped since counts as theirs bit by bit: a thread may map ours right now.
            self._before = min(_shared_bytes(), self._before + self._mapped_bytes // 4)
            self._touched = 0


def _shared_bytes() -> int:
    """Of files, as they are mapped and touched by this process now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def _index_from(path: str, mapped_bytes: int) -> Index:
    return Index(path, mapped_bytes=mapped_bytes)


def _mapped(array: pa.Array, kind: pa.DataType | None = None, more: int = 0) -> np.ndarray:
    """The numbers of an array without nulls, where they lie. (`to_numpy` imports pandas: 2 s.)

    kind, more   to see the offsets of a list or string column, one more than it has rows
    """
    values = np.frombuffer(array.buffers()[1], (kind or array.type).to_pandas_dtype())
    return values[array.offset : array.offset + len(array) + more]


def index_rows(samples: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of INDEX_SCHEMA from plain dicts."""
    return pa.Table.from_pylist(list(samples), schema=INDEX_SCHEMA)
