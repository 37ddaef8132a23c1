"""Takes the metadata off the photos of a dataset: shards that hold any are written anew, others stay.

Like `forget` it makes a revision beside the old one until dataset.json names it. A dataset may take days, so
each shard that is done leaves a file that says so, and the same command goes on from there:

    1. 000003-r1.tar, and after it 000003-r1.part: its rows of the index, and what went; or that nothing did
    2. index-r1.parquet, index-r1.arrow
    3. dataset.json            from here on the dataset is the new revision
    4. the parts, the old shards and the old index are deleted, the card is written anew

Samples, their order and all other members stay, so positions of trainings stay valid. The record of each
photo that changed says what went, and has the photo_id of the bytes as they were: `forget` finds it by that.
What those bytes stated of mining and of their source stays there as `stated_marks`, which a curation obeys.
EXIF that a record of img2dataset tells in words goes too, but for an orientation that the bytes do not state.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from PIL import Image

from shards.format.atomic_file import write_whole
from shards.format.card import CARD
from shards.format.contents import Census
from shards.format.dataset import (
    dataset_bytes,
    files_of,
    is_indexed_as_found,
    part_name,
    revision_name,
)
from shards.format.dataset_writer import IndexedShard
from shards.format.embedded import embedded_in
from shards.format.index import IPC_ALONE, IndexWriter
from shards.format.members import photo_id_of, pictures_of, record_member, record_of
from shards.format.orientation import told_orientation
from shards.format.sample import json_bytes
from shards.format.stated_rights import MARKS, NoReaderError, joined_marks, marks_of
from shards.format.stripped import without_metadata
from shards.reading.folder import read_dataset_json
from shards.reading.revisions import Revision, Revisions
from shards.tools.commands import folder_of, processes_of, processes_option, progress_of, say
from shards.tools.dataset_rows import DatasetRows, read_ahead
from shards.tools.forget import COUNTED, clear_leftovers
from shards.tools.place_to_change import PlaceToChange, place_to_change
from shards.tools.side_files import stale_line, stale_side_files
from shards.tools.whole_shards import in_order

VERSION = 3  # raised when the same photo is stripped otherwise, or its record says more
# Members that are pictures of other formats: readers of shards pass over them, and nothing here strips them.
_OTHER_PICTURES = ("gif", "avif", "heic", "heif", "tif", "tiff", "bmp", "jxl", "jp2", "jfif", "jpe", "mpo")
_NAMED = 20  # of many, in lines
_WORDS, _TURN = "exif", "Image Orientation"  # of img2dataset's records (`told_orientation`)
_OF_RECORD = "exif in the record"


@dataclass(frozen=True)
class Stripping:
    """What a call of `strip` changed.

    revision          of the dataset now
    photos            of the dataset; stripped: those that changed
    gone              {kind: bytes that were there}
    saved_bytes       how much smaller the photos are
    left              "KEY.jpg: why" of each photo that could not be stripped, and stays as it was
    stale_side_files  files of other programs beside the shards that still tell of what is no more
    """

    revision: int
    photos: int = 0
    stripped: int = 0
    gone: Mapping[str, int] = field(default_factory=dict)
    saved_bytes: int = 0
    shards_rewritten: int = 0
    left: tuple[str, ...] = ()
    stale_side_files: tuple[str, ...] = ()


def strip(
    folder: str,
    *,
    dry_run: bool = False,
    break_lock: bool = False,
    delete_side_files: bool = False,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Stripping:
    """Makes a revision of a dataset whose photos carry no metadata, in its place: a folder, or a URL.

    Each photo is decoded before and after, and compared. One that cannot be stripped stays, and is named.

    dry_run      tells what would go; nothing is changed
    break_lock, delete_side_files   as in `forget`

    Raises DatasetError for damage in what must be read, and where another process is changing the dataset.
    """
    place = place_to_change(folder)
    with place.alone(break_lock=break_lock):
        done = _strip(place, dry_run, processes, progress)
        stale = stale_side_files(folder, delete=delete_side_files and not dry_run)
        return replace(done, stale_side_files=tuple(stale))


def _strip(
    place: PlaceToChange, dry_run: bool, processes: int, progress: Callable[[int, int], None] | None
) -> Stripping:
    folder, about = place.folder, read_dataset_json(place.folder)
    revision = int(about.get("revision", 0)) + 1
    names = [entry["name"] for entry in about["shards"]]
    made_of = xxhash.xxh3_128_hexdigest(json.dumps([VERSION, about], sort_keys=True).encode())
    known = {} if dry_run else _parts_there(place, names, revision, made_of)
    if not dry_run:
        kept = {part_name(names[number], revision) for number in known}
        kept |= {revision_name(names[number], revision) for number, part in known.items() if part.entry}
        clear_leftovers(place, about, kept)
    work = partial(_do_shard, folder, revision, made_of, dry_run)
    open_shards = [number for number in range(len(names)) if number not in known]
    for number, part in zip(open_shards, in_order(work, open_shards, processes), strict=True):
        known[number] = part
        if progress is not None:
            progress(len(known), len(names))
    parts = [known[number] for number in range(len(names))]
    done = _added_up(revision, parts)
    if not done.stripped:
        done = replace(done, revision=revision - 1)
    elif not dry_run:
        write_whole(f"{folder}/dataset.json", _write_revision(folder, revision, parts, done))
    if not dry_run:
        clear_leftovers(place, read_dataset_json(folder))
    return done


def _added_up(revision: int, parts: list["_Part"]) -> Stripping:
    gone: Counter[str] = Counter()
    for part in parts:
        gone.update(part.gone)
    return Stripping(
        revision,
        photos=sum(part.photos for part in parts),
        stripped=sum(part.stripped for part in parts),
        gone=dict(sorted(gone.items())),
        saved_bytes=sum(part.saved_bytes for part in parts),
        shards_rewritten=sum(part.stripped > 0 for part in parts),
        left=tuple(name for part in parts for name in part.left),
    )


# --- a shard --------------------------------------------------------------------------------------


@dataclass
class _Part:
    """A shard that is done. entry: of dataset.json, rows: an Arrow stream of the index; None: it stays."""

    made_of: str
    photos: int = 0
    stripped: int = 0
    saved_bytes: int = 0
    gone: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    entry: dict[str, Any] | None = None
    rows: bytes | None = None

    def to_bytes(self) -> bytes:
        """A line of JSON, then the rows."""
        about = {name: value for name, value in vars(self).items() if name != "rows"}
        return json.dumps(about).encode() + b"\n" + (self.rows or b"")

    @classmethod
    def parsed(cls, data: bytes) -> "_Part":
        about, _, rows = data.partition(b"\n")
        known = json.loads(about)
        return cls(**{**known, "gone": Counter(known["gone"]), "rows": rows or None})


def _parts_there(place: PlaceToChange, names: list[str], revision: int, made_of: str) -> dict[int, _Part]:
    """The shards that a killed call has done, of this very dataset."""
    found = {}
    for number, name in enumerate(names):
        data = place.read(part_name(name, revision))
        if data is not None and (part := _Part.parsed(data)).made_of == made_of:
            found[number] = part
    return found


def _do_shard(folder: str, revision: int, made_of: str, dry_run: bool, number: int) -> _Part:
    """Strips a shard; runs in a process of its own where there are several."""
    dataset = DatasetRows(folder)
    name = dataset.about["shards"][number]["name"]
    numbers = range(dataset.starts[number], dataset.starts[number + 1])
    part = _Part(made_of)
    if dry_run:
        for sample in read_ahead([(dataset, each) for each in numbers]):
            _without_metadata(sample.key, sample.members, part)
    else:
        with IndexedShard(folder, revision_name(name, revision), number, Census()) as writer:
            for sample in read_ahead([(dataset, each) for each in numbers]):
                members = _without_metadata(sample.key, sample.members, part)
                writer.add(sample.key, members, dataset.row(sample.number))
            if part.stripped:  # else it is left as it is, and what was written goes
                made = writer.close()
                part.entry, part.rows = made.entry, _as_stream(made.rows)
        write_whole(f"{folder}/{part_name(name, revision)}", part.to_bytes())
    dataset.close()
    return part


def _as_stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue().to_pybytes())


def _without_metadata(key: str, members: Mapping[str, bytes], part: _Part) -> dict[str, bytes]:
    """The members of a sample, its photos stripped; counted into `part`."""
    records: dict[str, bytes] = {}
    photos: dict[str, bytes] = {}
    for suffix in pictures_of(members):
        part.photos += 1
        try:
            bare = without_metadata(members[suffix])
            told = _exif_in_words(members, suffix)
            if bare.gone or told != record_of(members, suffix).get(_WORDS):
                name, record, gone = _new_record(members, suffix, bare.gone, told)
                records[name] = record
                photos[suffix] = bare.data
                part.stripped += 1
                part.gone.update(gone)
                part.saved_bytes += len(members[suffix]) - len(bare.data)
        except (ValueError, OSError, SyntaxError, NoReaderError, Image.DecompressionBombError) as error:
            part.left.append(f"{key}.{suffix}: {str(error).splitlines()[0] if str(error) else 'broken'}")
    for suffix in members:
        if suffix.rpartition(".")[2].lower() in _OTHER_PICTURES:
            part.left.append(f"{key}.{suffix}: of a format that is not stripped here")
    return dict(_in_order(members, photos, records))


def _in_order(
    members: Mapping[str, bytes], photos: Mapping[str, bytes], records: Mapping[str, bytes]
) -> Iterator[tuple[str, bytes]]:
    """The members in their order; a record that is new stands behind its photo."""
    for suffix, data in members.items():
        yield suffix, photos.get(suffix, records.get(suffix, data))
        if suffix in photos:
            wanted = record_member(members, suffix)
            if wanted not in members:
                yield wanted, records[wanted]


def _exif_in_words(members: Mapping[str, bytes], suffix: str) -> Any:
    """The EXIF that a record of img2dataset may keep, as JSON of tags: of it the orientation alone, where the
    bytes leave that to the record; None else. What is no object stays."""
    record = record_of(members, suffix)
    told = record.get(_WORDS)
    try:
        tags = json.loads(told) if isinstance(told, str) else told
    except (ValueError, RecursionError):
        return None
    if not isinstance(tags, dict):
        return told
    embedded = embedded_in(members[suffix])
    if told_orientation(record) == 1 or embedded.exif is not None or embedded.xmp is not None:
        return None
    kept = {_TURN: tags[_TURN]}
    return kept if tags is told else told if kept == tags else json.dumps(kept)


def _new_record(
    members: Mapping[str, bytes], suffix: str, gone: Mapping[str, int], told: Any
) -> tuple[str, bytes, Mapping[str, int]]:
    """(member, content) of the record of a photo that was stripped, and what went in all.

    In a sample of others a photo's id is the hash of its bytes, until a record states another one. Raises
    ValueError where none can, NoReaderError where Content Credentials would be lost unread.
    """
    name, record = record_member(members, suffix), record_of(members, suffix)
    if not record and b"".join(members.get(name, b"{}").split()) != b"{}":
        raise ValueError(f"{name} is no JSON object, and cannot state the photo_id")
    if sum(record_member(members, other) == name for other in pictures_of(members)) > 1:
        raise ValueError(f"{name} is the record of several photos, and cannot state the photo_id of each")
    if told != record.get(_WORDS):
        fewer = len(json_bytes(record[_WORDS])) - (0 if told is None else len(json_bytes(told)))
        gone = dict(Counter(gone) + Counter({_OF_RECORD: fewer}))
        record = {**record, _WORDS: told}
        if told is None:
            del record[_WORDS]
    before = record.get("stripped")
    added = Counter(before if isinstance(before, dict) else {}) + Counter(gone)
    marks = marks_of(members[suffix])
    if marks:
        record = {**record, MARKS: joined_marks(record.get(MARKS), marks)}
    if photo_id_of(record) is None:
        if "photo_id" in record:
            record = {**record, "collection_photo_id": record["photo_id"]}
        record = {**record, "photo_id": hashlib.sha256(members[suffix]).hexdigest()}
    return name, json_bytes({**record, "stripped": dict(added)}), gone


# --- the revision ---------------------------------------------------------------------------------


def _write_revision(folder: str, revision: int, parts: list[_Part], done: Stripping) -> bytes:
    """Writes the index of the new revision. Returns its dataset.json."""
    dataset = DatasetRows(folder)
    about = dataset.about
    entries = []
    with IndexWriter(folder, f"index-r{revision}") as index:
        for number, part in enumerate(parts):
            start, stop = dataset.starts[number], dataset.starts[number + 1]
            rows = dataset.table.slice(start, stop - start)
            if part.rows is not None:
                rows = pa.ipc.open_stream(part.rows, options=IPC_ALONE).read_all()
            index.write(rows)
            entries.append(part.entry or about["shards"][number])
        hashes = index.close()
    history = Revisions.of(about)
    step = Revision(len(dataset), np.empty(0, np.int64))
    before = about.get("stripped", {})
    new = {
        **{name: value for name, value in about.items() if name not in COUNTED},
        "index": hashes,
        "revision": revision,
        "history": Revisions(len(dataset), [*history.past, step]).to_json(),
        "stripped": {
            "revisions": [*before.get("revisions", []), revision],
            "photos": done.stripped,
            "bytes": dict(done.gone),
            "left": len(done.left),
        },
    }
    if not is_indexed_as_found(about):
        new["card"] = list(CARD)
    old = files_of(about) - {*CARD, "dataset.json"}
    done_with = {part_name(entry["name"], revision) for entry in entries}
    new["replaced"] = sorted((old - files_of({**new, "shards": entries})) | done_with)
    dataset.close()
    return dataset_bytes(entries, new)


# --- the command ----------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards strip`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="tell what would go")
    parser.add_argument(
        "--delete-side-files", action="store_true",
        help="delete what other programs wrote beside the shards, where it tells of shards that are no more",
    )  # fmt: skip
    parser.add_argument(
        "--break-lock", action="store_true", help="of a URL: go on where another process died at it"
    )
    processes_option(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns 1 where a photo could not be stripped, or files of others are stale."""
    done = strip(
        folder_of(options.folder),
        dry_run=options.dry_run,
        break_lock=options.break_lock,
        delete_side_files=options.delete_side_files,
        processes=processes_of(options),
        progress=progress_of(options),
    )
    would = "would be " if options.dry_run else ""
    kinds = ", ".join(f"{kind} {count}" for kind, count in done.gone.items())
    lines = [
        f"revision {done.revision}: {done.stripped} of {done.photos} photos {would}stripped, "
        f"{done.saved_bytes} bytes less, {done.shards_rewritten} shards {would}rewritten",
        *([f"bytes by kind: {kinds}"] if kinds else []),
        *(f"left as it was: {name}" for name in done.left[:_NAMED]),
        *([f"and {len(done.left) - _NAMED} more"] if len(done.left) > _NAMED else []),
        *([stale_line(done.stale_side_files)] if done.stale_side_files else []),
    ]
    say(options, asdict(done), lines)
    return 1 if done.left or done.stale_side_files else 0
