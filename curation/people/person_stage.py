"""A stage of the phase `people` that measures people: columns with one entry a person."""

from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.errors import PersonaError, one_line
from curation.ledger import (
    ERROR,
    KEPT,
    NOT_MEASURED,
    Check,
    Outcome,
    failed,
    is_kept,
    judged,
    rule_people,
)
from curation.models import Models
from curation.people.chain import ChainContext, ChainStage
from curation.settings.base import Settings
from curation.stage import set_columns

# Columns that no measurement, or no ruling, looks at: the heavy ones are not turned into objects.
_NOT_MEASURED = frozenset(("person_decisions", "decisions", "metadata"))
_NOT_RULED_BY = _NOT_MEASURED | {"masks", "labels"}


class PersonStage(ChainStage):
    """Measures the people of each photo and rules on them.

    The columns of `fills` are lists parallel to `person_ids`, null where a person was not measured, and one
    string column `NAME_error` for a photo on which measuring failed. A subclass writes `measure_people`; and
    `checks`, or `ruling`, where its thresholds name no columns.
    """

    unit: ClassVar[str] = "person"
    requires: ClassVar[str | None] = None
    """A column of an earlier stage: people for whom it is null are not measured."""

    def __init__(self, settings: Settings, chain: ChainContext, models: Models | None = None) -> None:
        super().__init__(settings, chain, models)
        self._all = chain.measure == "all"

    @property
    def _looked_at(self) -> list[str]:
        """The columns that `wanted` reads."""
        errors = [f"{name}_error" for name in self.needs]
        return ["person_verdicts", *errors, *([self.requires] if self.requires else [])]

    def wanted(self, row: dict[str, Any]) -> list[int]:
        """The people of a photo that are to be measured; nobody where an earlier stage broke down."""
        if any(row[f"{name}_error"] is not None for name in self.needs):
            return []
        verdicts = row["person_verdicts"] or []
        required = row[self.requires] or [] if self.requires else verdicts
        return [
            i
            for i, (verdict, value) in enumerate(zip(verdicts, required, strict=False))
            if value is not None and (self._all or verdict == KEPT)
        ]

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos with a wanted person that was never measured."""
        rows = table.select([*self._looked_at, self.error_column]).to_pylist()
        were_measured = _has_values(table[self.fills.names[0]])
        return [
            (still_in or self._all)
            and row[self.error_column] is None
            and any(i >= len(measured) or not measured[i] for i in self.wanted(row))
            for row, measured, still_in in zip(rows, were_measured, is_kept(table), strict=True)
        ]

    def measure(self, table: pa.Table) -> pa.Table:
        """Measures the wanted people that were not measured before, photo by photo.

        What is known of the others stays. An error is that photo's own.
        """
        if not len(self.fills):
            return table
        results = []
        columns_read = [name for name in table.column_names if name not in _NOT_MEASURED]
        for row in table.select(columns_read).to_pylist():
            people = len(row["person_ids"])
            columns: dict[str, Any] = {
                name: row[name] or [None] * people for name in self.fills.names if name != self.error_column
            }
            first = columns[self.fills.names[0]]
            missing = [i for i in self.wanted(row) if first[i] is None]
            if not missing:
                results.append(columns)
                continue
            self.calls.asked(self.name, [row["person_ids"][i] for i in missing])
            try:
                for i, measured in zip(missing, self.measure_people(row, missing), strict=True):
                    for name, value in measured.items():
                        columns[name][i] = value
            except PersonaError:
                raise
            except Exception as error:  # models raise anything; the photo is failed, the run goes on
                columns = {self.error_column: one_line(error)}
            results.append(columns)
        return set_columns(table, self.fills, results)

    def measure_people(self, row: dict[str, Any], wanted: list[int]) -> list[dict[str, Any]]:
        """One {column: value} for each wanted person of a photo."""
        raise NotImplementedError

    def checks(self, row: dict[str, Any], i: int) -> list[Check]:
        """The numbers of person i of a photo beside their settings."""
        return [self.check(each.reason, round(row[each.column][i], 4)) for each in self.thresholds]

    def ruling(self, row: dict[str, Any], i: int) -> Outcome:
        """What is ruled on person i of a photo, who was measured; rows hold no `masks` and `labels`."""
        return judged(self.checks(row, i))

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every person still in; a photo with an error fails its people."""
        outcomes: list[list[Outcome | None]] = []
        measures = len(self.fills) > 0
        were_measured = _has_values(table[self.fills.names[0]]) if measures else [[]] * table.num_rows
        columns = [name for name in table.column_names if name not in _NOT_RULED_BY]
        for row, measured in zip(table.select(columns).to_pylist(), were_measured, strict=True):
            ruled: list[Outcome | None] = []
            for i, verdict in enumerate(row["person_verdicts"]):
                if verdict != KEPT:
                    ruled.append(None)
                elif measures and row[self.error_column] is not None:
                    ruled.append(failed(ERROR, row[self.error_column]))
                elif measures and (i >= len(measured) or not measured[i]):
                    ruled.append(failed(NOT_MEASURED))
                else:
                    ruled.append(self.ruling(row, i))
            outcomes.append(ruled)
        return rule_people(table, self.stamp, outcomes)


def _has_values(column: pa.ChunkedArray) -> list[list[bool]]:
    """Per row and person: whether the entry is not null; an empty list where the row's list is null."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    valid = np.asarray(array.values.is_valid())
    starts = array.offsets.to_numpy().tolist()
    lists = array.is_valid().to_pylist()
    return [
        valid[start:stop].tolist() if filled else []
        for filled, (start, stop) in zip(lists, pairwise(starts), strict=True)
    ]
