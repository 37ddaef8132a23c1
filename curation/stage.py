"""A stage: measure, then decide. And the run of stages over a fragment, measuring once.

A stage is a callable on a pyarrow Table that knows nothing of Ray. Rows in = rows out: it fills
columns and gives decisions, it never filters. What it measures is remembered beside the run by the
rows and by all that the measurement depends on; thresholds are applied to remembered measurements.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from curation.columns import put_column, put_rows
from curation.declared import Declared
from curation.fingerprint import fingerprint
from curation.ledger import Check, Stamp
from curation.meters import StageClock
from curation.models import Model
from curation.run_tables import MeasuredRows
from curation.settings.base import Settings
from curation.storage import exists, read_table, write_table


class Stage(Declared):
    """Base of all stages. A subclass declares what `Declared` lists, and overrides what it needs.

    fills    the columns that `measure` writes; empty where nothing is measured
    needs    names of the stages whose measurements this one's measurements build on
    version  raised when the code changes what is measured
    """

    fills: ClassVar[pa.Schema] = pa.schema([])
    needs: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1

    def __init__(self, settings: Settings, models: Sequence[Model] = ()) -> None:
        self.settings: Any = settings
        self.models = tuple(models)
        revisions = ", ".join(model.revision for model in self.models)
        self.stamp = Stamp(self.name, revisions, settings.hash())
        self._measured_with = settings.measurement()

    def check(self, reason: str, score: float) -> Check:
        """A number beside the setting that the threshold with this reason names."""
        declared = next(threshold for threshold in self.thresholds if threshold.reason == reason)
        return declared.check(score, getattr(self.settings, declared.field))

    def measured_with(self) -> dict[str, Any]:
        """What a measurement of this stage depends on, the stages in `needs` aside."""
        return {
            "stage": self.name,
            "version": self.version,
            "settings": self._measured_with,
            "models": [model.sha256 for model in self.models],
        }

    def missing(self, table: pa.Table) -> list[bool]:
        """Per row: whether it must be measured now (still wanted, and not measured before)."""
        return [False] * table.num_rows

    def measure(self, table: pa.Table) -> pa.Table:
        """The table with the columns of `fills` set. Errors are caught per row, never per batch."""
        return table

    def complete(self, table: pa.Table, missing: Sequence[bool]) -> pa.Table:
        """The table with the rows named by `missing` measured; `measure` is given those alone."""
        if all(missing):
            return self.measure(table)
        measured = self.measure(table.filter(pa.array(missing))).select(self.fills.names)
        return put_rows(table, [row for row, is_missing in enumerate(missing) if is_missing], measured)

    def decide(self, table: pa.Table) -> pa.Table:
        """The table with this stage's decisions, from stored measurements alone."""
        return table

    def __call__(self, table: pa.Table) -> pa.Table:
        """Measures and decides all rows."""
        return self.decide(self.measure(with_columns(table, self.fills)))


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with every column of `schema`; absent ones are added as nulls."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def set_columns(table: pa.Table, schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The table with the columns of `schema` replaced by those of `rows` (absent keys are null)."""
    for field in schema:
        values = pa.array([row.get(field.name) for row in rows], field.type)
        table = put_column(table, field, values)
    return table


def run_stages(stages: Sequence[Stage], table: pa.Table) -> pa.Table:
    """Measures and decides with one stage after the other; nothing is remembered."""
    for stage in stages:
        table = stage(table)
    return table


def decide_stages(stages: Sequence[Stage], table: pa.Table) -> pa.Table:
    """Decides with one stage after the other, from what was measured before."""
    for stage in stages:
        table = stage.decide(table)
    return table


_ROW_ID = "measured_on"


class Measurements:
    """What stages measured, on disk: a file STAGE-HASH/ROWS for each stage and fragment.

    HASH covers the stage's models and settings and those of the stages it needs; ROWS is a hash of
    the source_keys of the fragment's photos. Beside each row lies what it was measured on (the content
    of a photo, or a person on it), so that measurements outlive every change of a threshold, and a photo
    that was replaced is measured anew by itself.
    """

    def __init__(self, files: MeasuredRows, stages: Sequence[Stage]) -> None:
        self._files = files
        self.hashes: dict[str, str] = {}
        for stage in stages:
            below = [self.hashes[name] for name in stage.needs]
            self.hashes[stage.name] = fingerprint([stage.measured_with(), below])

    def path(self, stage: Stage, source_keys: Sequence[str]) -> str:
        """The file of a stage for a fragment of these photos."""
        return self._files.path(f"{stage.name}-{self.hashes[stage.name]}", fingerprint(list(source_keys)))


class FragmentRun:
    """Runs stages over one fragment, or over slices of it, so that few photos are open at once.

    Models are asked only about rows that `missing` names; `save` remembers what they said.

    source_keys  of the fragment's photos
    clock        notes how long each stage takes
    """

    def __init__(self, measurements: Measurements, source_keys: Sequence[str], clock: StageClock) -> None:
        self._measurements, self._source_keys, self._clock = measurements, source_keys, clock
        self._known: dict[str, _Known] = {}
        self.lacks = False
        """Whether a run that measures nothing met a row that is to be measured."""

    def run(
        self, stages: Sequence[Stage], table: pa.Table, row_ids: Sequence[str], measures: bool = True
    ) -> pa.Table:
        """Measures and decides; `row_ids` say what each row is measured on."""
        for stage in stages:
            if len(stage.fills):
                table = self._measured(stage, table, row_ids, measures)
            with self._clock.working(stage.name, 0 if len(stage.fills) else table.num_rows):
                table = stage.decide(table)
        return table

    def save(self) -> None:
        """Remembers what was measured, of all slices."""
        for known in self._known.values():
            known.save()

    def _measured(self, stage: Stage, table: pa.Table, row_ids: Sequence[str], measures: bool) -> pa.Table:
        if stage.name not in self._known:
            self._known[stage.name] = _Known(stage, self._measurements.path(stage, self._source_keys))
        known = self._known[stage.name]
        table = known.fill(table, row_ids)
        missing = stage.missing(table)
        if not measures:
            self.lacks |= any(missing)
            return table
        if any(missing):
            with self._clock.working(stage.name, sum(missing)):
                table = stage.complete(table, missing)
        known.note(table, row_ids, any(missing))
        return table


class _Known:
    """The measurements of one stage for a fragment: as they were remembered, and as they are now."""

    def __init__(self, stage: Stage, path: str) -> None:
        self._fills, self._path = stage.fills, path
        self._table = read_table(path) if exists(path) else None
        ids = [] if self._table is None else self._table[_ROW_ID].to_pylist()
        self._place = {row_id: row for row, row_id in enumerate(ids)}
        self._slices: list[pa.Table] = []
        self._changed = False

    def fill(self, table: pa.Table, row_ids: Sequence[str]) -> pa.Table:
        """The table with the stage's columns as remembered, or null."""
        if self._table is None:
            return with_columns(table, self._fills)
        rows = pa.array([self._place.get(row_id) for row_id in row_ids], pa.int64())
        for field in self._fills:
            table = put_column(table, field, self._table[field.name].cast(field.type).take(rows))
        return table

    def note(self, table: pa.Table, row_ids: Sequence[str], changed: bool) -> None:
        """Takes a slice as it is now."""
        named = table.select(self._fills.names).append_column(_ROW_ID, pa.array(row_ids, pa.string()))
        self._slices.append(named)
        self._changed |= changed

    def save(self) -> None:
        """Writes the file where something was measured."""
        if self._changed:
            write_table(self._path, pa.concat_tables(self._slices).combine_chunks())
