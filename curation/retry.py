"""Takes failed rows up again: forgets what went wrong, so that the next run lists or measures them anew.

Measurements of rows that did not fail stay. What was decided behind a failed row is decided again,
which asks no model about a row that was measured.
"""

from typing import Any

import pyarrow as pa

from curation.errors import ConfigError
from curation.ledger import FAILED
from curation.run_folder import Run
from curation.storage import read_table, remove, write_table


def forget_failures(folder: str) -> int:
    """Clears the run folder of failures. Returns how many rows of listings, measurements and answers are
    wanted again.

    Raises ConfigError for no run, and for the sample of a plan, which is made anew and not mended.
    """
    run = Run(folder)
    if run.is_sample():
        raise ConfigError(f"{folder}: holds the sample of `persona plan`; make the plan anew")
    failed = [
        path
        for path, about in zip(run.screened.paths(), run.screened.about(), strict=True)
        if _failures(about)
    ]
    behind = (run.people, run.identities, run.outfits, run.captions, run.packing)
    later = any(_failures(about) for table in behind for about in table.about())
    answered = (run.outfits, run.captions)
    unanswered = sum(_failures(about, "person") for table in answered for about in table.about())
    if failed or later:
        run.decide_again()
    forgotten = sum(_forget_measurements(run, phase) for phase in ("people", "photos"))
    for path in failed:
        remove(path)
    return _forget_listings(run) + forgotten + unanswered


def _failures(about: dict[str, Any], unit: str | None = None) -> int:
    """How many things failed in a fragment, by what it says of itself; of a unit, or of any."""
    return sum(entry[FAILED] for entry in about["counts"].values() if unit in (None, entry["unit"]))


def _forget_listings(run: Run) -> int:
    """Removes the listings with rows that could not be read: a store that was away is not away for good."""
    forgotten = 0
    for path in run.listings.paths():
        lost = read_table(path, ["source_error"])
        if lost.num_rows > lost["source_error"].null_count:
            forgotten += lost.num_rows - lost["source_error"].null_count
            remove(path)
    return forgotten


def _forget_measurements(run: Run, phase: str) -> int:
    """Empties the remembered rows that hold an error."""
    forgotten = 0
    for path in run.measured(phase).paths():
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
