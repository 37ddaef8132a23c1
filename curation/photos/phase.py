"""The phase `photos`: list the collection, read and screen each file, find copies, rule.

Tables of the run: `listings` (the rows of the collection), `screened` (read and screened), `copies` (who
copies whom), `photos` (one row a photo).
"""

import hashlib
import io
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.declared import Declared, counted
from curation.engine import Answer, Job, Task, Work
from curation.errors import ConfigError, PersonaError
from curation.excluded.tombstone_store import ObeyedTombstones, read_tombstones
from curation.fingerprint import fingerprint, fingerprint_rows
from curation.fragments import Fragment, digest
from curation.ledger import Counts, is_kept
from curation.meters import CallCounter, StageClock
from curation.photos.copies import EXACT, Copies, find_copies
from curation.photos.decoder_process import decoder_of
from curation.photos.heeded import heed
from curation.photos.measured_on import PLACE, place_name
from curation.photos.read import Read, without_telling
from curation.photos.rights import Rights
from curation.photos.sample import Sample
from curation.photos.screen import Screen
from curation.run_folder import Run
from curation.run_tables import PhaseTable
from curation.settings.base import Resources
from curation.settings.photos import DuplicateSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SOURCE_SCHEMA, tables
from curation.sources.units import Unit, list_units, nothing_there, pattern_lines, unit_rows
from curation.stage import FragmentRun, Measurements, Stage
from curation.step import Context, Made, run_step, work_of
from curation.storage import ALONE, open_parquet, read_bytes, read_table, write_bytes

VERSION = 3
STAGES: tuple[type[Declared], ...] = (Read, Screen, Rights, Copies)
_COPIES_SCHEMA = pa.schema(
    [
        ("fragment", pa.int32()),
        ("row", pa.int32()),
        ("exact", pa.bool_()),
        ("bits", pa.int16()),
        ("original_id", pa.string()),
        ("original_key", pa.string()),
    ]
)


def run_photos(context: Context, sample: Sample | None = None) -> list[Fragment]:
    """Runs the phase; returns the fragments of `photos/`.

    sample  what stands for the collection, in a run of `persona plan`
    """
    pipeline = context.job.pipeline
    resources = pipeline.photos.resources
    listed = _list(context, resources, sample)
    if sample is not None:
        rows = pipeline.engine.fragment_rows
        units = len(list_units(pipeline.source))
        listed = sample.draw(listed, units, rows, context.run)
    source = pipeline.source
    reads: list[object] = [source.image_column, source.uri_column]
    reads += [source.allow_urls, source.allow_private, source.allow_outside]
    wishes = _wishes(context.job, tombstones_of(context.job))
    screened_hash = fingerprint(
        [
            "screened",
            VERSION,
            Read.version,
            Screen.version,
            reads,
            pipeline.photos.screen.ruling(),
            pipeline.photos.rights.ruling(),
            wishes,
        ]
    )
    screened = run_step(
        context,
        "photos: read",
        context.run.screened,
        [
            (path, Fragment(i, key).after(screened_hash), {"group": g, "wishes": wishes})
            for i, (path, g, key) in enumerate(listed)
        ],
        open_screened,
        resources,
    )
    if sample is None:  # a sample has other photos than those that a line may name
        heeded = heed(context.run.screened, screened, pipeline.photos.screen)
        context.run.opt_out = None if heeded is None else heeded.to_json()
    copies = _find_copies(context, screened)
    decided_hash = fingerprint(["photos", VERSION, pipeline.photos.ruling(), context.run.copies.name(copies)])
    return run_step(
        context,
        "photos: copies",
        context.run.photos,
        [(context.run.screened.path(f), f.after(decided_hash), {"copies": copies}) for f in screened],
        open_copies,
        resources,
    )


def _wishes(job: Job, stones: ObeyedTombstones) -> list[str]:
    """Hashes of the opt-out list and of the tombstones, as they are where this runs."""
    file = job.pipeline.photos.screen.opt_out
    return [hashlib.sha256(read_bytes(file)).hexdigest() if file else "", stones.digest()]


