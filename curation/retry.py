"""Takes failed rows up again: forgets what went wrong, so that the next run lists or measures them anew.

Measurements of rows that did not fail stay. What was decided behind a failed row is decided again,
which asks no model about a row that was measured.
"""

import pyarrow as pa

from curation.errors import ConfigError
from curation.fragments import about, list_fragments
from curation.ledger import FAILED
from curation.run_folder import is_sample
from curation.storage import join, list_names, read_table, remove, write_table
from curation.vlm.cache import FOLDER as ANSWERS

# Later phases first: whatever is still there when this is killed says again that rows have failed.
_DECIDED_AGAIN = ("packing", "captions", "outfits", "identities")


def forget_failures(run: str) -> int:
    """Clears the run folder of failures. Returns how many rows of listings, measurements and answers are
    wanted again.

    Raises ConfigError for no run, and for the sample of a plan, which is made anew and not mended.
    """
    if is_sample(run):
        raise ConfigError(f"{run}: holds the sample of `persona plan`; make the plan anew")
    screened = join(run, "photos", "_screened")
    failed = [
        join(screened, fragment.name)
        for fragment in list_fragments(screened)
        if _has_failures(join(screened, fragment.name))
    ]
    later = any(
        _has_failures(join(run, phase, fragment.name))
        for phase in (*_DECIDED_AGAIN, "people")
        for fragment in list_fragments(join(run, phase))
    )
    unanswered = sum(
        _failed_people(join(run, phase, fragment.name))
        for phase in ("outfits", "captions")
        for fragment in list_fragments(join(run, phase))
    )
    if failed or later:
        for phase in _DECIDED_AGAIN:
            for name in list_names(join(run, phase)):
                if name != ANSWERS:  # what a model answered is not asked again
                    remove(join(run, phase, name), recursive=True)
        for phase in ("people", "photos"):
            for name in list_names(join(run, phase)):
                if name.startswith(("fragment-", "_copies-")):
                    remove(join(run, phase, name))
    forgotten = sum(_forget_measurements(join(run, phase, "_measured")) for phase in ("people", "photos"))
    for path in failed:
        remove(path)
    return _forget_listings(join(run, "source")) + forgotten + unanswered


def _forget_listings(folder: str) -> int:
    """Removes the listings with rows that could not be read: a store that was away is not away for good."""
    forgotten = 0
    for name in list_names(folder):
        if not name.endswith(".parquet"):
            continue
        lost = read_table(join(folder, name), ["source_error"])
        if lost.num_rows > lost["source_error"].null_count:
            forgotten += lost.num_rows - lost["source_error"].null_count
            remove(join(folder, name))
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


def _failed_people(path: str) -> int:
    """How many people a judge or captioner failed on."""
    return sum(entry[FAILED] for entry in about(path)["counts"].values() if entry["unit"] == "person")


def _has_failures(path: str) -> bool:
    return any(entry[FAILED] for entry in about(path)["counts"].values())
