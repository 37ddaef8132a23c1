"""Brings each person's rows together: from fragments of photos to buckets of identities.

The only shuffle of a pipeline. Photos do not travel, only references, small maps and numbers. Rows
stream through this process into scratch files of this machine, each for a range of buckets and small
enough to be sorted in memory; then every bucket is written once, in order.
"""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.ledger import is_kept
from curation.people.heads import heads_of_others
from curation.photos.rights import marks_in
from curation.run_folder import Run
from curation.run_tables import PhaseTable
from curation.step import Context
from curation.storage import write_table
from shards.format.index import IPC_ALONE
from shards.format.stated import CARRIED
from shards.format.stated_rights import MARKS

VERSION = 4  # brings along what photos stated before their metadata was taken off
_FLUSH_BYTES = 8 * 2**20  # rows are handed on in lots of this size
_PART_BYTES = 16 * 2**20  # a scratch file is about this large
_OPEN_FILES = 400
# One person as the later phases see them: a reference to the photo, and what was measured.
_FROM_PHOTO = [
    "source_key",
    "file_name",
    "uri",
    "offset",
    "length",
    "row",
    *CARRIED,
    "photo_id",
    "phash",
    "n_bytes",
    "format",
    "width",
    "height",
    "orientation",
]
_FROM_PEOPLE = [
    "person_id",
    "box",
    "box_score",
    "keypoints",
    "face",
    "mask",
    "labels",
    "regions",
    "appearance",
]


