"""Columns of a phase's barrier, fragment by fragment; those that an older run does not have are absent."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from curation.fragments import list_fragments
from curation.storage import filesystem, join, read_table


def tables(run: str, folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The wanted columns of every fragment of `folder`, in order."""
    yield from numbered_tables(run, folder, columns).values()


def numbered_tables(run: str, folder: str, columns: Sequence[str]) -> "Numbered":
    """The same by the number of the fragment."""
    return Numbered(join(run, *folder.split("/")), columns)


class Numbered:
    """Fragments of a folder by number; a table is read each time that it is asked for."""

    def __init__(self, place: str, columns: Sequence[str]) -> None:
        self._place = place
        self._columns = columns
        self._names = {fragment.index: fragment.name for fragment in list_fragments(place)}

    def __len__(self) -> int:
        return len(self._names)

    def get(self, index: int) -> pa.Table | None:
        """One fragment, or None where it was not committed."""
        return self._read(self._names[index]) if index in self._names else None

    def items(self) -> Iterator[tuple[int, pa.Table]]:
        """(number, table) in order."""
        for index, name in self._names.items():
            yield index, self._read(name)

    def values(self) -> Iterator[pa.Table]:
        """Tables in order."""
        for name in self._names.values():
            yield self._read(name)

    def _read(self, name: str) -> pa.Table:
        path = join(self._place, name)
        fs, inside = filesystem(path)
        with fs.open(inside, "rb") as file:
            there = set(pq.ParquetFile(file).schema_arrow.names)
        return read_table(path, [column for column in self._columns if column in there])


def photos_folder(run: str) -> str:
    """Where the photos' last committed decisions of the phase `photos` are."""
    return "photos" if list_fragments(join(run, "photos")) else "photos/_screened"


def list_array(column: pa.ChunkedArray) -> pa.Array:
    """A column of lists in one piece."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], column.type)
    return whole
