"""The rows of metadata.csv, .jsonl and .parquet as Hugging Face's ImageFolder lays them beside photos.

What a row names stands in `file_name`, `*_file_name`, `file_names` or `*_file_names`, at any depth, relative
to the folder of its file (`datasets` 5.2, packaged_modules/folder_based_builder).
"""

import csv
import io
import posixpath
from collections.abc import Iterator
from typing import IO, Any

import pyarrow.parquet as pq

from curation.sources.names import ending
from curation.sources.parquet_batches import open_table, plain_records
from curation.sources.rows import MAX_TEXT_BYTES, read_record

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def is_metadata(path: str) -> bool:
    """Whether a file holds the records of the photos of its folder, by its name."""
    return posixpath.basename(path).lower() in NAMES


def rows_in(path: str, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The rows of such a file, one after the other; of Parquet without bytes.

    Raises ValueError, OSError, csv.Error and pyarrow's ArrowException where the file is not whole.
    """
    read = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[ending(path)]
    return read(stream)


def named_in(row: Any) -> Iterator[str]:
    """The names of files as they stand in a row."""
    if isinstance(row, list):
        for one in row:
            yield from named_in(one)
    if not isinstance(row, dict):
        return
    for name, value in row.items():
        if isinstance(value, str) and (name == "file_name" or name.endswith("_file_name")):
            yield value
        elif isinstance(value, list) and (name == "file_names" or name.endswith("_file_names")):
            yield from (one for one in value if isinstance(one, str))
        else:
            yield from named_in(value)


def _csv(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """A row with more or fewer fields than the header has lost its end, or has a comma that nobody quoted:
    which of its fields says what cannot be told."""
    lines = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), strict=True)
    header = next((fields for fields in lines if fields), [])
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise ValueError(f"it has the column {twice[0]!r} twice")
    for fields in lines:
        if fields and len(fields) != len(header):
            raise ValueError(f"line {lines.line_num} has {len(fields)} fields, its header {len(header)}")
        if fields:
            yield dict(zip(header, fields, strict=True))


def _jsonl(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    number = 0
    while line := stream.readline(MAX_TEXT_BYTES + 1):
        number += 1
        if len(line) > MAX_TEXT_BYTES:
            raise ValueError(f"line {number} has more than {MAX_TEXT_BYTES} bytes")
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            row = read_record(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if row is not None:
            yield row


def _parquet(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    file: pq.ParquetFile = open_table(stream)
    names = [name for name in file.schema_arrow.names if name == "file_names" or name.endswith("_file_names")]
    yield from plain_records(file, whole=names)
