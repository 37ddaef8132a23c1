"""The phase `shards`: writes each planned shard once, then the index, the card and dataset.json.

Files: shards/NNNNNN.tar with index.parquet, index.arrow, README.md, croissant.json, dataset.json: the
dataset, and nothing else; packing/fragment-* (the index of each shard, committed after its tar),
packing/groups.parquet (what became of every group).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.engine import Job, Task, Work
from curation.errors import PersonaError, one_line
from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.ledger import DECISIONS, Counts, Stamp, failed, kept
from curation.meters import CallCounter
from curation.packing.group import build_group
from curation.packing.plan import (
    Pack,
    PlaceOf,
    PlannedGroup,
    funnel,
    groups_of,
    people_of_groups,
    plan_shards,
    telling_settings,
)
from curation.run_folder import Run
from curation.run_tables import PhaseTable
from curation.settings import PipelineSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.step import Context, Made, run_step, work_of
from curation.storage import join, list_names, read_table, remove, write_bytes
from shards.format.atomic_file import AtomicFile
from shards.format.card import CARD, card_files
from shards.format.contents import Census
from shards.format.dataset import dataset_bytes, shard_name
from shards.format.dataset_writer import IndexedShard
from shards.format.index import INDEX_SCHEMA, IndexWriter
from shards.format.sample import members_of

VERSION = 5
# The rows of the index that a shard adds, after them the groups that could not be packed: key and error.
_PART_SCHEMA = pa.schema(
    [
        *(pa.field(name, INDEX_SCHEMA.field(name).type) for name in INDEX_SCHEMA.names),
        pa.field("error", pa.string()),
    ]
)
_ENTRY = b"persona.shard"  # of a part's metadata: what dataset.json says of the shard, and its licences
_GROUPS_SCHEMA = pa.schema(
    [
        ("group", pa.string()),
        ("identity", pa.string()),
        ("person_ids", pa.list_(pa.string())),
        ("shard", pa.string()),
        ("verdict", pa.string()),
        ("decisions", DECISIONS),
    ]
)


def config_hash(pipeline: PipelineSettings) -> str:
    """What a dataset was made with: everything but the places where things lie and the resources.

    Models count by the hashes of their weights, which dataset.json lists beside this.
    """
    ruling = pipeline.without_places()
    ruling.pop("models")
    return fingerprint(ruling)


def run_shards(
    context: Context, gathered: str, captions: list[Fragment], title: str, place_of: PlaceOf
) -> None:
    """Runs the phase; the card of the dataset is titled `title`."""
    pipeline = context.job.pipeline
    run = context.run
    step_hash = fingerprint(["shards", VERSION, pipeline.shards.ruling(), config_hash(pipeline)])
    planned = list(groups_of(run.captions, captions, pipeline.outfits.min_photos))
    named = {fragment.index: fragment for fragment in captions}
    sources: list[tuple[str, Fragment, dict[str, Any]]] = []
    shard_of: dict[str, str] = {}
    for number, shard in enumerate(plan_shards(planned, pipeline.shards)):
        groups: dict[int, list[str]] = {}
        for group in shard.groups:
            groups.setdefault(group.bucket, []).append(group.key)
            shard_of[group.key] = shard_name(number)
        read = {bucket: named[bucket] for bucket in groups}
        key = fingerprint([step_hash, gathered, [f.key for f in read.values()], list(groups.values())])
        detail = {
            "gathered": gathered,
            "captions": read,
            "groups": groups,
        }
        sources.append((shard_name(number), Fragment(number, key), detail))
    licences = {model.name: [model.sha256, model.licence] for model in context.job.models.values()}
    parts_wanted = [fragment.key for _, fragment, _ in sources]
    # The card tells what the stages before did, also with photos of which no group is left.
    before = funnel(context.counts, place_of)
    key = fingerprint([step_hash, digest(captions), parts_wanted, licences, title, before, _opt_out(context)])
    _forget_parts_without_tar(context, sources)
    committed = {fragment.key for fragment in run.packing.fragments()}
    is_packed = run.is_packed(key) and committed == set(parts_wanted)
    if not is_packed:
        run.not_packed()
        # Without dataset.json nobody takes a folder that is being rewritten for a dataset.
        remove(run.dataset_file)
    parts = run_step(context, "shards", run.packing, sources, open_packing, pipeline.shards.resources)
    _count_rejected(context, planned)
    if not is_packed:
        wanted = {name for name, _, _ in sources}
        for name in list_names(run.shards):
            if (name.endswith(".tar") and name not in wanted) or name.endswith(".tmp"):
                remove(join(run.shards, name))
        _finish(context, parts, captions, planned, shard_of, title, place_of)
        run.packed(key)


def _forget_parts_without_tar(context: Context, sources: list[tuple[str, Fragment, Any]]) -> None:
    """A part of the index stands for its tar: where that is gone, it is written again."""
    names = set(list_names(context.run.shards))
    for name, fragment, _ in sources:
        if name not in names:
            remove(context.run.packing.path(fragment))


def _opt_out(context: Context) -> dict[str, Any] | None:
    """Hash and number of lines of the opt-out list, and how many matched; None where there is no list."""
    about = context.run.opt_out
    return None if about is None else {name: about[name] for name in ("sha256", "lines", "matched")}


def _count_rejected(context: Context, planned: list[PlannedGroup]) -> None:
    """Groups that were ruled out before packing count as rows of the stage too."""
    rejected = [group for group in planned if group.outcome.verdict != "kept"]
    counts = Counts()
    counts.add(context.counts[context.run.packing.name])
    stamp = Stamp(Pack.name, "", context.job.pipeline.shards.hash())
    counts.count(Pack.unit, [[stamp.decision(group.outcome)] for group in rejected])
    context.counts[context.run.packing.name] = counts.to_json()


@dataclass
class _Totals:
    """What the parts of the index add up to; filled while they stream by."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    census: Census = field(default_factory=Census)
    errors: dict[str, str] = field(default_factory=dict)

    def stream(self, packing: PhaseTable, parts: list[Fragment]) -> Iterator[pa.Table]:
        """Rows of the index, shard by shard."""
        for part in parts:
            table = read_table(packing.path(part))
            about = json.loads(table.schema.metadata[_ENTRY])
            self.shards.append(about["entry"])
            self.census.licences.update(about["licences"])
            broken = table.filter(pc.is_valid(table["error"]))
            self.errors |= dict(zip(broken["key"].to_pylist(), broken["error"].to_pylist(), strict=True))
            packed = table.filter(pc.is_null(table["error"])).select(INDEX_SCHEMA.names)
            for key, photos in zip(packed["key"].to_pylist(), packed["people"].to_pylist(), strict=True):
                self.census.add(key, photos, ())
            yield packed


