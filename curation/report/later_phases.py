"""What the phases behind `identities` said of each person: outfit, caption, group, and who was compared."""

from collections.abc import Container
from dataclasses import dataclass, field

import pyarrow as pa

from curation.columns import list_array
from curation.ledger import KEPT
from curation.report.decisions import Short, Words, short_decisions
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
