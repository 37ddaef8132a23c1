"""Takes photos out of the tables of a run."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from curation.columns import put_column
from curation.photos.measured_on import photo_and_key

PHOTO_DIGITS = 64
_START_DIGITS = 10  # of a photo_id that a detail may name it by
_NAME = re.compile(r"\b([0-9a-f]{10,64})(?:-\d+)?\b")


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

    def measured(self, measured_on: str | None) -> bool:
        """Whether a remembered measurement of the phase `people` goes; None is one that `retry` emptied."""
        photo_id, key = (None, None) if measured_on is None else photo_and_key(measured_on)
        return photo_id in self.photos or key in self.keys


_DECIDED = ("decisions", "person_decisions")
_LOOKED_AT = ("photo_id", "source_key", "person_id", "person_a", "person_b", "a", "b")


def stays(table: pa.Table, forgotten: RowFilter) -> list[bool]:
    """Per row: whether it has nothing to do with who leaves."""
    columns = [name for name in _LOOKED_AT if name in table.column_names]
    return [not forgotten.row(row) for row in table.select(columns).to_pylist()]


def without_rows(table: pa.Table, forgotten: RowFilter) -> pa.Table:
    """The table without rows that go. What was decided about those who stay no longer names those who go."""
    return _without_names(table.filter(pa.array(stays(table, forgotten), pa.bool_())), forgotten)


def decisions_in(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """The decisions of every row, and those of its people, where it has some."""
    yield from table["decisions"].to_pylist()
    if "person_decisions" in table.column_names:
        for people in table["person_decisions"].to_pylist():
            yield from people or []


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


def without_members(table: pa.Table, forgotten: RowFilter) -> pa.Table:
    """Rows of identities or groups without the people who go, as `without_rows`; an empty row goes too.

    Lists of a row that are as long as `person_ids` are cut alike; `pairs` loses whatever names one of them.
    """
    rows = []
    for row in table.to_pylist():
        ids = row["person_ids"]
        keep = [place for place, person in enumerate(ids) if not forgotten.person(person)]
        if not keep:
            continue
        for name, value in row.items() if len(keep) < len(ids) else ():
            if name == "pairs":
                row[name] = [pair for pair in value or [] if not forgotten.row(pair)]
            elif isinstance(value, list) and len(value) == len(ids) and name != "decisions":
                row[name] = [value[place] for place in keep]
        rows.append(row)
    return _without_names(pa.Table.from_pylist(rows, schema=table.schema), forgotten)