def _finish(
    context: Context,
    parts: list[Fragment],
    captions: list[Fragment],
    planned: list[PlannedGroup],
    shard_of: dict[str, str],
    title: str,
    place_of: PlaceOf,
) -> None:
    """Index, ledger of groups, card, dataset.json; the last one makes it a dataset."""
    run = context.run
    totals = _Totals()
    with IndexWriter(run.shards) as index:
        for rows in totals.stream(run.packing, parts):
            index.write(rows)
        hashes = index.close()
    _write_groups(context, captions, planned, shard_of, totals.errors)
    pipeline, opt_out = context.job.pipeline, _opt_out(context)
    about = {
        "config": config_hash(pipeline),
        **totals.census.to_json(),
        "models": {
            name: {"sha256": model.sha256, "licence": model.licence}
            for name, model in sorted(context.job.models.items())
        },
        "pipeline": title,
        "index": hashes,
        "funnel": funnel(context.counts, place_of),
        "settings": telling_settings(pipeline),
        **({} if opt_out is None else {"opt_out": opt_out}),
        "card": list(CARD),
    }
    for name, data in card_files(title, totals.shards, about).items():
        write_bytes(join(run.shards, name), data)
    write_bytes(run.dataset_file, dataset_bytes(totals.shards, about))


def _write_groups(
    context: Context,
    captions: list[Fragment],
    planned: list[PlannedGroup],
    shard_of: dict[str, str],
    errors: dict[str, str],
) -> None:
    stamp = Stamp(Pack.name, "", context.job.pipeline.shards.hash())
    columns = ["group", "person_id", "verdict"]
    ruled: dict[int, list[PlannedGroup]] = {}
    for group in planned:
        ruled.setdefault(group.bucket, []).append(group)
    with AtomicFile(context.run.groups_file) as file:
        with pq.ParquetWriter(file, _GROUPS_SCHEMA, compression="zstd") as writer:
            for fragment in captions:
                people = people_of_groups(context.run.captions.read(fragment, columns))
                rows = []
                for group in ruled.get(fragment.index, []):
                    error = errors.get(group.key)
                    outcome = group.outcome if error is None else failed("error", error)
                    rows.append(
                        {
                            "group": group.key,
                            "identity": group.key.rsplit("-", 1)[0],
                            "person_ids": list(people.get(group.key, {})),
                            "shard": shard_of.get(group.key) if outcome.verdict == "kept" else None,
                            "verdict": outcome.verdict,
                            "decisions": [stamp.decision(outcome)],
                        }
                    )
                writer.write_table(pa.Table.from_pylist(rows, schema=_GROUPS_SCHEMA))
        file.commit()


