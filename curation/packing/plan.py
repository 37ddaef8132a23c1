"""Which group goes into which shard: by content alone, before anything is written."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from curation.fragments import Fragment
from curation.ledger import Outcome, at_least, is_kept, judged
from curation.settings.groups import ShardsSettings
from curation.storage import join, read_table


@dataclass(frozen=True)
class PlannedGroup:
    """A group, where its people lie, and what was ruled about it."""

    key: str
    bucket: int
    person_ids: tuple[str, ...]
    n_bytes: int
    outcome: Outcome


@dataclass
class PlannedShard:
    """Groups of one shard in the order of their keys."""

    groups: list[PlannedGroup] = field(default_factory=list)
    n_bytes: int = 0


def groups_of(folder: str, captions: list[Fragment], min_photos: int) -> Iterator[PlannedGroup]:
    """All groups by key. One whose captions leave too few photos is rejected."""
    columns = ["group", "person_id", "n_bytes", "verdict"]
    for fragment in captions:
        table = read_table(join(folder, fragment.name), columns)
        members: dict[str, list[tuple[str, int]]] = {}
        rows = table.to_pylist()
        for row, still_in in zip(rows, is_kept(table), strict=True):
            group = members.setdefault(row["group"], [])
            if still_in:
                group.append((row["person_id"], row["n_bytes"]))
        for key in sorted(members):
            people = sorted(members[key])
            yield PlannedGroup(
                key=key,
                bucket=fragment.index,
                person_ids=tuple(person_id for person_id, _ in people),
                n_bytes=sum(size for _, size in people),
                outcome=judged([at_least("too_few_photos", len(people), min_photos)]),
            )


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
