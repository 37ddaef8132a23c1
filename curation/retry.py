"""Takes failed rows up again: forgets what went wrong, so that the next run measures those rows anew.

Measurements of rows that did not fail stay. What was decided behind a failed row is decided again,
which asks no model about a row that was measured.
"""

from typing import Any

import pyarrow as pa

from curation.fragments import about, list_fragments
from curation.ledger import FAILED
from curation.run_folder import require_run
from curation.storage import join, list_names, read_table, remove, write_table

# Phases that are decided again as a whole: they hold no measurement of their own.
_DECIDED_AGAIN = ("identities", "outfits", "captions", "packing")


def forget_failures(run: str) -> int:
    """Clears the run folder of failures. Returns how many measurements were forgotten."""
    require_run(run)
    forgotten = sum(_forget_measurements(join(run, phase, "_measured")) for phase in ("photos", "people"))
    again: set[int] = set()
    for folder in (join(run, "photos", "_screened"), join(run, "people")):
        for fragment in list_fragments(folder):
            path = join(folder, fragment.name)
            if fragment.index in again or _has_failures(about(path)["counts"]):
                again.add(fragment.index)
                remove(path)
    if again or _later_failures(run):
        for name in list_names(join(run, "photos")):
            if name.startswith(("fragment-", "_copies-")):
                remove(join(run, "photos", name))
        for phase in _DECIDED_AGAIN:
            remove(join(run, phase), recursive=True)
    return forgotten


def _forget_measurements(folder: str) -> int:
    """Empties the remembered rows that hold an error."""
    forgotten = 0
    for stage in list_names(folder):
        for name in list_names(join(folder, stage)):
            path = join(folder, stage, name)
            table = read_table(path)
            column = next(column for column in table.column_names if column.endswith("_error"))
            good = [error is None for error in table[column].to_pylist()]
            if not all(good):
                forgotten += good.count(False)
                write_table(path, _without(table, good))
    return forgotten


def _without(table: pa.Table, good: list[bool]) -> pa.Table:
    """The table with all columns null in the rows that are not good."""
    place = pa.array([row if keep else None for row, keep in enumerate(good)], pa.int64())
    return table.take(place)


def _has_failures(counts: dict[str, Any]) -> bool:
    return any(entry[FAILED] for entry in counts.values())


def _later_failures(run: str) -> bool:
    return any(
        _has_failures(about(join(run, phase, fragment.name))["counts"])
        for phase in _DECIDED_AGAIN
        for fragment in list_fragments(join(run, phase))
    )
