"""Brings each person's rows together: from fragments of photos to buckets of identities.

The only shuffle of a pipeline. Photos do not travel, only references, small maps and numbers; rows
stream through this process, a few tens of MiB at a time, and are appended to their bucket's files.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem

from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.ledger import is_kept
from curation.step import Context
from curation.storage import (
    exists,
    filesystem,
    is_local,
    join,
    list_names,
    local_path,
    read_table,
    remove,
    write_bytes,
)

VERSION = 1
_FLUSH_BYTES = 32 * 2**20
# One person as the later phases see them: a reference to the photo, and what was measured.
_FROM_PHOTO = [
    "source_key",
    "file_name",
    "uri",
    "offset",
    "length",
    "row",
    "subject_hint",
    "collection",
    "source_url",
    "page_url",
    "author",
    "licence",
    "consent",
    "caption",
    "photo_id",
    "n_bytes",
    "format",
    "width",
    "height",
    "orientation",
]
_FROM_PEOPLE = {
    "boxes": "box",
    "box_scores": "box_score",
    "keypoints": "keypoints",
    "faces": "face",
    "masks": "mask",
    "labels": "labels",
    "regions": "regions",
    "appearance": "appearance",
}


def gather(context: Context, people: list[Fragment], identities: list[Fragment]) -> tuple[str, int]:
    """Writes `outfits/_gathered-KEY/bucket=N/` once. Returns the folder's name and how many buckets."""
    rows = context.job.pipeline.engine.fragment_rows
    key = fingerprint(["gather", VERSION, rows, digest(people), digest(identities)])
    name = f"_gathered-{key}"
    outfits = context.folder("outfits")
    for other in list_names(outfits):
        if other.startswith("_gathered-") and other != name:
            remove(join(outfits, other), recursive=True)
    folder = join(outfits, name)
    codes = _identity_codes(context.folder("identities"), identities)
    buckets = -(-len(codes) // rows)
    if not exists(join(folder, "_done")):
        remove(folder, recursive=True)
        batches = _flushed(_kept(context, people, identities, codes, rows))
        _write(folder, batches)
        write_bytes(join(folder, "_done"), b"")
    return name, buckets


def read_bucket(folder: str, bucket: int) -> pa.Table:
    """The people of a bucket, by identity and person_id; without the column `bucket`."""
    place = join(folder, f"bucket={bucket}")
    tables = [read_table(join(place, name)) for name in list_names(place) if name.endswith(".parquet")]
    table = pa.concat_tables(tables)
    return table.sort_by([("identity", "ascending"), ("person_id", "ascending")])


def _identity_codes(folder: str, identities: list[Fragment]) -> np.ndarray:
    """All identities with someone still in, as sorted uint64 (an identity is 16 hex digits)."""
    found = []
    for fragment in identities:
        table = read_table(join(folder, fragment.name), ["identity", "verdict"])
        found.append(np.unique(_codes(table.filter(pa.array(is_kept(table), pa.bool_())))))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def _codes(table: pa.Table) -> np.ndarray:
    values = table["identity"].to_pylist()
    return np.fromiter((int(value, 16) for value in values), np.uint64, len(values))


def _kept(
    context: Context,
    people: list[Fragment],
    identities: list[Fragment],
    codes: np.ndarray,
    rows: int,
) -> Iterator[pa.Table]:
    by_index = {fragment.index: fragment for fragment in identities}
    for fragment in people:
        decided = read_table(
            join(context.folder("identities"), by_index[fragment.index].name),
            ["source_key", "person_index", "person_id", "identity", "verdict"],
        )
        decided = decided.filter(pa.array(is_kept(decided), pa.bool_()))
        if decided.num_rows == 0:
            continue
        photos = read_table(join(context.folder("people"), fragment.name), [*_FROM_PHOTO, *_FROM_PEOPLE])
        place = {key: row for row, key in enumerate(photos["source_key"].to_pylist())}
        at = [place[key] for key in decided["source_key"].to_pylist()]
        nth = decided["person_index"].to_pylist()
        table = photos.select(_FROM_PHOTO).take(at)
        for plural, singular in _FROM_PEOPLE.items():
            column = photos[plural].combine_chunks()
            table = table.append_column(singular, _pick(column, at, nth))
        bucket = (np.searchsorted(codes, _codes(decided)) // rows).astype(np.int32)
        yield (
            table.append_column("person_id", decided["person_id"])
            .append_column("identity", decided["identity"])
            .append_column("bucket", pa.array(bucket))
        )


def _pick(column: Any, rows: list[int], items: list[int]) -> pa.Array:
    """items[k] of the list in row rows[k]."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    offsets = column.offsets.to_numpy()
    return column.values.take(pa.array(offsets[rows] + np.array(items), pa.int64()))


def _flushed(tables: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Tables joined up to some tens of MiB, so that a bucket's files get few, larger row groups."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += table.nbytes
        if size >= _FLUSH_BYTES:
            yield from pa.concat_tables(waiting).combine_chunks().to_batches()
            waiting, size = [], 0
    if waiting:
        yield from pa.concat_tables(waiting).combine_chunks().to_batches()


def _write(folder: str, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches, None)
    if first is None:
        return

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    fs, path = filesystem(folder)
    ds.write_dataset(
        all_batches(),
        local_path(folder) if is_local(folder) else path,
        schema=first.schema,
        format="parquet",
        filesystem=None if is_local(folder) else PyFileSystem(FSSpecHandler(fs)),
        partitioning=ds.partitioning(pa.schema([("bucket", pa.int32())]), flavor="hive"),
        existing_data_behavior="overwrite_or_ignore",
        use_threads=False,
        file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
    )