def open_packing(job: Job) -> Work:
    """Work: a planned shard becomes a tar and, after it, the part of the index that tells of it."""
    run, photos = Run(job.run), PhotoBytes(job.pipeline.source)
    settings = job.pipeline.shards
    stamp = Stamp(Pack.name, "", job.pipeline.shards.hash())

    def transform(task: Task) -> Made:
        census, broken, decisions = Census(), [], []
        number = int(task.source.partition(".")[0])
        with IndexedShard(run.shards, task.source, number, census) as shard:
            for key, people in _planned_people(run, task):
                try:
                    members = members_of(build_group(key, people, photos, settings))
                except PersonaError:
                    raise
                except Exception as problem:  # of any store; this group is failed, the run goes on
                    error = one_line(problem)
                    broken.append({"key": key, "error": error})
                    decisions.append([stamp.decision(failed("error", error))])
                    continue
                decisions.append([stamp.decision(kept())])
                shard.add(key, {name.removeprefix(f"{key}."): data for name, data in members})
            written = shard.close()
        counts = Counts()
        counts.count(Pack.unit, decisions)
        rows = [*written.rows.to_pylist(), *broken]
        about = json.dumps({"entry": written.entry, "licences": dict(census.licences)}, sort_keys=True)
        part = pa.Table.from_pylist(rows, schema=_PART_SCHEMA)
        return Made(part.replace_schema_metadata({_ENTRY: about}), counts)

    return work_of(transform, CallCounter(job.calls))


def _planned_people(run: Run, task: Task) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(group key, its people with their captions) of a shard, in order; one bucket at a time."""
    columns = ["group", "person_id", "photo_caption", "diversity", "verdict"]
    for bucket, keys in task.detail["groups"].items():
        captions = people_of_groups(run.captions.read(task.detail["captions"][bucket], columns))
        people = run.gathered.read(task.detail["gathered"], bucket)
        place = {person_id: row for row, person_id in enumerate(people["person_id"].to_pylist())}
        for key in keys:
            rows = people.take([place[person_id] for person_id in captions[key]]).to_pylist()
            yield key, [{**row, **captions[key][row["person_id"]]} for row in rows]
