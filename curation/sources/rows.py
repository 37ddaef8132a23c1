"""The row that every source yields for one photo: where its bytes are, and what came with it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.settings.source import SourceSettings
from shards.format.stated import carried_columns, plain_text

SOURCE_SCHEMA = pa.schema(
    [
        ("source_key", pa.string()),
        ("file_name", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("row", pa.int64()),
        ("subject_hint", pa.string()),
        ("collection", pa.string()),
        ("source_url", pa.string()),
        ("page_url", pa.string()),
        ("author", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("caption", pa.string()),
        ("metadata", pa.string()),
        ("source_error", pa.string()),
        ("not_downloaded", pa.string()),
        ("version", pa.string()),
    ]
)

MAX_TEXT_BYTES = 1 << 20  # a longer .json fails its photo, a longer .txt is no caption
_FAILED_DOWNLOADS = ("failed_to_download", "failed_to_resize")  # img2dataset's `status`; no photo came
_WISHED = ("source_url", "page_url", "licence", "consent")  # what is obeyed of a record
_APPLE_DOUBLE = b"\0\x05\x16\x07"  # begins the file `._NAME` that macOS lays beside NAME


@dataclass(frozen=True)
class SourceRow:
    """A photo of the collection.

    `source_key` is unique in the collection and does not name the place where the collection lies.
    The bytes are the file `uri`, or `length` of it from `offset`, or the image column of row `row`.
    `metadata` is JSON of whatever else came with the photo. `source_error` says why there are no
    bytes to read, or why the photo may not be let in; `not_downloaded`, what the downloader wrote of a photo
    that it did not get. `version` changes when the bytes behind the reference may have.
    """

    source_key: str
    file_name: str
    uri: str
    offset: int | None = None
    length: int | None = None
    row: int | None = None
    subject_hint: str | None = None
    collection: str | None = None
    source_url: str | None = None
    page_url: str | None = None
    author: str | None = None
    licence: str | None = None
    consent: str | None = None
    caption: str | None = None
    metadata: str | None = None
    source_error: str | None = None
    not_downloaded: str | None = None
    version: str | None = None


def read_record(data: bytes) -> dict[str, Any] | None:
    """The object in a .json; None for a file of macOS' own that is only called so. Raises ValueError."""
    if data.startswith(_APPLE_DOUBLE):
        return None
    try:
        record = json.loads(data, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(record, dict):
        raise ValueError(f"it holds no object but {type(record).__name__}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that it gives two values nobody can tell which one holds."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError(f"it has {name!r} twice")
    return found


def not_downloaded(record: Mapping[str, Any]) -> str | None:
    """What img2dataset wrote of a download that failed: its status and its error; None of any other."""
    status = record.get("status")
    if status not in _FAILED_DOWNLOADS:
        return None
    error = record.get("error_message")
    return plain_text(f"{status}: {error}" if error else str(status))[:300]


def beside(
    json_text: bytes | None,
    caption: bytes | None,
    source: SourceSettings,
    rows: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Columns of SourceRow from the .json and .txt beside a photo, and from `rows` about it in files of many
    records; `source_error` for a broken .json."""
    try:
        record = read_record(json_text) if json_text is not None else None
    except ValueError as error:
        problem = f"its .json is broken: {plain_text(str(error))[:200]}"
        return {**columns_of({}, caption, source), "source_error": problem}
    return columns_of(record or {}, caption, source, rows)


def columns_of(
    record: Mapping[str, Any],
    caption: bytes | None,
    source: SourceSettings,
    rows: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Columns of SourceRow from what a record says and from the text of a .txt; what these lack, from `rows`.

    Records that differ in what is obeyed are a `source_error`: which one holds cannot be told.
    """
    stated = [carried_columns(one, source.columns) for one in (record, *rows)]
    columns = dict(stated[0])
    if "caption" not in columns and caption is not None:
        columns["caption"] = caption.decode("utf-8", "replace").strip()
    for more in stated[1:]:
        columns = {**more, **columns}
    if source.collection is not None:
        columns.setdefault("collection", source.collection)
    whole = dict(record)
    for row in rows:
        whole = {**row, **whole}
    columns["metadata"] = json.dumps(whole, sort_keys=True, default=str) if whole else None
    differing = [name for name in _WISHED if len({one[name].strip() for one in stated if name in one}) > 1]
    problem = f"{len(rows) + bool(record)} records claim it, and differ in {', '.join(differing)}"
    columns["source_error"] = problem if differing else None
    return columns


def tables(rows: Iterator[SourceRow], at_most: int) -> Iterator[pa.Table]:
    """The rows as tables of `at_most` rows; holds one table at a time."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(vars(row))
        if len(batch) == at_most:
            yield _table(batch)
            batch = []
    if batch:
        yield _table(batch)


def _table(batch: list[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(batch, schema=SOURCE_SCHEMA)
    except UnicodeEncodeError:
        plain = [{k: plain_text(v) if isinstance(v, str) else v for k, v in row.items()} for row in batch]
        return pa.Table.from_pylist(plain, schema=SOURCE_SCHEMA)