def tombstones_of(job: Job) -> ObeyedTombstones:
    """What must not come back into this run. Raises ConfigError where the list cannot be read."""
    return read_tombstones(job.run, job.pipeline.photos.screen.forgotten)


# --- the listing ---------------------------------------------------------------------------------


def _list(context: Context, resources: Resources, sample: Sample | None) -> list[tuple[str, int, str]]:
    """Lists every unit that is not listed yet. Returns (listing file, row group, key) in order."""
    pipeline = context.job.pipeline
    settings = [pipeline.source.ruling(), pipeline.engine.fragment_rows, VERSION]
    units = list_units(pipeline.source)
    for line in pattern_lines(pipeline.source):
        context.progress.say(line)
    if sample is not None:
        units = sample.units(units)
    listings = context.run.listings
    keys = [fingerprint([u.uri, u.label, u.version, settings]) for u in units]
    present = listings.keep_only(keys)
    tasks = [
        Task(
            index,
            unit.uri,
            listings.path(key),
            vars(unit),
        )
        for index, (unit, key) in enumerate(zip(units, keys, strict=True))
        if key not in present
    ]
    context.progress.begin("photos: list", len(units), len(units) - len(tasks), Counts())
    began, rows = time.monotonic(), 0
    for answer in context.engine.map(open_listing, context.job, tasks, resources):
        rows += answer["rows"]
        context.progress.advance(answer["rows"], Counts())
    context.progress.end()
    context.rates["source"] = {"rows_this_time": rows, "seconds": round(time.monotonic() - began, 3)}
    listed = []
    for key in keys:
        path = listings.path(key)
        for group, rows_key in enumerate(_group_keys(path)):
            listed.append((path, group, rows_key))
    if not listed:
        raise ConfigError(nothing_there(pipeline.source))
    return listed


def _group_keys(path: str) -> Iterator[str]:
    """The content key of each row group of a listing: a hash of all that its rows say."""
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, **ALONE)
            yield fingerprint_rows(zip(*(column.to_pylist() for column in table), strict=True))


def open_listing(job: Job) -> Work:
    """Work: one unit of the collection becomes one Parquet file with a row group per fragment."""

    def work(task: Task) -> Answer:
        unit = Unit(**task.detail)
        rows = unit_rows(unit, job.pipeline.source)
        count = 0
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, SOURCE_SCHEMA, compression="zstd") as writer:
            for table in tables(rows, job.pipeline.engine.fragment_rows):
                writer.write_table(table, row_group_size=job.pipeline.engine.fragment_rows)
                count += table.num_rows
        write_bytes(task.target, sink.getvalue())
        return {"rows": count}

    return work


# --- read and screen -----------------------------------------------------------------------------


def open_screened(job: Job) -> Work:
    """Work: a row group of the listing becomes a fragment of photos that were read and screened."""
    calls = CallCounter(job.calls)
    screen = job.pipeline.photos.screen
    source = job.pipeline.source
    stones, ruled = tombstones_of(job), Screen(screen)
    decoder = decoder_of(job.pipeline.photos.decoder)
    rights = job.pipeline.photos.rights
    photos = PhotoBytes(source)
    read = Read(screen, source, photos, calls, stones, ruled.opt_outs, decoder, rights.credentials)
    stages: list[Stage] = [read, ruled, Rights(rights)]
    measurements = Measurements(Run(job.run).measured("photos"), stages)
    clock = StageClock()
    wishes = _wishes(job, stones)

    def transform(task: Task) -> Made:
        if wishes != task.detail["wishes"]:  # a folder that is on another node only is no error by itself
            raise PersonaError(
                f"{socket.gethostname()} does not see the opt-outs and tombstones that the run obeys: put "
                f"photos.screen.opt_out and photos.screen.forgotten ({screen.forgotten}) where every node "
                "sees them, and leave them alone while it works"
            )
        with open_parquet(task.source) as file:
            table = file.read_row_group(task.detail["group"], **ALONE)
        row_ids = [place_name(row) for row in table.select(PLACE).to_pylist()]
        fragment = FragmentRun(measurements, table["source_key"].to_pylist(), clock)
        table = fragment.run(stages, table, row_ids).combine_chunks()
        fragment.save()
        table = without_telling(table)
        return Made(table, counted(STAGES, {Read.unit: table["decisions"].to_pylist()}))

    return work_of(transform, calls, clock)


