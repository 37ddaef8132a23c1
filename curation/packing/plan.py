"""Which group goes into which shard: by content alone, before anything is written."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from curation.fragments import Fragment
from curation.ledger import Outcome, at_least, is_kept, judged, kept
from curation.settings.groups import ShardsSettings
from curation.storage import join, read_table

KEPT_GROUP = kept()  # one object for all of them: there are a hundred thousand


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A group, the bucket where its people lie, and what was ruled about it."""

    key: str
    bucket: int
    n_photos: int
    n_bytes: int
    outcome: Outcome


@dataclass
class PlannedShard:
    """Groups of one shard in the order of their keys."""

    groups: list[PlannedGroup] = field(default_factory=list)
    n_bytes: int = 0


def groups_of(folder: str, captions: list[Fragment], min_photos: int) -> Iterator[PlannedGroup]:
    """All groups by key. One whose captions leave too few photos is rejected."""
    for fragment in captions:
        people = read_table(join(folder, fragment.name), ["group", "n_bytes", "verdict"])
        sizes: dict[str, list[int]] = {}
        for row, still_in in zip(people.to_pylist(), is_kept(people), strict=True):
            sizes.setdefault(row["group"], []).extend([row["n_bytes"]] if still_in else [])
        for key in sorted(sizes):
            ruled = judged([at_least("too_few_photos", len(sizes[key]), min_photos)])
            outcome = KEPT_GROUP if ruled.verdict == "kept" else ruled
            yield PlannedGroup(key, fragment.index, len(sizes[key]), sum(sizes[key]), outcome)


def people_of_groups(captions: pa.Table) -> dict[str, dict[str, str]]:
    """{group: {person_id: caption}} of the people still in, in the order of their ids."""
    groups: dict[str, dict[str, str]] = {}
    rows = zip(captions.to_pylist(), is_kept(captions), strict=True)
    for row in sorted((row for row, still_in in rows if still_in), key=lambda row: row["person_id"]):
        groups.setdefault(row["group"], {})[row["person_id"]] = row["photo_caption"]
    return groups


def plan_shards(groups: Iterator[PlannedGroup], settings: ShardsSettings) -> Iterator[PlannedShard]:
    """Kept groups in order, cut where a shard is full. A larger group has a shard to itself."""
    most = int(settings.max_shard_mib * 2**20)
    shard = PlannedShard()
    for group in groups:
        if group.outcome.verdict != "kept":
            continue
        full = len(shard.groups) >= settings.max_groups or shard.n_bytes + group.n_bytes > most
        if shard.groups and full:
            yield shard
            shard = PlannedShard()
        shard.groups.append(group)
        shard.n_bytes += group.n_bytes
    if shard.groups:
        yield shard
