"""Columns of tables: setting and joining them, lists in one piece, an array of strings to look for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def put_column(table: pa.Table, field: pa.Field | str, values: Any) -> pa.Table:
    """The table with one column set; its type is that of the field, or of the values."""
    name = field if isinstance(field, str) else field.name
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, values)
    return table.append_column(field, values)


def put_rows(table: pa.Table, places: Sequence[int], rows: pa.Table) -> pa.Table:
    """The table with the rows at `places` replaced, in those columns that `rows` has."""
    order = np.arange(table.num_rows)
    order[places] = table.num_rows + np.arange(rows.num_rows)
    for field in rows.schema:
        both = pa.chunked_array([*table[field.name].chunks, *rows[field.name].chunks], field.type)
        table = put_column(table, field, both.take(pa.array(order)))
    return table


def join_rows(table: pa.Table, other: pa.Table, key: str) -> pa.Table:
    """The table with the columns of `other` that it lacks, of the one row there that has the same `key`; null
    where there is none.
    """
    import pyarrow.compute as pc

    known = other[key].combine_chunks()
    place = pc.index_in(table[key], known)
    for name in other.column_names:
        if name not in table.column_names:
            table = table.append_column(other.schema.field(name), other[name].take(place))
    return table


def list_array(column: pa.ChunkedArray) -> pa.Array:
    """A column of lists in one piece."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], column.type)
    return whole


def string_array(values: Sequence[str]) -> pa.Array:
    """An array of strings, made without `pa.array`: that one imports pandas where it is installed, a fifth of
    a second for a command that only looks something up.
    """
    data = [value.encode("utf-8", "surrogatepass") for value in values]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.string(), len(data), buffers)
