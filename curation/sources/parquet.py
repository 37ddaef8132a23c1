"""Parquet files with photos as bytes, as Hugging Face's {bytes, path}, or as paths and URLs."""

import json
import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from curation.settings.source import SourceSettings
from curation.sources.rows import SourceRow
from curation.storage import filesystem, is_local
from shards.stated import carried_columns

_MAX_METADATA_CHARS = 100_000


def parquet_rows(uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    """A row for each row of the file; the photos' bytes are not read here."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        try:
            file = pq.ParquetFile(stream)
            yield from _rows(file, uri, label, source)
        except (pa.ArrowException, OSError) as error:
            yield _broken(uri, label, source, f"Parquet file is broken: {_first_line(error)}")


def _rows(file: pq.ParquetFile, uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    schema = file.schema_arrow
    has_image = source.image_column in schema.names
    has_uri = source.uri_column in schema.names
    if not has_image and not has_uri:
        names = ", ".join(schema.names)
        lacks = f"no column '{source.image_column}' or '{source.uri_column}' (it has: {names})"
        yield _broken(uri, label, source, lacks)
        return
    unknown = sorted(set(source.columns.values()) - set(schema.names))
    if unknown:
        yield _broken(uri, label, source, f"no column '{unknown[0]}', which source.columns names")
        return
    light = [field.name for field in schema if _is_plain(field.type)]
    number = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        records = file.read_row_group(group, columns=light).to_pylist() if light else [{}] * rows
        for record in records:
            columns = carried_columns(record, source.columns)
            if source.collection is not None:
                columns.setdefault("collection", source.collection)
            key = record.get("key") or record.get("file_name") or record.get("__key__")
            where: str = uri
            problem: str | None = None
            if not has_image:
                value = record.get(source.uri_column)
                where = resolve(uri, value) if isinstance(value, str) and value else uri
                problem = None if value else "the row has no bytes and no URI"
                if where.startswith(("http://", "https://")):
                    columns.setdefault("source_url", where)
            text = json.dumps(record, sort_keys=True, default=str)
            yield SourceRow(
                source_key=f"{label}#{number:08d}",
                file_name=str(key) if key is not None else posixpath.basename(where),
                uri=where,
                row=number if has_image else None,
                metadata=text if len(text) <= _MAX_METADATA_CHARS else None,
                source_error=problem,
                **columns,
            )
            number += 1


def _broken(uri: str, label: str, source: SourceSettings, problem: str) -> SourceRow:
    return SourceRow(
        source_key=f"{label}#broken",
        file_name=label,
        uri=uri,
        collection=source.collection,
        source_error=problem,
    )


def _is_plain(kind: pa.DataType) -> bool:
    return not (
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def resolve(file: str, target: str) -> str:
    """A relative path in a Parquet file is meant from the folder of the file."""
    if "://" in target or target.startswith("/"):
        return target
    folder = posixpath.dirname(file)
    return posixpath.join(folder, target) if folder or is_local(file) else target


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
