"""Ids that `forget` takes out of a dataset, and the changes of each sample that follow from them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shards.format.contents import NOT_STATED
from shards.format.dataset import DatasetError
from shards.format.dataset_tombstones import DatasetTombstones, is_unguessable, tombstone
from shards.format.members import identity_of, photo_ids, record_of
from shards.format.stated import carried_columns
from shards.tools.dataset_rows import DatasetRows


@dataclass(frozen=True)
class IdsToForget:
    """Ids to forget, and tombstones (of another dataset) of ids that nobody names.

    photos   sha256 of the photos' bytes, hex
    """

    identities: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    photos: frozenset[str] = frozenset()
    tombstones: DatasetTombstones = field(default_factory=DatasetTombstones)

    def __bool__(self) -> bool:
        return bool(self.identities or self.keys or self.photos or len(self.tombstones))

    def __or__(self, other: "IdsToForget") -> "IdsToForget":
        return IdsToForget(
            self.identities | other.identities,
            self.keys | other.keys,
            self.photos | other.photos,
            self.tombstones | other.tombstones,
        )

    def named(self) -> set[tuple[str, str]]:
        """(kind, id) of all that is named."""
        kinds = (("identity", self.identities), ("key", self.keys), ("photo", self.photos))
        return {(kind, id_) for kind, ids in kinds for id_ in ids}

    def wants(self, kind: str, id_: str, ids: frozenset[str]) -> bool:
        """Whether an id is to be forgotten."""
        return id_ in ids or (len(self.tombstones) > 0 and self.tombstones.has(kind, id_))


def read_ids(path: str | Path) -> IdsToForget:
    """Ids of a file: lines `identity:ID`, `key:KEY`, `photo:PHOTO_ID`, or `sha256:PHOTO_ID` as an opt-out
    list has them; `#` begins a comment. Raises DatasetError with the line that is none of these."""
    ids: dict[str, set[str]] = {"identity": set(), "key": set(), "photo": set()}
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {str(error).splitlines()[0]}") from None
    for number, line in enumerate(lines, 1):
        kind, colon, id_ = (part.strip() for part in line.split("#", 1)[0].partition(":"))
        if not kind and not colon:
            continue
        if kind in ("photo", "sha256") and len(id_) == 64:
            ids["photo"].add(id_.lower())
        elif kind in ("identity", "key") and id_:
            ids[kind].add(id_)
        else:
            raise DatasetError(
                f"{path}:{number}: {line.strip()[:80]!r} is none of identity:ID, key:KEY, "
                "photo:<64 hex digits>, sha256:<64 hex digits>"
            )
    return IdsToForget(frozenset(ids["identity"]), frozenset(ids["key"]), frozenset(ids["photo"]))


@dataclass
class ForgetPlan:
    """dropped: numbers of whole samples; edited: {number: pictures (suffixes) that go}; found: (kind, id)
    of the request that are there; lines: tombstones of what goes; licences of the photos that go."""

    dropped: set[int] = field(default_factory=set)
    edited: dict[int, set[str]] = field(default_factory=dict)
    found: set[tuple[str, str]] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)
    licences: Counter[str] = field(default_factory=Counter)
    photos: int = 0

    def touched(self) -> set[int]:
        """Numbers of all samples that change."""
        return self.dropped | set(self.edited)


def plan_forget(dataset: DatasetRows, request: IdsToForget, min_photos: int) -> ForgetPlan:
    """Finds the samples that a request changes. Records are read only for photos or tombstones."""
    plan = ForgetPlan()
    wants_photos = bool(request.photos) or len(request.tombstones) > 0
    for number, key in enumerate(dataset.all_keys()):
        hits = [
            (kind, id_)
            for kind, id_, ids in (
                ("key", key, request.keys),
                ("identity", identity_of(key), request.identities),
            )
            if request.wants(kind, id_, ids)
        ]
        if hits:
            plan.found.update(hits)
            plan.lines.update(tombstone(kind, id_) for kind, id_ in hits if is_unguessable(kind, id_))
            _drop(plan, dataset, number)
        elif wants_photos:
            _find_photos(plan, dataset, number, request, min_photos)
    return plan


def _drop(plan: ForgetPlan, dataset: DatasetRows, number: int) -> None:
    """A sample that goes with all its photos: none of them may come again."""
    members = dataset.read(number).members
    ids = photo_ids(members)
    plan.dropped.add(number)
    plan.lines.update(tombstone("photo", id_) for id_ in ids.values())
    _count(plan, members, ids)


def _find_photos(
    plan: ForgetPlan, dataset: DatasetRows, number: int, request: IdsToForget, least: int
) -> None:
    ids = dataset.photo_ids(number)
    gone = {suffix: id_ for suffix, id_ in ids.items() if request.wants("photo", id_, request.photos)}
    if not gone:
        return
    plan.found.update(("photo", id_) for id_ in gone.values())
    plan.lines.update(tombstone("photo", id_) for id_ in gone.values())
    left = len(ids) - len(gone)
    members = dataset.read(number).members
    if left == 0 or left < least:
        plan.dropped.add(number)
        _count(plan, members, ids)
    else:
        plan.edited[number] = set(gone)
        _count(plan, members, gone)


def _count(plan: ForgetPlan, members: Mapping[str, bytes], pictures: Iterable[str]) -> None:
    for suffix in pictures:
        plan.photos += 1
        plan.licences[carried_columns(record_of(members, suffix)).get("licence", NOT_STATED)] += 1
