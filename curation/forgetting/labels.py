"""Takes pairs that people labelled (`persona judge label`) out of their file."""

import csv
import io

import pyarrow as pa
import pyarrow.csv

from curation.errors import ConfigError
from curation.forgetting.run_rows import RowFilter
from curation.judging.labelled_pairs import read_labels
from curation.storage import write_bytes, write_table

_COLUMNS = ("a", "b", "same")


def forget_in_labels(path: str, photos: set[str]) -> int:
    """Removes pairs in which a person_id of these photos stands. Returns how many.

    Raises ConfigError where the file has other columns than such a file has.
    """
    try:
        table = read_labels(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    if not set(_COLUMNS) <= set(table.column_names):
        raise ConfigError(f"{path}: is no file of labelled pairs (columns a, b, same)")
    forgotten = RowFilter(photos, ())
    stays = [
        not (forgotten.person(str(a)) or forgotten.person(str(b)))
        for a, b in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    ]
    if all(stays):
        return 0
    rest = table.filter(pa.array(stays))
    if path.endswith(".parquet"):
        write_table(path, rest)
    else:
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(rest.column_names)
        lines.writerows(zip(*(column.to_pylist() for column in rest.columns), strict=True))
        write_bytes(path, text.getvalue().encode())
    return stays.count(False)
