"""Setting a column of a table: replaced in its place where it is there, added where it is not."""

from typing import Any

import pyarrow as pa


def put_column(table: pa.Table, field: pa.Field | str, values: Any) -> pa.Table:
    """The table with one column set; its type is that of the field, or of the values."""
    name = field if isinstance(field, str) else field.name
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, values)
    return table.append_column(field, values)
