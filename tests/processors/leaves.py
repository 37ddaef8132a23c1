"""A run as flat columns of plain values, and how two of them differ."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PHASES = ("photos", "people/_photos", "people", "identities", "outfits", "captions")
# Of the moment, not of the photos.
_NOT_COMPARED = {"source_uri"}

Leaves = Mapping[str, pa.Array]


def leaves_of(run: Path) -> Leaves:
    """{"PHASE COLUMN.FIELD": all its values} of a run's barriers, and the members of its tars by suffix."""
    found: dict[str, pa.Array] = {}
    for phase in PHASES:
        files = sorted((run / phase).glob("fragment-*.parquet"))
        table = pa.concat_tables(pq.read_table(file) for file in files).combine_chunks()
        for name in table.column_names:
            if name not in _NOT_COMPARED and table.num_rows:
                for path, values in _flat(name, table[name].combine_chunks()):
                    found[f"{phase} {path}"] = values
    return found | _members(run / "shards")


def _flat(name: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Lists and structs as the values in them; of a list also how many there are."""
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    kind = values.type
    if pa.types.is_struct(kind):
        for field, inner in zip(kind, values.flatten(), strict=True):
            yield from _flat(f"{name}.{field.name}", inner)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield f"{name} (lengths)", pa.compute.list_value_length(values)
        yield from _flat(name, values.flatten())
    else:
        yield name, values


def _members(shards: Path) -> dict[str, pa.Array]:
    kinds: dict[str, list[bytes]] = {}
    for file in sorted(shards.glob("*.tar")):
        with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data is not None
                suffix = member.name.rpartition(".")[2]
                kinds.setdefault(f"shards .{suffix}", []).append(data.read())
    found = {name: pa.array(values, pa.binary()) for name, values in kinds.items()}
    whole = [file.read_bytes() for file in sorted(shards.glob("*.tar"))]
    return found | {"shards whole tars": pa.array(whole, pa.binary())}


def difference(a: pa.Array, b: pa.Array) -> str | None:
    """None where both are equal bit for bit, else in a few words how they differ."""
    if a.equals(b):
        return None
    if len(a) != len(b) or a.type != b.type:
        return f"{len(a)} and {len(b)} values"
    if pa.types.is_floating(a.type):
        left, right = (np.asarray(one.to_numpy(zero_copy_only=False), np.float64) for one in (a, b))
        if (np.isnan(left) != np.isnan(right)).any():
            return "other gaps"
        away = np.abs(np.nan_to_num(left - right))
        return f"{np.count_nonzero(away)} of {len(a)}, up to {away.max():.1g}" if away.any() else None
    other = sum(x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True))
    return f"{other} of {len(a)}"
