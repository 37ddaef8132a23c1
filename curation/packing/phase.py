"""The phase `shards`: writes each planned shard once, then the index, the card and dataset.json.

Files: shards/NNNNNN.tar with index.parquet, README.md, dataset.json: the dataset, and nothing else;
packing/fragment-* (the index of each shard, committed after its tar), packing/groups.parquet (what
became of every group).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.call_counter import CallCounter
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.ledger import DECISIONS, Counts, Stamp, failed, kept
from curation.outfits.gather import read_bucket
from curation.packing.plan import PlannedGroup, groups_of, plan_shards
from curation.people.atr import decode_map
from curation.people.boxes import whole_box
from curation.people.person_stage import one_line
from curation.settings import PipelineSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.step import Context, run_step, work_of
from curation.storage import (
    exists,
    join,
    list_names,
    read_bytes,
    read_table,
    remove,
    write_bytes,
    write_table,
)
from shards.dataset import INDEX_SCHEMA, card_bytes, dataset_bytes, index_bytes
from shards.sample import Group, PhotoMember, members_of
from shards.tar_writer import ShardWriter

VERSION = 1
_PART_SCHEMA = pa.schema(
    [
        *INDEX_SCHEMA,
        ("shard_bytes", pa.int64()),
        ("shard_checksum", pa.string()),
        ("licence", pa.string()),
        ("error", pa.string()),
    ]
)
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
    """What a dataset was made with: everything but the places where things lie and the resources."""
    ruling = pipeline.ruling()
    ruling["source"].pop("path")
    return fingerprint(ruling)


def run_shards(context: Context, gathered: str, captions: list[Fragment], title: str) -> None:
    """Runs the phase."""
    pipeline = context.job.pipeline
    folder = context.folder("shards")
    step_hash = fingerprint(["shards", VERSION, pipeline.shards.ruling(), config_hash(pipeline)])
    source = context.folder("captions")
    planned: list[PlannedGroup] = list(groups_of(source, captions, max(2, pipeline.outfits.min_photos)))
    named = {fragment.index: fragment for fragment in captions}
    sources: list[tuple[str, Fragment, dict[str, Any]]] = []
    shard_of: dict[str, str] = {}
    for number, shard in enumerate(plan_shards(iter(planned), pipeline.shards)):
        buckets = sorted({group.bucket for group in shard.groups})
        key = fingerprint(
            [step_hash, gathered, [named[b].key for b in buckets], [g.key for g in shard.groups]]
        )
        by_bucket: dict[int, list[tuple[str, tuple[str, ...]]]] = {}
        for group in shard.groups:
            by_bucket.setdefault(group.bucket, []).append((group.key, group.person_ids))
            shard_of[group.key] = shard_name(number)
        detail = {
            "gathered": gathered,
            "captions": {bucket: named[bucket].name for bucket in buckets},
            "groups": by_bucket,
        }
        sources.append((shard_name(number), Fragment(number, key), detail))
    whole = _dataset_key(step_hash, captions, sources)
    if _is_whole(context, whole):
        parts = [fragment for _, fragment, _ in sources]
        run_step(context, "shards", "packing", sources, open_packing, pipeline.shards.resources)
    else:
        # Without dataset.json nobody takes a folder that is being rewritten for a dataset.
        remove(join(folder, "dataset.json"))
        parts = run_step(context, "shards", "packing", sources, open_packing, pipeline.shards.resources)
        wanted = {name for name, _, _ in sources}
        for name in list_names(folder):
            if (name.endswith(".tar") and name not in wanted) or name.endswith(".tmp"):
                remove(join(folder, name))
        _finish(context, folder, parts, planned, shard_of, title, whole)
    _count_rejected(context, planned)


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:06d}.tar"


def _dataset_key(step_hash: str, captions: list[Fragment], sources: list[Any]) -> str:
    return fingerprint([step_hash, digest(captions), [fragment.key for _, fragment, _ in sources]])


def _is_whole(context: Context, key: str) -> bool:
    marker = context.folder("packing", "whole")
    if not exists(marker) or not exists(context.folder("shards", "dataset.json")):
        return False
    return read_bytes(marker).decode() == key


def _count_rejected(context: Context, planned: list[PlannedGroup]) -> None:
    """Groups that were ruled out before packing count as rows of the stage too."""
    rejected = [group for group in planned if group.outcome.verdict != "kept"]
    counts = Counts()
    counts.add(context.counts["packing"])
    stamp = Stamp("pack", "", context.job.pipeline.shards.hash())
    counts.count("group", [[stamp.decision(group.outcome)] for group in rejected])
    context.counts["packing"] = counts.to_json()


def _finish(
    context: Context,
    folder: str,
    parts: list[Fragment],
    planned: list[PlannedGroup],
    shard_of: dict[str, str],
    title: str,
    key: str,
) -> None:
    """Index, ledger of groups, card, dataset.json; the last one makes it a dataset."""
    tables = [read_table(join(context.folder("packing"), part.name)) for part in parts]
    errors: dict[str, str] = {}
    licences: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    shards: list[dict[str, Any]] = []
    identities: set[str] = set()
    packed_tables = []
    for part, table in zip(parts, tables, strict=True):
        failures = table.filter(pc.is_valid(table["error"]))
        errors |= dict(zip(failures["key"].to_pylist(), failures["error"].to_pylist(), strict=True))
        packed = table.filter(pc.is_null(table["error"]))
        packed_tables.append(packed)
        photos = packed.filter(pc.is_valid(packed["licence"]))
        licences.update(photos["licence"].to_pylist())
        per_group = Counter(photos["key"].to_pylist())
        sizes.update(per_group.values())
        identities |= {name.rsplit("-", 1)[0] for name in per_group}
        shards.append(
            {
                "name": shard_name(part.index),
                "groups": len(per_group),
                "photos": sum(per_group.values()),
                "bytes": table["shard_bytes"][0].as_py(),
                "checksum": table["shard_checksum"][0].as_py(),
            }
        )
    _write_groups(context, planned, shard_of, errors)
    pipeline = context.job.pipeline
    about = {
        "config": config_hash(pipeline),
        "identities": len(identities),
        "licences": dict(sorted(licences.items())),
        "photos_per_group": {str(size): sizes[size] for size in sorted(sizes)},
        "models": {
            name: {"sha256": model.sha256, "licence": model.licence}
            for name, model in sorted(context.job.models.items())
        },
        "pipeline": title,
    }
    index = index_bytes(packed_tables)
    write_bytes(join(folder, "index.parquet"), index)
    write_bytes(join(folder, "README.md"), card_bytes(title, shards, about))
    write_bytes(join(folder, "dataset.json"), dataset_bytes(shards, index, about))
    write_bytes(context.folder("packing", "whole"), key.encode())


def _write_groups(
    context: Context,
    planned: list[PlannedGroup],
    shard_of: dict[str, str],
    errors: dict[str, str],
) -> None:
    stamp = Stamp("pack", "", context.job.pipeline.shards.hash())
    rows = []
    for group in planned:
        error = errors.get(group.key)
        outcome = group.outcome if error is None else failed("error", error)
        rows.append(
            {
                "group": group.key,
                "identity": group.key.rsplit("-", 1)[0],
                "person_ids": list(group.person_ids),
                "shard": shard_of.get(group.key) if outcome.verdict == "kept" else None,
                "verdict": outcome.verdict,
                "decisions": [stamp.decision(outcome)],
            }
        )
    write_table(
        context.folder("packing", "groups.parquet"), pa.Table.from_pylist(rows, schema=_GROUPS_SCHEMA)
    )


def open_packing(job: Job) -> Work:
    """Work: a planned shard becomes a tar and, after it, the part of the index that tells of it."""
    photos = PhotoBytes(job.pipeline.source)
    stamp = Stamp("pack", "", job.pipeline.shards.hash())

    def transform(task: Task) -> tuple[pa.Table, Counts]:
        rows: list[dict[str, Any]] = []
        decisions = []
        with ShardWriter(join(job.run, "shards", task.source)) as writer:
            for key, people in _planned_people(job, task):
                try:
                    members = members_of(build_group(key, people, photos))
                except (OSError, EOFError, ValueError) as problem:
                    error = one_line(problem)
                    rows.append({"shard": task.source, "key": key, "error": error})
                    decisions.append([stamp.decision(failed("error", error))])
                    continue
                decisions.append([stamp.decision(kept())])
                rows += _write_group(writer, task.source, key, members, people)
            size, checksum = writer.close()
        for row in rows:
            row["shard_bytes"], row["shard_checksum"] = size, checksum
        counts = Counts()
        counts.count("group", decisions)
        return pa.Table.from_pylist(rows, schema=_PART_SCHEMA), counts

    return work_of(transform, CallCounter(job.calls))


def _write_group(
    writer: ShardWriter,
    shard: str,
    key: str,
    members: list[tuple[str, bytes]],
    people: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of the index; `licence` is stated on the row of each photo and null elsewhere."""
    licences = iter(person["licence"] or "not stated" for person in people)
    rows = []
    for name, data in members:
        member = writer.add(key, name, data)
        is_photo = name.endswith((".jpg", ".png", ".webp")) and not name.endswith(".regions.png")
        rows.append({"shard": shard, **asdict(member), "licence": next(licences) if is_photo else None})
    return rows


