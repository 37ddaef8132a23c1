"""Parquet files with photos as bytes, as Hugging Face's {bytes, path}, or as paths and URLs."""

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.excluded.address import is_web
from curation.settings.source import SourceSettings
from curation.sources.parquet_batches import open_table, plain_records
from curation.sources.rows import SourceRow, not_downloaded
from curation.storage import filesystem, is_local
from shards.format.stated import carried_columns

_MAX_METADATA_CHARS = 100_000
_MAX_VALUE_CHARS = 1000  # of one value of a row whose metadata is longer
RECORD = "json"  # a struct of that name is the record, as `datasets` writes WebDataset as Parquet


def records_in(said: Any) -> Iterator[dict[str, Any]]:
    """What may be the record of a photo, in the metadata of its row: all of it, then what lies inside.

    A record lies inside as the value of `json` or `record`, as an object or as JSON text, so does one in it.
    """
    waiting = [said]
    while waiting:
        one = json_object(waiting.pop(0))
        if isinstance(one, dict):
            yield one
            waiting += [one.get(RECORD), one.get("record")]


def json_object(value: Any) -> Any:
    """A value; what it is as JSON, where it is text that is JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def parquet_rows(uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    """A row for each row of the file; the photos' bytes are not read here."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        try:
            yield from _rows(open_table(stream), uri, label, source)
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
    nested = schema.field(RECORD).type if RECORD in schema.names else pa.null()
    known = {*schema.names, *(field.name for field in nested)} if pa.types.is_struct(nested) else schema.names
    unknown = sorted(set(source.columns.values()) - set(known))
    if unknown:
        yield _broken(uri, label, source, f"no column '{unknown[0]}', which source.columns names")
        return
    for number, record in enumerate(plain_records(file, paths_of=source.image_column)):
        columns = _columns(record, source.columns)
        if source.collection is not None:
            columns.setdefault("collection", source.collection)
        key = record.get("key") or record.get("file_name") or record.get("__key__")
        link = record.get(source.uri_column)
        image = record.get(source.image_column)
        inside = image.pop("path", None) if isinstance(image, dict) else image
        where: str = uri
        problem: str | None = None
        if not has_image:
            where = resolve(uri, link) if isinstance(link, str) and link else uri
            problem = None if link else "the row has no bytes and no URI"
        for address in (link, inside):
            if is_web(address):
                columns.setdefault("source_url", address)
        name = inside if isinstance(inside, str) and inside else where
        yield SourceRow(
            source_key=f"{label}#{number:08d}",
            file_name=str(key) if key is not None else posixpath.basename(name),
            uri=where,
            row=number if has_image else None,
            metadata=_metadata({name: value for name, value in record.items() if value != {}}),
            source_error=problem,
            not_downloaded=not_downloaded(record) if has_image and not link else None,
            **columns,
        )


def _columns(record: dict[str, Any], names: Mapping[Any, str]) -> dict[str, Any]:
    """The carried columns of a row, and of the struct in it that is a record."""
    nested = record.get(RECORD)
    inner = carried_columns(nested, names) if isinstance(nested, dict) else {}
    return {**inner, **carried_columns(record, names)}


def _metadata(record: dict[str, Any]) -> str:
    """All that a row says, as JSON; of one that says very much, its long values are left out by name."""
    text = json.dumps(record, sort_keys=True, default=str)
    if len(text) <= _MAX_METADATA_CHARS:
        return text
    short = {k: v for k, v in record.items() if len(json.dumps(v, default=str)) <= _MAX_VALUE_CHARS}
    return json.dumps(
        {**short, "left_out": sorted(record.keys() - short.keys())}, sort_keys=True, default=str
    )


def _broken(uri: str, label: str, source: SourceSettings, problem: str) -> SourceRow:
    return SourceRow(
        source_key=f"{label}#broken",
        file_name=label,
        uri=uri,
        collection=source.collection,
        source_error=problem,
    )


def resolve(file: str, target: str) -> str:
    """A relative path in a Parquet file is meant from the folder of the file."""
    if "://" in target or target.startswith("/"):
        return target
    folder = posixpath.dirname(file)
    return posixpath.join(folder, target) if folder or is_local(file) else target


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
