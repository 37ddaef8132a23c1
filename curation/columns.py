"""Columns of tables: setting one, a column of lists in one piece, an array of strings to look for."""

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
