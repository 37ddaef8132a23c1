"""Reads a Parquet file of faces, and says in one line what is wrong with one that is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError
from curation.storage import parquet_footer, read_table

_MAY_BE_NULL = ("hint", "collection")
_NUMBER_BYTES = 4  # of a float32


@contextmanager
def named_faults(path: str) -> Iterator[None]:
    """What Parquet finds wrong with the file becomes a ConfigError; a fault of the disk stays one."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(f"{path}: is no Parquet file of faces, or is damaged") from None


def read_faces(path: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The columns (all of `schema`: None) of a file of faces; embeddings are float32 of one length.

    Raises ConfigError that names the file where a column is absent, of another type, or has no value.
    """
    wanted = schema.names if columns is None else columns
    with named_faults(path):
        found = parquet_footer(path).schema.to_arrow_schema()
        for name in wanted:
            if name not in found.names or found.field(name).type != schema.field(name).type:
                kind = schema.field(name).type
                raise ConfigError(f"{path}: is no file of faces: it has no column {name} of {kind}")
        table = read_table(path, wanted)
    for name in wanted:
        if name not in _MAY_BE_NULL and table[name].null_count:
            raise ConfigError(f"{path}: is damaged: {name} has no value in some rows")
    if "embedding" in wanted and table.num_rows:
        lengths = pc.unique(pc.binary_length(table["embedding"])).to_pylist()
        if len(lengths) > 1 or lengths[0] == 0 or lengths[0] % _NUMBER_BYTES:
            raise ConfigError(f"{path}: is damaged: its embeddings are no float32 of one length")
    return table
