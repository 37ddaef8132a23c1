"""Takes photos out of everything that a run folder holds: dataset, report, answers, tables, listing.

Every step may be repeated: a call that was killed is completed by the same call. Fragments keep their names
until `persona curate` goes on; then those that lost a row are decided again from what was measured, which
lies under its new name already, so no model is asked about anybody who stays.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import ConfigError, PersonaError
from curation.fingerprint import fingerprint
from curation.forgetting.answers import forget_answers
from curation.forgetting.resolve import LISTINGS
from curation.forgetting.run_rows import (
    Leaving,
    counts_without,
    stays,
    without_members,
    without_rows,
)
from curation.fragments import about, commit, list_fragments
from curation.ledger import Counts, Stamp, at_least, judged
from curation.measured_on import PLACE, photo_and_key, place_name
from curation.packing.plan import Pack
from curation.run import PHASES
from curation.run_folder import HEARTBEAT_S, pipeline_of, read_json, write_json
from curation.settings import PipelineSettings
from curation.status import read_status
from curation.storage import (
    exists,
    is_local,
    join,
    list_names,
    local_path,
    open_binary,
    read_bytes,
    read_table,
    remove,
    write_bytes,
    write_table,
)
from shards.format.atomic_file import is_temporary

_MIN_PHOTOS = 2  # of a group, where a run's settings cannot be read
Edit = Callable[[pa.Table, Leaving], tuple[pa.Table, Counts] | None]


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
    if status["state"] == "running" and silent is not None and silent < 6 * HEARTBEAT_S:
        raise PersonaError(
            f"{run}: is running (process {status.get('pid')} on {status.get('host')}): stop it, forget, "
            "then go on with the same curate command"
        )


def forget_in_run(run: str, photos: set[str], keys: list[str], *, break_lock: bool = False) -> Changed:
    """Takes these photos (photo_ids, and source_keys of this run) out of a run folder, path or URL. A run
    that has none of them, neither in its listing nor in its dataset, stays as it is.

    break_lock   takes over the lock that a dead process left on the run's dataset in a store
    """
    return _RunFolder(run, Leaving(photos, keys), break_lock).forget()


class _RunFolder:
    def __init__(self, run: str, leaving: Leaving, break_lock: bool) -> None:
        self._run, self._leaving, self._break_lock = run, leaving, break_lock
        self._done = Changed()
        self._pipeline: PipelineSettings | None = None
        self._min_photos = _MIN_PHOTOS
        with suppress(ConfigError):  # its run.yaml is of another version
            self._pipeline = pipeline_of(run)[1]
            self._min_photos = self._pipeline.outfits.min_photos

    def forget(self) -> Changed:
        if not self._leaving.keys and not self._is_only_packed():
            return self._done
        _remove_temporaries(self._run)
        self._dataset()
        self._whole("report")
        self._whole("identities", "_search")
        self._done.rewritten += forget_answers(self._run, self._pipeline, self._leaving)
        self._packing()
        self._fragments("captions", without_rows)
        self._fragments("outfits", without_members)
        for folder in list_names(join(self._run, "outfits")):
            if folder.startswith("_gathered-"):
                self._tables(join(self._run, "outfits", folder), "bucket-")
        self._fragments("identities", without_rows)
        self._tables(join(self._run, "identities"), "_assigned-", "_suspects-")
        for name in list_names(join(self._run, "identities")):
            if name.startswith("_minors-"):  # names of identities alone; it is made again when it is needed
                remove(join(self._run, "identities", name))
        self._fragments("people", without_rows)
        self._measured_people()
        self._photos()
        self._reported()
        return self._done

    # --- the dataset -----------------------------------------------------------------------------

    def _is_only_packed(self) -> bool:
        """Whether the dataset has photos that go. Takes them out."""
        if exists(join(self._run, "shards", "dataset.json")):
            self._packed(only_what_is_there=True)
        return bool(self._done.dataset.get("photos"))

    def _dataset(self) -> None:
        folder = join(self._run, "shards")
        if self._done.dataset:
            return
        if exists(join(folder, "dataset.json")):
            self._packed(only_what_is_there=False)
            return
        for name in list_names(folder):  # packing was never finished: what is there is written again
            remove(join(folder, name), recursive=True)
            self._done.removed += 1
        if list_names(folder) or exists(folder):
            for fragment in list_fragments(join(self._run, "packing")):
                remove(join(self._run, "packing", fragment.name))

    def _packed(self, only_what_is_there: bool) -> None:
        self._done.dataset = forget_in_dataset(
            join(self._run, "shards"),
            self._leaving.photos,
            self._min_photos,
            break_lock=self._break_lock,
            only_what_is_there=only_what_is_there,
        )

    def _packing(self) -> None:
        """Parts of the index of shards that are no more, and the ledger of groups."""
        packing = join(self._run, "packing")
        path = join(packing, "groups.parquet")
        if not exists(path):
            return
        groups = read_table(path)
        touched = {
            row["group"]
            for row in groups.select(["group", "person_ids"]).to_pylist()
            if any(map(self._leaving.person, row["person_ids"]))
        }
        for fragment in list_fragments(packing):
            part = join(packing, fragment.name)
            if touched & set(read_table(part, ["key"])["key"].to_pylist()):
                remove(part)
                self._done.removed += 1
        changed = without_members(groups, self._leaving)
        if changed is None:
            return
        remove(join(packing, "whole"))
        write_table(path, self._too_few(changed[0]))
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

    def _fragments(self, folder: str, edit: Edit) -> None:
        place = join(self._run, *folder.split("/"))
        for fragment in list_fragments(place):
            path = join(place, fragment.name)
            table = read_table(path)
            changed = edit(table, self._leaving)
            if changed is None:
                continue
            rest, gone = changed
            said = about(path)
            said |= {"rows": rest.num_rows, "counts": counts_without(said["counts"], gone)}
            commit(path, rest, said)
            self._note(table, rest)

    def _tables(self, folder: str, *prefixes: str) -> None:
        """Tables without counts."""
        for name in list_names(folder):
            if name.startswith(prefixes) and name.endswith(".parquet"):
                table = read_table(join(folder, name))
                mask = stays(table, self._leaving)
                if not all(mask):
                    rest = table.filter(pa.array(mask))
                    write_table(join(folder, name), rest)
                    self._note(table, rest)

    def _measured_people(self) -> None:
        """What models said; the file is named after the source_keys of its rows, so it gets another name."""
        for path, table in _measured(join(self._run, "people", "_measured")):
            measured_on = table["measured_on"].to_pylist()
            mask = [not self._leaving.measured(name) for name in measured_on]
            if not all(mask):
                keys = [photo_and_key(name)[1] for name, stay in zip(measured_on, mask, strict=True) if stay]
                self._move(path, table, mask, fingerprint(keys))

    def _photos(self) -> None:
        photos = join(self._run, "photos")
        self._fragments("photos", without_rows)
        for name in list_names(photos):
            if name.startswith("_copies-"):  # is found again from the hashes of those who stay
                remove(join(photos, name))
                self._done.removed += 1
        folders = [join(self._run, name) for name in LISTINGS]
        listings = [join(f, name) for f in folders for name in list_names(f) if name.endswith(".parquet")]
        places, renamed = self._places_of(listings)
        for path, table in _measured(join(photos, "_measured")):
            ids = table["photo_id"].to_pylist() if "photo_id" in table.column_names else [None] * len(table)
            mask = [
                on not in places and photo_id not in self._leaving.photos
                for on, photo_id in zip(table["measured_on"].to_pylist(), ids, strict=True)
            ]
            if not all(mask):
                old = path.rpartition("/")[2].removesuffix(".parquet")
                self._move(path, table, mask, renamed.get(old, old))
        self._fragments("photos/_screened", without_rows)
        for path in listings:
            self._listing(path)

    def _places_of(self, listings: list[str]) -> tuple[set[str], dict[str, str]]:
        """(what photos that go are measured on, {old name of what was measured: new name})."""
        places: set[str] = set()
        renamed: dict[str, str] = {}
        for path in listings:
            for group in _row_groups(path):
                mask = stays(group, self._leaving)
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
        masks = [stays(group, self._leaving) for group in groups]
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

    def _move(self, path: str, table: pa.Table, mask: list[bool], name: str) -> None:
        rest = table.filter(pa.array(mask))
        target = join(path.rpartition("/")[0], f"{name}.parquet")
        if rest.num_rows:
            write_table(target, rest)
        if target != path or not rest.num_rows:
            remove(path)
        self._note(table, rest)

    # --- what is said of the run as a whole --------------------------------------------------------

    def _reported(self) -> None:
        """Counts of the summary; messages that may name a photo go."""
        for name in ("traceback.txt", "vllm.log"):
            if exists(join(self._run, name)):
                remove(join(self._run, name))
                self._done.removed += 1
        status = read_json(self._run, "status.json")
        if status is not None and status.get("message"):
            write_json(self._run, "status.json", {**status, "message": ""})
        summary = read_json(self._run, "summary.json")
        if summary is not None:
            write_json(self._run, "summary.json", {**summary, **self._counted_again(summary)})

    def _counted_again(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The summary's numbers, from the footers of the fragments as they are now."""
        counts = Counts()
        for folder in (name for names in PHASES.values() for name in names if name != "packing"):
            place = join(self._run, *folder.split("/"))
            for fragment in list_fragments(place):
                counts.add(about(join(place, fragment.name))["counts"])
        ledger = join(self._run, "packing", "groups.parquet")
        if exists(ledger):
            counts.count(
                Pack.unit, read_table(ledger, ["decisions"])["decisions"].to_pylist(), only=Pack.name
            )
        now = counts.to_json()
        stages = [{**entry, **now.get(entry["stage"], {})} for entry in summary["stages"]]
        dataset = read_json(join(self._run, "shards"), "dataset.json") or {}
        return {
            "stages": stages,
            "collection": now.get("read", {}).get("in", 0),
            "identities": now.get("outfits", {}).get("in", 0),
            **{name: dataset.get(name, 0) for name in ("groups", "photos", "bytes")},
            "shards": len(dataset.get("shards", [])),
        }

    def _whole(self, *names: str) -> None:
        folder = join(self._run, *names)
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
    said = json.loads(data)
    return {"revision": said.get("revision", 0), "sha256": hashlib.sha256(data).hexdigest()}


def _measured(folder: str) -> Iterator[tuple[str, pa.Table]]:
    for stage in list_names(folder):
        for name in list_names(join(folder, stage)):
            if name.endswith(".parquet") and not name.startswith("."):
                path = join(folder, stage, name)
                yield path, read_table(path)


def _row_groups(path: str) -> Iterator[pa.Table]:
    with open_binary(path) as stream, pq.ParquetFile(stream) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _remove_temporaries(folder: str) -> None:
    """Files that killed writers left unnamed: they may hold anything. A store shows only whole ones."""
    if not is_local(folder):
        return
    for parent, _, names in os.walk(local_path(folder)):
        for name in names:
            if is_temporary(name):
                Path(parent, name).unlink(missing_ok=True)
