"""Rows of a Parquet file in batches of bounded bytes, however large its row groups are."""

import os
import pickle
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import one_line

_BATCH_BYTES = 32 * 2**20  # of the columns that are read, as the file states them
_BATCH_ROWS = 1024
_READ_BYTES = 4 * 2**20  # at a time; without it a whole column of a row group is fetched at once


def open_table(stream: IO[bytes]) -> pq.ParquetFile:
    """A file whose columns are read piece by piece. Raises what pyarrow raises of files that are none."""
    return pq.ParquetFile(stream, buffer_size=_READ_BYTES, pre_buffer=False)


def batches(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a row group in order, at most about 32 MiB or one row at a time.

    columns  names of columns, or of fields of structs, as `json.url`
    """
    about = file.metadata.row_group(group)
    size = 0
    for number in range(about.num_columns):
        chunk = about.column(number)
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
            size += chunk.total_uncompressed_size
    fit = _BATCH_BYTES * about.num_rows // max(size, 1)
    rows = max(1, min(fit, _BATCH_ROWS))
    yield from file.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)


def plain_records(
    file: pq.ParquetFile, paths_of: str | None = None, whole: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """The rows without bytes, and without lists but those of text.

    paths_of  a column of pictures, of which the path alone is read
    whole     columns that are read whatever they hold
    """
    light: list[str] = []
    for field in file.schema_arrow:
        fields = [field.name] if field.name in whole else _light(field)
        if field.name == paths_of and pa.types.is_struct(field.type):
            fields = [name for name in fields if name == f"{paths_of}.path"]
        light += fields
    for group in range(file.num_row_groups):
        if not light:
            yield from ({} for _ in range(file.metadata.row_group(group).num_rows))
            continue
        for batch in batches(file, group, light):
            yield from batch.to_pylist()


def _light(field: pa.Field) -> list[str]:
    """What is read of a column for the listing: itself, or the plain fields of a struct."""
    if pa.types.is_struct(field.type):
        return [f"{field.name}.{name}" for below in field.type for name in _light(below)]
    return [field.name] if _is_plain(field.type) else []


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values are text, numbers or dates, or lists with text in them, as of several addresses."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        leaves = list(_leaves(kind))
        return any(map(_is_text, leaves)) and all(map(_is_plain, leaves))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return not (
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(field.type)
    else:
        yield kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


class RowReader:
    """Single rows of a file, holding one batch. Rising order reads a row group once; at the first step back
    the group is read anew, and from then on its rows come from a scratch file.

    What a row group fails with is remembered: it is not read again for each of its rows.
    """

    def __init__(self, stream: IO[bytes], columns: Sequence[str]) -> None:
        self._stream = stream
        self._file = open_table(stream)
        self._columns = [name for name in columns if name in self._file.schema_arrow.names]
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._group = -1
        self._batch: pa.RecordBatch | None = None
        self._first = 0  # row of the file that the batch begins with
        self._scratch: _Scratch | None = None  # what was read of the group since the first step back
        # By group: the first row that cannot be read, and why.
        self._failures: dict[int, tuple[int, str]] = {}

    def row(self, number: int) -> dict[str, Any]:
        """{column: value} of a row of the file. Raises OSError."""
        group = bisect_right(self._starts, number) - 1
        from_row, why = self._failures.get(group, (number + 1, ""))
        if number >= from_row:
            raise OSError(why)
        if group != self._group:
            self._begin(group, None)
        elif number < self._first and self._scratch is None:
            self._begin(group, _Scratch())
        while number >= self._first + self._rows():
            self._next()
        if self._scratch is not None:
            return self._scratch.row(number - self._starts[group])
        assert self._batch is not None
        return self._row_of(self._batch, number - self._first)

    def _begin(self, group: int, scratch: "_Scratch | None") -> None:
        self._let_go()
        self._batches = batches(self._file, group, self._columns)
        self._group, self._first, self._scratch = group, self._starts[group], scratch

    def _rows(self) -> int:
        return 0 if self._batch is None else self._batch.num_rows

    def _next(self) -> None:
        """Takes the next batch of the group. Raises OSError."""
        self._first += self._rows()
        self._batch = None
        try:
            self._batch = next(self._batches)
        except Exception as error:
            group, self._group = self._group, -1
            if isinstance(error, OSError) and error.errno:  # a store that is away comes back
                raise
            why = f"row group {group}: {one_line(error)}"
            self._failures[group] = (self._first, why)
            raise OSError(why) from None
        if self._scratch is not None:
            for place in range(self._batch.num_rows):
                self._scratch.add(self._row_of(self._batch, place))

    def _row_of(self, batch: pa.RecordBatch, place: int) -> dict[str, Any]:
        return {name: batch.column(name)[place].as_py() for name in self._columns}

    def _let_go(self) -> None:
        self._batches, self._batch = iter(()), None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def close(self) -> None:
        """Lets go of the file."""
        self._let_go()
        self._file.close()
        self._stream.close()


class _Scratch:
    """Rows of a row group in a file that has no name, and goes when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="persona-")  # noqa: SIM115
        self._places: list[int] = []

    def add(self, row: dict[str, Any]) -> None:
        """Behind the rows that are there."""
        self._places.append(self._file.seek(0, os.SEEK_END))
        pickle.dump(row, self._file, pickle.HIGHEST_PROTOCOL)

    def row(self, place: int) -> dict[str, Any]:
        """One of them."""
        self._file.seek(self._places[place])
        return dict(pickle.load(self._file))

    def close(self) -> None:
        """Deletes the file."""
        self._file.close()
