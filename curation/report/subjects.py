"""The rows of a report: photos and people with their decisions, and what the phases behind `identities` said.

Rows keep the order of the run's fragments, and stream: one fragment is in memory.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from curation.columns import list_array
from curation.funnel import stages_before_people
from curation.ledger import KEPT
from curation.report.decisions import Short, Words, short_decisions, stage_of, verdict_of
from curation.run_folder import Run
from curation.run_tables import Numbered


@dataclass
class Later:
    """A person behind the phase `identities`."""

    decisions: list[Short] = field(default_factory=list)
    caption: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two person_ids, what the judge said of them (None: it could not tell) and its score."""

    a: str
    b: str
    same: bool | None
    score: float | None


@dataclass(frozen=True)
class Group:
    """A group that was planned: its people in order, and the shard it lies in (None: in none)."""

    key: str
    person_ids: list[str]
    shard: str | None


@dataclass
class LaterPhases:
    """By person_id, and what is about several people."""

    people: dict[str, Later]
    pairs: list[Pair]
    groups: list[Group]


def read_later(run: str, words: Words, excluded: Container[str]) -> LaterPhases:
    """Reads outfits, captions and groups; nothing of photos in `excluded` (photo_ids)."""
    found = LaterPhases({}, [], [])
    for table in Run(run).outfits.tables(["decisions", "person_ids", "person_decisions", "pairs"]):
        _outfits(table, words, excluded, found)
    for table in Run(run).captions.tables(["person_id", "group", "photo_caption", "decisions"]):
        decisions = short_decisions(table["decisions"], words)
        columns = [table[name].to_pylist() for name in ("person_id", "group", "photo_caption")]
        for person_id, group, caption, ruled in zip(*columns, decisions, strict=True):
            later = found.people.get(person_id)
            if later is not None:
                later.decisions += ruled
                later.group, later.caption = group, caption
    _groups(run, words, excluded, found)
    return found


def _outfits(table: pa.Table, words: Words, excluded: Container[str], found: LaterPhases) -> None:
    of_identity = short_decisions(table["decisions"], words)
    lists = list_array(table["person_decisions"])
    of_person = iter(short_decisions(pa.chunked_array([lists.flatten()]), words))
    for person_ids, ruled in zip(table["person_ids"].to_pylist(), of_identity, strict=True):
        for person_id in person_ids:
            decisions = [*ruled, *next(of_person)]
            if person_id[:64] not in excluded:
                found.people[person_id] = Later(decisions)
    for pairs in table["pairs"].to_pylist():
        for pair in pairs or []:
            if pair["a"][:64] not in excluded and pair["b"][:64] not in excluded:
                found.pairs.append(Pair(pair["a"], pair["b"], pair["same"], pair["score"]))


def _groups(run: str, words: Words, excluded: Container[str], found: LaterPhases) -> None:
    table = Run(run).groups(["group", "person_ids", "shard", "verdict", "decisions"])
    if table is None:
        return
    columns = [table[name].to_pylist() for name in ("group", "person_ids", "shard", "verdict")]
    for key, everyone, shard, verdict, ruled in zip(
        *columns, short_decisions(table["decisions"], words), strict=True
    ):
        person_ids = [person_id for person_id in everyone if person_id[:64] not in excluded]
        for person_id in person_ids:
            if person_id in found.people:
                found.people[person_id].decisions += ruled
        if person_ids and verdict == KEPT:
            found.groups.append(Group(key, person_ids, shard))


@dataclass(frozen=True)
class PersonRow:
    """A person: box in px of the upright photo, how many of the five regions are visible.

    `from_face`: no detector found the person, but a face that lies in nobody's box.
    """

    person_id: str
    box: list[int]
    regions: int | None
    identity: str | None
    group: str | None
    caption: str | None
    decisions: list[Short]
    from_face: bool