def _planned_people(job: Job, task: Task) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(group key, its people with their captions) of a shard, in order; one bucket at a time."""
    for bucket, groups in task.detail["groups"].items():
        captions = read_table(
            join(job.run, "captions", task.detail["captions"][bucket]),
            ["person_id", "photo_caption"],
        )
        sentence = dict(zip(*(column.to_pylist() for column in captions), strict=True))
        people = read_bucket(join(job.run, "outfits", task.detail["gathered"]), bucket)
        place = {person_id: row for row, person_id in enumerate(people["person_id"].to_pylist())}
        for key, person_ids in groups:
            rows = people.take([place[person_id] for person_id in person_ids]).to_pylist()
            yield key, [{**row, "photo_caption": sentence[row["person_id"]]} for row in rows]


def build_group(key: str, people: list[dict[str, Any]], photos: PhotoBytes) -> Group:
    """A sample of a group's people. Raises ValueError where a photo is no longer the one judged."""
    members = []
    for person in people:
        data = photos.read(person)
        if hashlib.sha256(data).hexdigest() != person["photo_id"]:
            raise ValueError(f"{person['source_key']} has changed since it was read")
        labels = np.zeros((person["height"], person["width"]), np.uint8)
        x0, y0, x1, y1 = whole_box(np.array(person["box"]), person["width"], person["height"])
        labels[y0:y1, x0:x1] = decode_map(person["labels"])
        members.append(PhotoMember(data, person["format"], photo_record(person), labels))
    identity, _, outfit = key.rpartition("-")
    return Group(key, {"group": key, "identity": identity, "outfit": outfit}, members)


def photo_record(person: dict[str, Any]) -> dict[str, Any]:
    """What a shard says of a photo: no embedding, and no place of this machine."""
    face = person["face"]
    carried = ["source_url", "page_url", "author", "licence", "consent", "collection", "subject_hint"]
    return {
        "photo_id": person["photo_id"],
        "person_id": person["person_id"],
        "file_name": person["file_name"],
        "width": person["width"],
        "height": person["height"],
        "orientation": person["orientation"],
        "box": _rounded(person["box"]),
        "box_score": round(person["box_score"], 4),
        "keypoints": _rounded(person["keypoints"]),
        "face_box": _rounded(face["box"]),
        "face_points": _rounded(face["points"]),
        "face_score": round(face["score"], 4),
        "regions": person["regions"],
        "caption": person["photo_caption"],
        "source_caption": person["caption"],
        **{name: person[name] for name in carried},
    }


def _rounded(values: list[float] | None) -> list[float] | None:
    return None if values is None else [round(value, 2) for value in values]
