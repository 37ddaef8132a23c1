"""Takes photos out of everything that a run folder holds: dataset, report, answers, tables, listing.

Every step may be repeated: a call that was killed is completed by the same call. Fragments keep their names
until `persona curate` goes on; then those that lost a row are decided again from what was measured, which
lies under its new name already, so no model is asked about anybody who stays.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import ConfigError, PersonaError
from curation.fingerprint import fingerprint
from curation.forgetting.answers import forget_answers
from curation.forgetting.run_rows import (
    RowFilter,
    decisions_in,
    stays,
    without_members,
    without_rows,
)
from curation.fragments import about, commit
from curation.ledger import Counts, Stamp, at_least, counts_again, judged
from curation.packing.plan import Pack
from curation.photos.measured_on import PLACE, place_name
from curation.run_folder import PHASES, Run, funnel_ends, is_dataset
from curation.run_tables import PhaseTable
from curation.settings import PipelineSettings
from curation.status import SILENT_S, read_status
from curation.storage import (
    ALONE,
    exists,
    is_local,
    join,
    list_names,
    local_path,
    open_parquet,
    read_bytes,
    read_table,
    remove,
    write_bytes,
    write_table,
)
from shards.format.atomic_file import is_temporary

_MIN_PHOTOS = 2  # of a group, where a run's settings cannot be read
Edit = Callable[[pa.Table, RowFilter], pa.Table]


@dataclass
class Changed:
    """What became of a place: files that were written anew, files that were removed, rows that went."""

    rewritten: int = 0
    removed: int = 0
    rows: int = 0
    dataset: dict[str, Any] = field(default_factory=dict)


def require_still(run: str) -> None:
    """Raises PersonaError while a process works on the run: it would write again what is taken out."""
    status = read_status(run)
    silent = status.get("silent_s")
    if status["state"] == "running" and silent is not None and silent < SILENT_S:
        raise PersonaError(
            f"{run}: is running (process {status.get('pid')} on {status.get('host')}): stop it, forget, "
            "then go on with the same curate command"
        )


def forget_in_run(run: str, photos: set[str], keys: list[str], *, break_lock: bool = False) -> Changed:
    """Takes these photos (photo_ids, and source_keys of this run) out of a run folder, path or URL. A run
    that has none of them, neither in its listing nor in its dataset, stays as it is.

    break_lock   takes over the lock that a dead process left on the run's dataset in a store
    """
    return _RunFolder(run, RowFilter(photos, keys), break_lock).forget()


class _RunFolder:
    def __init__(self, run: str, forgotten: RowFilter, break_lock: bool) -> None:
        self._run, self._forgotten, self._break_lock = Run(run), forgotten, break_lock
        self._done = Changed()
        self._pipeline: PipelineSettings | None = None
        self._min_photos = _MIN_PHOTOS
        with suppress(ConfigError):  # its run.yaml is of another version
            self._pipeline = self._run.pipeline()[1]
            self._min_photos = self._pipeline.outfits.min_photos

    def forget(self) -> Changed:
        if not self._forgotten.keys and not self._is_only_packed():
            return self._done
        run = self._run
        _remove_temporaries(run.folder)
        self._dataset()
        self._folder(run.report)
        self._folder(run.search)
        self._done.rewritten += forget_answers(run, self._pipeline, self._forgotten)
        self._packing()
        self._fragments(run.captions, without_rows)
        self._fragments(run.outfits, without_members)
        self._tables(run.gathered.paths())
        self._fragments(run.identities, without_rows)
        self._tables([*run.assigned.paths(), *run.suspects.paths()])
        run.minors.keep_only(None)  # names of identities alone; it is made again when it is needed
        self._people()
        self._photos()
        self._reported()
        return self._done

    # --- the dataset -----------------------------------------------------------------------------

    def _is_only_packed(self) -> bool:
        """Whether the dataset has photos that go. Takes them out."""
        if is_dataset(self._run.shards):
            self._packed(only_what_is_there=True)
        return bool(self._done.dataset.get("photos"))

    def _dataset(self) -> None:
        folder = self._run.shards
        if self._done.dataset:
            return
        if is_dataset(folder):
            self._packed(only_what_is_there=False)
            return
        for name in list_names(folder):  # packing was never finished: what is there is written again
            remove(join(folder, name), recursive=True)
            self._done.removed += 1
        if list_names(folder) or exists(folder):
            for path in self._run.packing.paths():
                remove(path)

    def _packed(self, only_what_is_there: bool) -> None:
        self._done.dataset = forget_in_dataset(
            self._run.shards,
            self._forgotten.photos,
            self._min_photos,
            break_lock=self._break_lock,
            only_what_is_there=only_what_is_there,
        )

    def _packing(self) -> None:
        """Parts of the index of shards that are no more, and the ledger of groups."""
        path = self._run.groups_file
        if not exists(path):
            return
        groups = read_table(path)
        touched = {
            row["group"]
            for row in groups.select(["group", "person_ids"]).to_pylist()
            if any(map(self._forgotten.person, row["person_ids"]))
        }
        for part in self._run.packing.paths():
            if touched & set(read_table(part, ["key"])["key"].to_pylist()):
                remove(part)
                self._done.removed += 1
        rest = without_members(groups, self._forgotten)
        if rest.equals(groups):
            return
        self._run.not_packed()
        write_table(path, self._too_few(rest))
        self._done.rewritten += 1

    def _too_few(self, groups: pa.Table) -> pa.Table:
        """The ledger with groups that the dataset let go, because too few of their photos are left."""
        rows = groups.to_pylist()
        config = next((row["decisions"][-1]["config"] for row in rows if row["decisions"]), "")
        for row in rows:
            if row["verdict"] == "kept" and len(row["person_ids"]) < self._min_photos:
                outcome = judged([at_least("too_few_photos", len(row["person_ids"]), self._min_photos)])
                row |= {"verdict": outcome.verdict, "shard": None}
                row["decisions"] = [Stamp(Pack.name, "", config).decision(outcome)]
        return pa.Table.from_pylist(rows, schema=groups.schema)

    # --- tables ----------------------------------------------------------------------------------

    def _fragments(self, fragments: PhaseTable, edit: Edit) -> None:
        for path in fragments.paths():
            table = read_table(path)
            rest = edit(table, self._forgotten)
            if not rest.equals(table):
                footer = about(path)
                counts = counts_again(footer["counts"], decisions_in(rest))
                commit(path, rest, footer | {"rows": rest.num_rows, "counts": counts})
                self._note(table, rest)

    def _people(self) -> None:
        """Both tables of each fragment, whichever lost a row: either's footer has the counts of both."""
        for fragment in self._run.people.fragments():
            paths = [table.path(fragment) for table in (self._run.people, self._run.people_photos)]
            tables = [read_table(path) for path in paths]
            rests = [without_rows(table, self._forgotten) for table in tables]
            if rests == tables:
                continue
            footer, (_, photos) = about(paths[0]), rests
            counts = counts_again(footer["counts"], chain.from_iterable(map(decisions_in, rests)))
            for path, table, rest in zip(paths, tables, rests, strict=True):
                commit(path, rest, footer | {"rows": photos.num_rows, "counts": counts})
                self._note(table, rest)

    def _tables(self, paths: Iterable[str]) -> None:
        """Tables without counts."""
        for path in paths:
            table = read_table(path)
            mask = stays(table, self._forgotten)
            if not all(mask):
                rest = table.filter(pa.array(mask))
                write_table(path, rest)
                self._note(table, rest)

    def _photos(self) -> None:
        self._fragments(self._run.photos, without_rows)
        self._done.removed += self._run.copies.keep_only(None)  # found again from other hashes
        listings = [*self._run.listings.paths(), *self._run.sample.paths()]
        places, renamed = self._places_of(listings)
        self._measured("people", lambda row: self._forgotten.measured(row["measured_on"]), renamed)
        self._measured(
            "photos", lambda row: row["measured_on"] in places or self._forgotten.row(row), renamed
        )
        self._fragments(self._run.screened, without_rows)
        for path in listings:
            self._listing(path)

    def _measured(self, phase: str, goes: Callable[[dict[str, Any]], bool], renamed: dict[str, str]) -> None:
        """What models said; a file is named after the source_keys of its photos, so it gets another name."""
        files = self._run.measured(phase)
        for path in files.paths():
            table = read_table(path)
            named = table.select([name for name in ("measured_on", "photo_id") if name in table.column_names])
            mask = [not goes(row) for row in named.to_pylist()]
            if not all(mask):
                old = files.rows_of(path)
                self._move(path, table, mask, files.beside(path, renamed.get(old, old)))

    def _places_of(self, listings: list[str]) -> tuple[set[str], dict[str, str]]:
        """(what photos that go are measured on, {old name of what was measured: new name})."""
        places: set[str] = set()
        renamed: dict[str, str] = {}
        for path in listings:
            for group in _row_groups(path):
                mask = stays(group, self._forgotten)
                if all(mask):
                    continue
                keys = group["source_key"].to_pylist()
                gone = group.filter(pa.array([not stay for stay in mask]))
                places.update(map(place_name, gone.select(PLACE).to_pylist()))
                left = [key for key, stay in zip(keys, mask, strict=True) if stay]
                renamed[fingerprint(keys)] = fingerprint(left)
        return places, renamed

    def _listing(self, path: str) -> None:
        groups = list(_row_groups(path))
        masks = [stays(group, self._forgotten) for group in groups]
        if all(all(mask) for mask in masks):
            return
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, groups[0].schema, compression="zstd") as writer:
            for group, mask in zip(groups, masks, strict=True):
                rest = group.filter(pa.array(mask))
                if rest.num_rows:
                    writer.write_table(rest)
        write_bytes(path, sink.getvalue())
        self._done.rewritten += 1

    def _move(self, path: str, table: pa.Table, mask: list[bool], target: str) -> None:
        rest = table.filter(pa.array(mask))
        if rest.num_rows:
            write_table(target, rest)
        if target != path or not rest.num_rows:
            remove(path)
        self._note(table, rest)

    # --- what is said of the run as a whole --------------------------------------------------------

    def _reported(self) -> None:
        """Counts of the summary; messages that may name a photo go."""
        for path in (self._run.traceback, self._run.server_log):
            if path is not None and exists(path):
                remove(path)
                self._done.removed += 1
        status = self._run.status
        if status is not None and status.get("message"):
            self._run.status = {**status, "message": ""}
        summary = self._run.summary
        if summary is not None:
            self._run.summary = {**summary, **self._counted_again(summary)}

    def _counted_again(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The summary's numbers, from the footers of the fragments as they are now."""
        counts = Counts()
        names = [name for names in PHASES.values() for name in names if name != self._run.packing.name]
        for name in names:
            for fragment in self._run.table(name).about():
                counts.add(fragment["counts"])
        groups = self._run.groups(["decisions"])
        if groups is not None:
            counts.count(Pack.unit, groups["decisions"].to_pylist(), only=Pack.name)
        now = counts.to_json()
        stages = [{**entry, **now.get(entry["stage"], {})} for entry in summary["stages"]]
        dataset = self._run.dataset or {}
        return {
            "stages": stages,
            # What `retry` took away is not there any more: its earlier counts say nothing.
            **funnel_ends([entry for entry in stages if entry["stage"] in now]),
            **{name: dataset.get(name, 0) for name in ("groups", "photos", "bytes")},
            "shards": len(dataset.get("shards", [])),
        }

    def _folder(self, folder: str) -> None:
        if exists(folder):
            remove(folder, recursive=True)
            self._done.removed += 1

    def _note(self, before: pa.Table, after: pa.Table) -> None:
        self._done.rewritten += 1
        self._done.rows += before.num_rows - after.num_rows


def forget_in_dataset(
    folder: str,
    photos: frozenset[str] | set[str],
    min_photos: int,
    *,
    break_lock: bool = False,
    only_what_is_there: bool = False,
) -> dict[str, Any]:
    """Takes photos out of a dataset. Returns its checksums and revisions before and after, and counts.

    only_what_is_there   photos that it does not hold get no tombstones in it
    """
    from shards.format.dataset import DatasetError
    from shards.tools.forget import forget
    from shards.tools.forget_plan import IdsToForget

    before = _state(folder)
    try:
        done = forget(
            folder,
            IdsToForget(photos=frozenset(photos)),
            min_photos=min_photos,
            missing_ok=True,
            only_what_is_there=only_what_is_there,
            break_lock=break_lock,
        )
    except DatasetError as error:
        raise PersonaError(str(error)) from None
    after = _state(folder)
    return {
        "before": before,
        "after": after,
        "photos": done.photos,
        "groups_dropped": done.groups_dropped,
        "shards_rewritten": done.shards_rewritten,
        "stale_side_files": list(done.stale_side_files),
    }


def _state(folder: str) -> dict[str, Any]:
    data = read_bytes(join(folder, "dataset.json"))
    dataset = json.loads(data)
    return {"revision": dataset.get("revision", 0), "sha256": hashlib.sha256(data).hexdigest()}


def _row_groups(path: str) -> Iterator[pa.Table]:
    with open_parquet(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, **ALONE)


def _remove_temporaries(folder: str) -> None:
    """Files that killed writers left unnamed: they may hold anything. A store shows only whole ones."""
    if not is_local(folder):
        return
    for parent, _, names in os.walk(local_path(folder)):
        for name in names:
            if is_temporary(name):
                Path(parent, name).unlink(missing_ok=True)
