"""Takes people out of a dataset: shards that hold them are written anew, all others are left as they are.

The new revision stands beside the old one until dataset.json, the one file that is replaced, names it:

    1. new shards (000003-r1.tar), tombstones-r1.txt, index-r1.parquet, index-r1.arrow
    2. dataset.json            from here on the dataset is the new revision
    3. the old shards, index and tombstones are deleted, the card is written anew

Killed before 2, the old revision is whole; killed behind it, the new one is. The same command again
clears away what is left over and does, or ends, its work. A reader that has the old revision open finds
its shards gone: it fails, and reads nothing else in their place.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from shards.format.atomic_file import write_whole
from shards.format.card import CARD, card_files
from shards.format.contents import NOT_STATED, Census
from shards.format.dataset import (
    DatasetError,
    card_names,
    dataset_bytes,
    files_of,
    is_indexed_as_found,
    revision_name,
    unfinished_files_of,
)
from shards.format.dataset_tombstones import DatasetTombstones, is_unguessable, tombstone
from shards.format.dataset_writer import IndexedShard
from shards.format.index import IndexWriter
from shards.format.members import without_photos
from shards.reading.folder import read_dataset_json
from shards.reading.revisions import Revision, Revisions
from shards.tools.commands import UsageError, folder_of, progress_of, say
from shards.tools.copying import write_tombstones
from shards.tools.dataset_rows import DatasetRows, read_ahead
from shards.tools.forget_plan import ForgetPlan, IdsToForget, plan_forget, read_ids
from shards.tools.place_to_change import PlaceToChange, place_to_change
from shards.tools.side_files import stale_line, stale_side_files

# dataset_bytes counts these anew.
COUNTED = ("format", "schema", "shards", "groups", "photos", "bytes", "checksum")
_NAMED = 3  # of a long list, in a message


@dataclass(frozen=True)
class DatasetChange:
    """What a call of `forget` changed in a dataset.

    revision          of the dataset now
    missing           ids that it did not hold, and had not forgotten before
    stale_side_files  files of other programs beside the shards that still name what went
    """

    revision: int
    groups_dropped: int = 0
    groups_edited: int = 0
    photos: int = 0
    shards_rewritten: int = 0
    missing: int = 0
    stale_side_files: tuple[str, ...] = ()


def forget(
    folder: str,
    request: IdsToForget,
    *,
    min_photos: int = 2,
    missing_ok: bool = False,
    only_what_is_there: bool = False,
    dry_run: bool = False,
    break_lock: bool = False,
    delete_side_files: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetChange:
    """Makes a revision of a dataset without what is asked for, in its place: a folder, or a URL.

    min_photos   a group that loses a photo and keeps fewer than these goes as a whole
    missing_ok   ids that are not there are no error; they get tombstones all the same …
    only_what_is_there   … but for photos: a dataset that holds none of it stays as it is
    dry_run      tells what would go; nothing is changed
    break_lock   takes over the lock that a dead process left in a store (a folder's goes with it)
    delete_side_files   also deletes files of other programs that tell of shards which are no more

    Raises DatasetError, before anything is changed, for ids that are not there, for damage in what must
    be copied, and where another process is changing the dataset.
    """
    place = place_to_change(folder)
    with place.alone(break_lock=break_lock):
        done = _forget(place, request, min_photos, missing_ok, only_what_is_there, dry_run, progress)
        stale = stale_side_files(folder, delete=delete_side_files and not dry_run)
        return replace(done, stale_side_files=tuple(stale))


def _forget(
    place: PlaceToChange,
    request: IdsToForget,
    min_photos: int,
    missing_ok: bool,
    only_what_is_there: bool,
    dry_run: bool,
    progress: Callable[[int, int], None] | None,
) -> DatasetChange:
    folder = place.folder
    about = read_dataset_json(folder)
    if not dry_run:
        clear_leftovers(place, about)
    if not request:
        return DatasetChange(int(about.get("revision", 0)))
    dataset = DatasetRows(folder)
    known = dataset.tombstones()
    plan = plan_forget(dataset, request, min_photos)
    missing = {(kind, id_) for kind, id_ in request.named() - plan.found if not known.has(kind, id_)}
    if missing and not missing_ok:
        names = ", ".join(f"{kind} {id_[:40]}" for kind, id_ in sorted(missing)[:_NAMED])
        more = " …" if len(missing) > _NAMED else ""
        raise DatasetError(
            f"{folder}: {len(missing)} ids are not there: {names}{more}; nothing was changed "
            "(--missing-ok goes on without them)"
        )
    if missing_ok and only_what_is_there:
        missing = {(kind, id_) for kind, id_ in missing if kind != "photo"}
    tombstones = known | request.tombstones
    tombstones |= DatasetTombstones(
        [*plan.lines, *(tombstone(kind, id_) for kind, id_ in missing if is_unguessable(kind, id_))]
    )
    shards = sorted({_shard_of(dataset, number) for number in plan.touched()})
    revision = int(about.get("revision", 0)) + 1
    done = DatasetChange(
        revision, len(plan.dropped), len(plan.edited), plan.photos, len(shards), len(missing)
    )
    if dry_run:
        return done
    if len(tombstones) == len(known) and not shards:
        return DatasetChange(revision - 1, missing=len(missing))
    new = _write_revision(dataset, plan, tombstones, revision, set(shards), progress)
    dataset.close()
    write_whole(f"{folder}/dataset.json", new)
    clear_leftovers(place, read_dataset_json(folder))
    return done


def clear_leftovers(place: PlaceToChange, about: dict[str, Any], kept: Set[str] = frozenset()) -> None:
    """Deletes what a killed call left: files of the revision before, of an unfinished next one but `kept`."""
    present = files_of(about) | kept
    place.remove((set(about.get("replaced", [])) | unfinished_files_of(about)) - present)
    if about.get("revision") and not is_indexed_as_found(about):
        card = card_files(str(about.get("pipeline") or "Dataset"), about["shards"], about)
        for name in card_names(about):
            if place.read(name) != card[name]:
                write_whole(f"{place.folder}/{name}", card[name])


def _licences_left(about: Mapping[str, Any], plan: ForgetPlan) -> Counter[str]:
    """Photos by licence without those that go.

    A dataset of before counts photos of others as not stated, whatever their records say.
    """
    left = Counter({str(licence): int(photos) for licence, photos in about.get("licences", {}).items()})
    for licence, photos in plan.licences.items():
        counted = min(photos, left[licence])
        left[licence] -= counted
        left[NOT_STATED] -= photos - counted
    return +left


def _shard_of(dataset: DatasetRows, number: int) -> int:
    return int(np.searchsorted(dataset.starts, number, side="right")) - 1


def _write_revision(
    dataset: DatasetRows,
    plan: ForgetPlan,
    tombstones: DatasetTombstones,
    revision: int,
    touched: set[int],
    progress: Callable[[int, int], None] | None,
) -> bytes:
    """Writes the files of the new revision beside the old ones. Returns the new dataset.json."""
    about, folder = dataset.about, dataset.folder
    entries: list[dict[str, Any]] = []
    census = Census()
    written = 0
    with IndexWriter(folder, f"index-r{revision}") as index:
        for shard, entry in enumerate(about["shards"]):
            start, stop = dataset.starts[shard], dataset.starts[shard + 1]
            rows: pa.Table | None
            if shard in touched:
                name = revision_name(entry["name"], revision)
                made = _write_shard(dataset, plan, start, stop, name, len(entries))
                written += 1
                if progress is not None:
                    progress(written, len(touched))
                if made is None:
                    continue
                entry, rows = made
            else:
                rows = _renumbered(dataset.table.slice(start, stop - start), len(entries))
            entries.append(entry)
            for key, photos in zip(rows["key"].to_pylist(), rows["people"].to_pylist(), strict=True):
                census.add(key, photos, ())
            index.write(rows)
        hashes = index.close()
    census.licences = _licences_left(about, plan)
    history = Revisions.of(about)
    step = Revision(len(dataset), np.array(sorted(plan.dropped), np.int64))
    past = Revisions(len(dataset) - len(plan.dropped), [*history.past, step])
    new = {
        **{name: value for name, value in about.items() if name not in COUNTED},
        **census.to_json(),
        "index": hashes,
        "revision": revision,
        "history": past.to_json(),
        "tombstones": write_tombstones(folder, f"tombstones-r{revision}.txt", tombstones),
    }
    if not is_indexed_as_found(about):
        new["card"] = list(CARD)
    old = files_of(about) - {*CARD, "dataset.json"}
    new["replaced"] = sorted(old - files_of({**new, "shards": entries}))
    return dataset_bytes(entries, new)


def _write_shard(
    dataset: DatasetRows, plan: ForgetPlan, start: int, stop: int, name: str, number: int
) -> tuple[dict[str, Any], pa.Table] | None:
    """A shard without what goes; None where nothing of it is left."""
    kept = [sample for sample in range(start, stop) if sample not in plan.dropped]
    if not kept:
        return None
    with IndexedShard(dataset.folder, name, number, Census()) as writer:
        for read in read_ahead([(dataset, sample) for sample in kept]):
            sample = read.number
            if sample in plan.edited:
                writer.add(read.key, without_photos(read.members, plan.edited[sample]))
            else:
                writer.add(read.key, read.members, dataset.row(sample))
        made = writer.close()
    return made.entry, made.rows


def _renumbered(rows: pa.Table, shard: int) -> pa.Table:
    """The same rows for a shard that has another number, because one before it is gone."""
    column = rows.schema.get_field_index("shard")
    numbers = pa.repeat(pa.scalar(shard, pa.int32()), len(rows))
    return rows.set_column(column, rows.schema.field(column), numbers)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards forget`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--identity", metavar="ID", nargs="+", action="extend", default=[])
    parser.add_argument("--key", metavar="KEY", nargs="+", action="extend", default=[])
    parser.add_argument(
        "--photo", metavar="PHOTO_ID", nargs="+", action="extend", default=[], help="sha256 of its bytes"
    )
    parser.add_argument(
        "--from", metavar="FILE", dest="file",
        help="lines identity:ID, key:KEY, photo:PHOTO_ID or, as in an opt-out list, sha256:PHOTO_ID",
    )  # fmt: skip
    parser.add_argument("--tombstones", metavar="FILE", help="of another dataset: forget here what it forgot")
    parser.add_argument(
        "--min-photos", type=int, default=2, metavar="N",
        help="a group that loses a photo and keeps fewer goes as a whole (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--missing-ok", action="store_true", help="ids that are not there are no error")
    parser.add_argument("--dry-run", action="store_true", help="tell what would go")
    parser.add_argument(
        "--delete-side-files", action="store_true",
        help="delete what other programs wrote beside the shards, where it tells of shards that are no more",
    )  # fmt: skip
    parser.add_argument(
        "--break-lock", action="store_true", help="of a URL: go on where another process died at it"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    folder = folder_of(options.folder)
    photos = [photo.lower() for photo in options.photo]
    request = IdsToForget(frozenset(options.identity), frozenset(options.key), frozenset(photos))
    if options.file is not None:
        request = request | read_ids(options.file)
    if options.tombstones is not None:
        request = replace(request, tombstones=DatasetTombstones.read(options.tombstones))
    if options.min_photos < 1:
        raise UsageError(f"forget --min-photos {options.min_photos}: at least 1")
    done = forget(
        folder,
        request,
        min_photos=options.min_photos,
        missing_ok=options.missing_ok,
        dry_run=options.dry_run,
        break_lock=options.break_lock,
        delete_side_files=options.delete_side_files,
        progress=progress_of(options),
    )
    would = "would be " if options.dry_run else ""
    says = (
        f"revision {done.revision}: {done.photos} photos {would}forgotten, {done.groups_dropped} groups "
        f"dropped, {done.groups_edited} groups with fewer photos, {done.shards_rewritten} shards "
        f"{would}rewritten"
    )
    stale = [stale_line(done.stale_side_files)] if done.stale_side_files else []
    say(options, asdict(done), [says, *stale])
    return 1 if stale else 0