@dataclass(frozen=True)
class PhotoRow:
    """A photo of the collection. `number` is its place in the report; photo_id None: never read."""

    number: int
    photo_id: str | None
    source_key: str
    file_name: str
    width: int | None
    height: int | None
    decisions: list[Short]
    people: list[PersonRow]

    def subjects(self) -> Iterator[tuple[int, list[Short]]]:
        """(place of the person, its decisions); −1 for a photo that nobody on it was looked at."""
        if not self.people:
            yield -1, self.decisions
        for place, person in enumerate(self.people):
            yield place, person.decisions


_PHOTO = ["source_key", "file_name", "photo_id", "width", "height", "decisions"]
_PEOPLE = ["person_ids", "boxes", "regions", "person_decisions", "from_face"]


def read_rows(run: str, words: Words, later: LaterPhases, excluded: Container[str]) -> Iterator[PhotoRow]:
    """Every photo that is not in `excluded` (photo_ids)."""
    photos = Run(run).people.by_index([*_PHOTO, *_PEOPLE])
    if len(photos) == 0:
        photos = Run(run).photos_so_far().by_index(_PHOTO)
    persons = Run(run).identities.by_index(["person_id", "identity", "decisions"])
    early = {words.number(stage) for stage in stages_before_people()}
    number = 0
    for index, table in photos.items():
        decisions = short_decisions(table["decisions"], words)
        columns = [table[name].to_pylist() for name in _PHOTO[:-1]]
        people = _people(index, table, persons, words, later)
        for key, name, photo_id, width, height, ruled, found in zip(*columns, decisions, people, strict=True):
            if photo_id in excluded:
                continue
            ended_early = verdict_of(ruled[-1]) != KEPT and stage_of(ruled[-1]) in early
            shown = [] if ended_early else found
            yield PhotoRow(number, photo_id, key, name, width, height, ruled, shown)
            number += 1


def _people(
    index: int, table: pa.Table, persons: Numbered, words: Words, later: LaterPhases
) -> list[list[PersonRow]]:
    """Per photo of a fragment: its people."""
    if "person_ids" not in table.column_names:
        return [[] for _ in range(table.num_rows)]
    ids = table["person_ids"].to_pylist()
    flat = [person_id for photo in ids for person_id in photo or []]
    decisions, identities = _ruled(index, table, persons, words, flat)
    boxes = [[round(value) for value in box] for box in list_array(table["boxes"]).flatten().to_pylist()]
    regions: list[int | None] = [None] * len(flat)
    if "regions" in table.column_names:
        lists = list_array(table["regions"]).flatten()
        counted = lists.value_lengths().to_pylist()
        regions = counted if len(counted) == len(flat) else regions
    derived = [False] * len(flat)
    if "from_face" in table.column_names:
        derived = list_array(table["from_face"]).flatten().is_valid().to_pylist()
    rows: list[list[PersonRow]] = []
    place = 0
    for photo in ids:
        of_photo = []
        for person_id in photo or []:
            more = later.people.get(person_id)
            ruled = decisions[place]
            of_photo.append(
                PersonRow(
                    person_id=person_id,
                    box=boxes[place],
                    regions=regions[place],
                    identity=identities[place],
                    group=None if more is None else more.group,
                    caption=None if more is None else more.caption,
                    decisions=ruled if more is None else [*ruled, *more.decisions],
                    from_face=derived[place],
                )
            )
            place += 1
        rows.append(of_photo)
    return rows


def _ruled(
    index: int, table: pa.Table, persons: Numbered, words: Words, flat: list[str]
) -> tuple[list[list[Short]], list[str | None]]:
    """Decisions and identity of each person: of `identities/` where it is about the same people."""
    identified = persons.get(index)
    if identified is not None and identified["person_id"].to_pylist() == flat:
        return short_decisions(identified["decisions"], words), identified["identity"].to_pylist()
    lists = list_array(table["person_decisions"]).flatten()
    return short_decisions(pa.chunked_array([lists]), words), [None] * len(flat)
