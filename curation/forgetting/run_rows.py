"""Takes photos out of the tables of a run, and their decisions out of the counts."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from curation.columns import put_column
from curation.ledger import Counts
from curation.photos.measured_on import photo_and_key

PHOTO_DIGITS = 64
_START_DIGITS = 10  # of a photo_id that a detail may name it by
_NAME = re.compile(r"\b([0-9a-f]{10,64})(?:-\d+)?\b")
Goes = Callable[[dict[str, Any]], bool]


class RowFilter:
    """Tells which rows are of forgotten photos, by photo_id or by their place in the collection."""

    def __init__(self, photos: Iterable[str], keys: Iterable[str]) -> None:
        self.photos, self.keys = frozenset(photos), frozenset(keys)
        self._starts = frozenset(photo[:_START_DIGITS] for photo in self.photos)

    def person(self, person_id: str | None) -> bool:
        """Whether a person is on a photo that goes."""
        return person_id is not None and person_id[:PHOTO_DIGITS] in self.photos

    def row(self, row: dict[str, Any]) -> bool:
        """Whether a row of a photo, a person, or a doubt between two goes."""
        return (
            row.get("photo_id") in self.photos
            or row.get("source_key") in self.keys
            or any(self.person(row.get(name)) for name in ("person_id", "person_a", "person_b", "a", "b"))
        )

    def unnamed(self, detail: str) -> str:
        """The detail of a decision about another photo, without the names of those that go."""

        def said(found: re.Match[str]) -> str:
            if found[1][:_START_DIGITS] not in self._starts:
                return found[0]
            return "a forgotten photo" if any(p.startswith(found[1]) for p in self.photos) else found[0]

        return _NAME.sub(said, detail)

    def measured(self, measured_on: str) -> bool:
        """Whether a remembered measurement of the phase `people` goes."""
        photo_id, key = photo_and_key(measured_on)
        return photo_id in self.photos or key in self.keys


_DECIDED = ("decisions", "person_decisions")
_LOOKED_AT = ("photo_id", "source_key", "person_id", "person_a", "person_b", "a", "b")


def stays(table: pa.Table, forgotten: RowFilter) -> list[bool]:
    """Per row: whether it has nothing to do with who leaves."""
    columns = [name for name in _LOOKED_AT if name in table.column_names]
    return [not forgotten.row(row) for row in table.select(columns).to_pylist()]


def without_rows(table: pa.Table, forgotten: RowFilter) -> tuple[pa.Table, Counts] | None:
    """The table without rows that go, and what was decided about them; None where nothing changes.

    What was decided about those who stay no longer names those who go.
    """
    mask = stays(table, forgotten)
    rest = _without_names(table.filter(pa.array(mask)), forgotten)
    if all(mask) and rest.equals(table):
        return None
    gone = Counts()
    removed = table.filter(pa.array([not stay for stay in mask]))
    for name in _DECIDED:
        if name in table.column_names:
            for decisions in removed[name].to_pylist():
                lists = decisions if name == "person_decisions" else [decisions]
                gone.count("", [found or [] for found in lists or []])
    return rest, gone


def _without_names(table: pa.Table, forgotten: RowFilter) -> pa.Table:
    for name in _DECIDED:
        if name in table.column_names:
            values = table[name].to_pylist()
            if sum(_unname(decisions, forgotten) for decisions in values):
                table = put_column(table, name, pa.array(values, table.schema.field(name).type))
    return table


def _unname(decisions: Any, forgotten: RowFilter) -> int:
    """Changes details in decisions, or in lists of them; how many there were to change."""
    if isinstance(decisions, list):
        return sum(_unname(inner, forgotten) for inner in decisions)
    if not decisions or not decisions["detail"]:
        return 0
    before, decisions["detail"] = decisions["detail"], forgotten.unnamed(decisions["detail"])
    return int(decisions["detail"] != before)


def without_members(table: pa.Table, forgotten: RowFilter) -> tuple[pa.Table, Counts] | None:
    """Rows of identities or groups without the people who go, as `without_rows`; an empty row goes too.

    Lists of a row that are as long as `person_ids` are cut alike; `pairs` loses whatever names one of them.
    """
    rows, gone, changed = [], Counts(), False
    for row in table.to_pylist():
        ids = row["person_ids"]
        keep = [place for place, person in enumerate(ids) if not forgotten.person(person)]
        changed |= sum(_unname(row.get(name), forgotten) for name in _DECIDED) > 0
        if len(keep) == len(ids):
            rows.append(row)
            continue
        changed = True
        left = set(keep)
        out = [place for place in range(len(ids)) if place not in left]
        for place in out:
            decisions = (row.get("person_decisions") or [[]] * len(ids))[place]
            gone.count("", [decisions or []])
        if not keep:
            gone.count("", [row["decisions"] or []])
            continue
        for name, value in row.items():
            if name == "pairs":
                row[name] = [pair for pair in value or [] if not forgotten.row(pair)]
            elif isinstance(value, list) and len(value) == len(ids) and name != "decisions":
                row[name] = [value[place] for place in keep]
        rows.append(row)
    if not changed:
        return None
    return pa.Table.from_pylist(rows, schema=table.schema), gone


def counts_without(counts: dict[str, Any], gone: Counts) -> dict[str, Any]:
    """Counts as a footer has them, less those that `gone` counts; its other stages are ignored."""
    less = gone.to_json()
    found = {}
    for stage, entry in counts.items():
        minus = less.get(stage)
        found[stage] = entry
        if minus is not None:
            reasons = {
                name: number - minus["reasons"].get(name, 0) for name, number in entry["reasons"].items()
            }
            found[stage] = {
                **entry,
                **{name: entry[name] - minus[name] for name in ("in", "kept", "rejected", "failed")},
                "reasons": {name: number for name, number in reasons.items() if number > 0},
            }
    return found
