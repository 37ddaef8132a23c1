"""Which group goes into which shard, by content alone; and how a dataset came to be, for its card."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Declared, Number, Reason, Threshold
from curation.fragments import Fragment
from curation.ledger import ERROR, FAILED, Outcome, at_least, at_most, failed, is_kept, judged, kept
from curation.run_tables import PhaseTable
from curation.settings import PipelineSettings
from curation.settings.groups import ShardsSettings
from shards.format.sample import MAX_PHOTOS

KEPT_GROUP = kept()  # one object for all of them: there are a hundred thousand


class Pack(Declared):
    """Decisions about groups: whether one has the photos that a shard needs of it, and could be packed."""

    name: ClassVar[str] = "pack"
    unit: ClassVar[str] = "group"
    settings_type: ClassVar[Any] = ShardsSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("too_many_photos", f"the group has more than {MAX_PHOTOS:,} photos"),
        Reason("captions_failed", "photos without a caption would make it large enough", verdict=FAILED),
        Reason(ERROR, "a photo cannot be read, or is no longer the one that was judged", verdict=FAILED),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("too_few_photos", "outfits.min_photos", "at least", "photos of the group"),
    )
    numbers: ClassVar[Mapping[str, Number]] = {"too_many_photos": Number("at most", "photos of the group")}


STAGES: tuple[type[Declared], ...] = (Pack,)


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


def groups_of(table: PhaseTable, captions: list[Fragment], min_photos: int) -> Iterator[PlannedGroup]:
    """All groups by key. One whose captions leave too few photos is rejected."""
    for fragment in captions:
        people = table.read(fragment, ["group", "n_bytes", "verdict"])
        sizes: dict[str, list[int]] = {}
        unknown: Counter[str] = Counter()
        for row, still_in in zip(people.to_pylist(), is_kept(people), strict=True):
            sizes.setdefault(row["group"], []).extend([row["n_bytes"]] if still_in else [])
            unknown[row["group"]] += row["verdict"] == FAILED
        for key in sorted(sizes):
            outcome = _ruling(len(sizes[key]), unknown[key], min_photos)
            yield PlannedGroup(key, fragment.index, len(sizes[key]), sum(sizes[key]), outcome)


def _ruling(photos: int, unknown: int, min_photos: int) -> Outcome:
    """Failed, and not rejected, where photos that failed could have made the group large enough."""
    if photos < min_photos <= photos + unknown:
        return failed("captions_failed", f"{unknown} of its photos have no caption")
    ruled = judged(
        [
            at_least("too_few_photos", photos, min_photos),
            at_most("too_many_photos", photos, MAX_PHOTOS),
        ]
    )
    return KEPT_GROUP if ruled.verdict == "kept" else ruled


def people_of_groups(captions: pa.Table) -> dict[str, dict[str, dict[str, Any]]]:
    """{group: {person_id: the row of `captions/`}} of the people still in, in the order of their ids."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    rows = zip(captions.to_pylist(), is_kept(captions), strict=True)
    for row in sorted((row for row, still_in in rows if still_in), key=lambda row: row["person_id"]):
        groups.setdefault(row["group"], {})[row["person_id"]] = row
    return groups


def plan_shards(groups: Iterable[PlannedGroup], settings: ShardsSettings) -> list[PlannedShard]:
    """Kept groups in order, cut into as few shards of about equal bytes as the limits allow.

    A group that is larger than a shard alone has one to itself.
    """
    kept_groups = [group for group in groups if group.outcome.verdict == "kept"]
    if not kept_groups:
        return []
    most = int(settings.max_shard_mib * 2**20)
    total = sum(group.n_bytes for group in kept_groups)
    shards = max(-(-len(kept_groups) // settings.max_groups), -(-total // most), 1)
    while True:
        cut = _cut(kept_groups, total, shards)
        if shards >= len(kept_groups) or all(_fits(shard, settings.max_groups, most) for shard in cut):
            return cut
        shards = max(shards + 1, shards * 51 // 50)


def _cut(groups: list[PlannedGroup], total: int, shards: int) -> list[PlannedShard]:
    """Each group goes where the middle of its bytes falls; of groups without bytes, where its place does."""
    found: dict[int, PlannedShard] = {}
    before = 0
    for place, group in enumerate(groups):
        middle = (2 * before + group.n_bytes) * shards // (2 * total) if total else 0
        even = place * shards // len(groups)
        number = min(middle, shards - 1) if shards < len(groups) else even
        shard = found.setdefault(number, PlannedShard())
        shard.groups.append(group)
        shard.n_bytes += group.n_bytes
        before += group.n_bytes
    return [found[number] for number in sorted(found)]


def _fits(shard: PlannedShard, max_groups: int, most: int) -> bool:
    return len(shard.groups) <= max_groups and (shard.n_bytes <= most or len(shard.groups) == 1)


_SECTIONS = ("photos", "people", "identities", "outfits", "selection", "captions", "shards")
# What was fitted to a judge's answers, and what a plugin's author put there.
_UNTOLD = ("calibration", "options")


PlaceOf = Callable[[str], Any]
"""What names of stages are sorted by, in the order of the funnel."""


def funnel(counts: Mapping[str, Mapping[str, Any]], place_of: PlaceOf) -> list[dict[str, Any]]:
    """{stage, unit, in, kept, rejected, failed, reasons} of each stage, from {folder: {stage: counts}}."""
    # Workers finish in any order, so the order in which stages were first counted is not one to write down.
    stages = {stage: entry for folder in counts.values() for stage, entry in folder.items()}
    return [{"stage": stage, **stages[stage]} for stage in sorted(stages, key=place_of)]


def telling_settings(pipeline: PipelineSettings) -> dict[str, Any]:
    """{key of pipelines.yaml: value} of all that results depend on, but places and what is not set."""
    ruling = pipeline.without_places()
    return dict(sorted(pair for section in _SECTIONS for pair in _leaves(section, ruling.get(section))))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            if name not in _UNTOLD:
                yield from _leaves(f"{path}.{name}", below)
    elif value is not None and not (isinstance(value, str) and _names_a_place(value)):
        yield path, value


def _names_a_place(value: str) -> bool:
    """Whether a text is a place all the same: a filter's author may have missed `path()`."""
    return "://" in value or "\\" in value or value.startswith(("/", "~", "./", "../"))