# --- copies --------------------------------------------------------------------------------------


def _find_copies(context: Context, screened: list[Fragment]) -> str:
    """Writes who copies whom, once for these photos and settings. Returns the key of that table."""
    settings, run = context.job.pipeline.photos.duplicates, context.run
    key = fingerprint([VERSION, settings.ruling(), digest(screened)])
    run.copies.keep_only(key)
    if not run.copies.has(key):
        run.copies.write(key, _copies_of(run.screened, screened, settings), row_group_rows=4096)
    return key


def _copies_of(photos: PhaseTable, screened: list[Fragment], settings: DuplicateSettings) -> pa.Table:
    """A row a copy (`_COPIES_SCHEMA`). Holds about 70 bytes a photo: never a caption, a key or a decision."""
    parts: list[dict[str, np.ndarray]] = []
    columns = ["photo_id", "phash", "width", "height", "n_bytes", "verdict"]
    for fragment in screened:
        table = photos.read(fragment, columns)
        rows = np.flatnonzero(is_kept(table))
        table = table.take(rows).combine_chunks()
        ids = b"".join(bytes.fromhex(photo_id) for photo_id in table["photo_id"].to_pylist())
        pixels = table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy()
        parts.append(
            {
                "id": np.frombuffer(ids, "V32"),
                "phash": table["phash"].to_numpy(),
                "pixels": pixels,
                "n_bytes": table["n_bytes"].to_numpy(),
                "fragment": np.full(len(rows), fragment.index, np.int32),
                "row": rows.astype(np.int32),
            }
        )
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
    copies = find_copies(
        joined["id"],
        joined["phash"],
        joined["pixels"],
        joined["n_bytes"],
        settings.max_bits if settings.near else None,
    )
    rows = np.flatnonzero(copies.kind)
    originals = copies.original[rows]
    keys = _keys_of(photos, screened, joined["fragment"][originals], joined["row"][originals])
    table = pa.table(
        {
            "fragment": joined["fragment"][rows],
            "row": joined["row"][rows],
            "exact": copies.kind[rows] == EXACT,
            "bits": copies.bits[rows],
            "original_id": [joined["id"][i].tobytes().hex() for i in originals.tolist()],
            "original_key": keys,
        },
        schema=_COPIES_SCHEMA,
    )
    return table.sort_by([("fragment", "ascending"), ("row", "ascending")])


def _keys_of(
    photos: PhaseTable, screened: list[Fragment], fragments: np.ndarray, rows: np.ndarray
) -> list[str]:
    """source_keys of photos by place; reads each fragment once."""
    keys = [""] * len(rows)
    by_index = {fragment.index: fragment for fragment in screened}
    for index in np.unique(fragments).tolist():
        column = photos.read(by_index[index], ["source_key"])["source_key"]
        for position in np.flatnonzero(fragments == index).tolist():
            keys[position] = column[int(rows[position])].as_py()
    return keys


def open_copies(job: Job) -> Work:
    """Work: a screened fragment becomes a fragment of the barrier `photos/`."""
    calls = CallCounter(job.calls)
    stage = Copies(job.pipeline.photos.duplicates)

    def transform(task: Task) -> Made:
        table = read_table(task.source)
        copies = Run(job.run).copies.rows_of(task.detail["copies"], task.index)
        of: dict[int, dict[str, Any]] = {copy["row"]: copy for copy in copies}
        none = {"original_id": None, "original_key": None, "exact": None, "bits": None}
        found = [of.get(row, none) for row in range(table.num_rows)]
        for name, key, kind in (
            ("copy_of", "original_id", pa.string()),
            ("copy_key", "original_key", pa.string()),
            ("copy_exact", "exact", pa.bool_()),
            ("copy_bits", "bits", pa.int16()),
        ):
            table = table.append_column(name, pa.array([copy[key] for copy in found], kind))
        table = stage.decide(table)
        return Made(table, counted([Copies], {Copies.unit: table["decisions"].to_pylist()}))

    return work_of(transform, calls)
