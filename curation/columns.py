"""Columns of tables: setting one, and a column of lists in one piece."""

from typing import Any

import pyarrow as pa


def put_column(table: pa.Table, field: pa.Field | str, values: Any) -> pa.Table:
    """The table with one column set; its type is that of the field, or of the values."""
    name = field if isinstance(field, str) else field.name
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, values)
    return table.append_column(field, values)


def list_array(column: pa.ChunkedArray) -> pa.Array:
    """A column of lists in one piece."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], column.type)
    return whole
