"""A stage: measure, then decide. And the chain that runs stages over a fragment, measuring once.

A stage is a callable on a pyarrow Table that knows nothing of Ray. Rows in = rows out: it fills
columns and gives decisions, it never filters. What it measures is remembered beside the run by the
rows and by all that the measurement depends on; thresholds are applied to remembered measurements.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from curation.columns import put_column
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


_ROW_ID = "measured_on"


class Measurements:
    """What stages measured, on disk: a file STAGE-HASH/ROWS for each stage and set of rows.

    HASH covers the stage's models and settings and those of the stages it needs; ROWS is a hash of
    the fragment's source_keys. Beside each row lies what it was measured on (`row_ids`: the content
    of a photo), so that measurements outlive every change of a threshold, and a photo that was
    replaced is measured anew by itself.
    """

    def __init__(self, files: MeasuredRows, stages: Sequence[Stage]) -> None:
        self._files = files
        self.hashes: dict[str, str] = {}
        for stage in stages:
            below = [self.hashes[name] for name in stage.needs]
            self.hashes[stage.name] = fingerprint([stage.measured_with(), below])

    def load(self, stage: Stage, table: pa.Table, row_ids: Sequence[str]) -> pa.Table:
        """The table with the stage's columns as remembered, or null."""
        path = self._path(stage, table)
        if not exists(path):
            return with_columns(table, stage.fills)
        remembered = read_table(path)
        place = {row_id: row for row, row_id in enumerate(remembered[_ROW_ID].to_pylist())}
        rows = pa.array([place.get(row_id) for row_id in row_ids], pa.int64())
        for field in stage.fills:
            column = remembered[field.name].cast(field.type).take(rows)
            table = put_column(table, field, column)
        return table

    def save(self, stage: Stage, table: pa.Table, row_ids: Sequence[str]) -> None:
        """Remembers the stage's columns."""
        known = table.select(stage.fills.names).append_column(_ROW_ID, pa.array(row_ids, pa.string()))
        write_table(self._path(stage, table), known)

    def _path(self, stage: Stage, table: pa.Table) -> str:
        rows = fingerprint(table["source_key"].to_pylist())
        return self._files.path(f"{stage.name}-{self.hashes[stage.name]}", rows)


def run_chain(
    stages: Sequence[Stage],
    table: pa.Table,
    measurements: Measurements,
    row_ids: Sequence[str],
    slice_rows: int,
    after_slice: Callable[[], None] = lambda: None,
    clock: StageClock | None = None,
) -> pa.Table:
    """Runs all stages over `table`, `slice_rows` rows at a time, so that few photos are open at once.

    Models are asked only about rows that `missing` names; what they say is remembered before the
    result is returned. `row_ids` say what each row is measured on; `clock` notes how long each stage takes.
    """
    clock = clock or StageClock()
    measuring = [stage for stage in stages if len(stage.fills)]
    for stage in measuring:
        table = measurements.load(stage, table, row_ids)
    fresh: set[str] = set()
    slices = []
    for start in range(0, max(table.num_rows, 1), slice_rows):
        part = table.slice(start, slice_rows)
        for stage in stages:
            if len(stage.fills):
                missing = stage.missing(part)
                if any(missing):
                    with clock.working(stage.name, sum(missing)):
                        part = _measure(stage, part, missing)
                    fresh.add(stage.name)
            with clock.working(stage.name, 0 if len(stage.fills) else part.num_rows):
                part = stage.decide(part)
        slices.append(part)
        after_slice()
    result = pa.concat_tables(slices).combine_chunks()
    for stage in measuring:
        if stage.name in fresh:
            measurements.save(stage, result, row_ids)
    return result


def _measure(stage: Stage, table: pa.Table, missing: Sequence[bool]) -> pa.Table:
    """Measures the rows named by `missing` and puts them back in their places."""
    if all(missing):
        return stage.measure(table)
    measured = stage.measure(table.filter(pa.array(missing)))
    order = []
    places = iter(range(table.num_rows, table.num_rows + measured.num_rows))
    for row, is_missing in enumerate(missing):
        order.append(next(places) if is_missing else row)
    for field in stage.fills:
        both = pa.chunked_array([*table[field.name].chunks, *measured[field.name].chunks])
        table = put_column(table, field, both.take(order))
    return table
