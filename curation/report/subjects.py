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
_PEOPLE = ["source_key", "person_id", "box", "regions", "decisions", "from_face"]


def read_rows(run: str, words: Words, later: LaterPhases, excluded: Container[str]) -> Iterator[PhotoRow]:
    """Every photo that is not in `excluded` (photo_ids)."""
    everyone = Run(run).people.by_index(_PEOPLE)
    photos = (Run(run).people_photos if len(everyone) else Run(run).photos_so_far()).by_index(_PHOTO)
    persons = Run(run).identities.by_index(["person_id", "identity", "decisions"])
    early = {words.number(stage) for stage in stages_before_people()}
    number = 0
    for index, table in photos.items():
        people = _people(everyone.get(index), persons.get(index), words, later)
        decisions = short_decisions(table["decisions"], words)
        columns = [table[name].to_pylist() for name in _PHOTO[:-1]]
        for key, name, photo_id, width, height, ruled in zip(*columns, decisions, strict=True):
            if photo_id in excluded:
                continue
            ended_early = verdict_of(ruled[-1]) != KEPT and stage_of(ruled[-1]) in early
            shown = [] if ended_early else people.get(key, [])
            yield PhotoRow(number, photo_id, key, name, width, height, ruled, shown)
            number += 1


def _people(
    people: pa.Table | None, persons: pa.Table | None, words: Words, later: LaterPhases
) -> dict[str, list[PersonRow]]:
    """{source_key: its people} of a fragment. `persons`: the same people in `identities/`, where they are."""
    found: dict[str, list[PersonRow]] = {}
    if people is None:
        return found
    ids = people["person_id"].to_pylist()
    identified = persons is not None and persons["person_id"].to_pylist() == ids
    ruled = persons if persons is not None and identified else people
    decisions = short_decisions(ruled["decisions"], words)
    rest = people.drop_columns(["decisions"])
    identities = ruled["identity"].to_pylist() if identified else [None] * len(ids)
    for row, of_person, identity in zip(rest.to_pylist(), decisions, identities, strict=True):
        more = later.people.get(row["person_id"], Later())
        found.setdefault(row["source_key"], []).append(
            PersonRow(
                person_id=row["person_id"],
                box=[round(value) for value in row["box"]],
                regions=None if row.get("regions") is None else len(row["regions"]),
                identity=identity,
                group=more.group,
                caption=more.caption,
                decisions=[*of_person, *more.decisions],
                from_face=row.get("from_face") is not None,
            )
        )
    return found