def gather(context: Context, people: list[Fragment], identities: list[Fragment]) -> tuple[str, int]:
    """Brings the people together once. Returns the name of what was gathered, and how many buckets it has."""
    run = context.run
    rows = context.job.pipeline.engine.fragment_rows
    # Who is beside a person is only brought along where it is wanted.
    beside = ["beside"] if context.job.pipeline.shards.blur_others else []
    key = fingerprint(["gather", VERSION, rows, digest(people), digest(identities), *beside])
    name = run.gathered.name(key)
    run.gathered.keep_only(name)
    codes, kept_rows = _identity_codes(run.identities, identities)
    buckets = -(-len(codes) // rows)
    if not run.gathered.is_done(name):
        with tempfile.TemporaryDirectory(prefix="persona-") as scratch:
            kept = _kept(run, people, identities, codes, rows, with_heads=bool(beside))
            parts = _scatter(kept, kept_rows, buckets, Path(scratch))
            for part in parts:
                for bucket, table in _sorted_buckets(part):
                    write_table(run.gathered.bucket(name, bucket), table)
        run.gathered.finish(name)
    return name, buckets


def read_people(
    folder: str, columns: Sequence[str], only: Collection[str] | None = None
) -> dict[str, dict[str, Any]]:
    """{person_id: its columns} of everyone that a run brought together; empty before its phase `outfits`.

    only  person_ids that are wanted; None: all
    """
    rows: dict[str, dict[str, Any]] = {}
    for table in Run(folder).gathered.tables(list(dict.fromkeys(["person_id", *columns]))):
        if only is not None:
            table = table.filter(pc.is_in(table["person_id"], pa.array(only, pa.string())))
        rows |= {row["person_id"]: row for row in table.to_pylist()}
    return rows


def _identity_codes(table: PhaseTable, identities: list[Fragment]) -> tuple[np.ndarray, int]:
    """All identities with someone still in as sorted uint64 (16 hex digits each); how many people."""
    found = [np.zeros(0, np.uint64)]
    people = 0
    for fragment in identities:
        decided = table.read(fragment, ["identity", "verdict"])
        codes = _codes(decided.filter(pa.array(is_kept(decided), pa.bool_())))
        people += len(codes)
        found.append(np.unique(codes))
    return np.unique(np.concatenate(found)), people


def _codes(table: pa.Table) -> np.ndarray:
    values = table["identity"].to_pylist()
    return np.fromiter((int(value, 16) for value in values), np.uint64, len(values))


def _kept(
    run: Run,
    people: list[Fragment],
    identities: list[Fragment],
    codes: np.ndarray,
    rows: int,
    with_heads: bool,
) -> Iterator[pa.Table]:
    by_index = {fragment.index: fragment for fragment in identities}
    for fragment in people:
        columns = ["person_id", "person_index", "identity", "verdict"]
        decided = run.identities.read(by_index[fragment.index], columns)
        decided = decided.filter(pa.array(is_kept(decided), pa.bool_())).drop_columns(["verdict"])
        if decided.num_rows == 0:
            continue
        table = run.people.joined(fragment, _FROM_PEOPLE, [*_FROM_PHOTO, "metadata"], decided)
        marks = pa.array(map(marks_in, table["metadata"].to_pylist()), pa.string())
        table = table.drop_columns(["metadata"]).append_column(MARKS, marks)
        if with_heads:
            everyone = run.people.read(fragment, ["source_key", "box", "keypoints", "face"])
            table = table.append_column("heads_of_others", _heads_of_others(everyone, table))
        bucket = (np.searchsorted(codes, _codes(decided)) // rows).astype(np.int32)
        yield table.drop_columns(["person_index"]).append_column("bucket", pa.array(bucket))


def _heads_of_others(everyone: pa.Table, wanted: pa.Table) -> pa.Array:
    """For each of the wanted people: the heads of all others that were detected on the photo."""
    photos: dict[str, list[dict[str, Any]]] = {}
    for person in everyone.select(["source_key", "box", "keypoints", "face"]).to_pylist():
        photos.setdefault(person["source_key"], []).append(person)
    places = zip(wanted["source_key"].to_pylist(), wanted["person_index"].to_pylist(), strict=True)
    heads = [heads_of_others(photos[photo], place) for photo, place in places]
    return pa.array(heads, pa.list_(pa.list_(pa.float32())))


def _scatter(tables: Iterator[pa.Table], rows: int, buckets: int, scratch: Path) -> list[Path]:
    """Appends each row to the scratch file of its range of buckets. Returns the files in order."""
    writers: dict[int, Any] = {}
    waiting: list[pa.Table] = []
    size = 0
    buckets_each = 0

    def flush() -> None:
        nonlocal waiting, size, buckets_each
        if not waiting:
            return
        whole = pa.concat_tables(waiting).combine_chunks()
        if buckets_each == 0:
            # The first rows tell how large all of them will be; any number gives the same buckets.
            parts = whole.nbytes / whole.num_rows * rows / _PART_BYTES
            buckets_each = -(-buckets // max(min(int(parts), _OPEN_FILES), 1))
        part = whole["bucket"].to_numpy() // buckets_each
        for number in np.unique(part).tolist():
            if number not in writers:
                writers[number] = pa.ipc.new_file(str(scratch / f"{number:06d}.arrow"), whole.schema)
            writers[number].write_table(whole.filter(pa.array(part == number)))
        waiting, size = [], 0

    for table in tables:
        waiting.append(table)
        size += table.nbytes
        if size >= _FLUSH_BYTES:
            flush()
    flush()
    for writer in writers.values():
        writer.close()
    return sorted(scratch.glob("*.arrow"))


def _sorted_buckets(part: Path) -> Iterator[tuple[int, pa.Table]]:
    """(bucket, its rows in order) of a scratch file; removes the file."""
    with pa.memory_map(str(part)) as source:
        table = pa.ipc.open_file(source, options=IPC_ALONE).read_all()
        keys = [("bucket", "ascending"), ("identity", "ascending"), ("person_id", "ascending")]
        order = pc.sort_indices(table, sort_keys=keys)
        buckets = table["bucket"].to_numpy()[order.to_numpy()]
        starts = np.flatnonzero(np.r_[True, np.diff(buckets) != 0])
        for start, stop in pairwise([*starts.tolist(), len(buckets)]):
            rows = table.take(order.slice(start, stop - start))
            yield int(buckets[start]), rows.drop_columns(["bucket"])
    part.unlink()
