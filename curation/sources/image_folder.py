"""Records of many photos in one file, as Hugging Face's ImageFolder has them: their rows, and whose they are.

metadata.csv, .jsonl and .parquet lie beside photos. What a row names stands in `file_name`, `*_file_name`,
`file_names` or `*_file_names`, at any depth, relative to the folder of its file (`datasets` 5.2,
packaged_modules/folder_based_builder).

Such a file speaks for the photos of its folder and of all below it. It is read once; its rows lie in a
temporary file above 32 MiB, and 28 bytes of each are kept in memory to find it again.
"""

import csv
import hashlib
import io
import json
import posixpath
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import one_line
from curation.sources.names import ending
from curation.sources.parquet_batches import open_table, plain_records
from curation.sources.rows import MAX_TEXT_BYTES, read_record

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_HELD_BYTES = 32 * 2**20
_UNTOLD = "its record cannot be told"


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


@dataclass(frozen=True)
class MetadataFile:
    """path: where it lies, and what its rows are relative to; opened: its bytes; problem: why there are
    none; is_above: whether it lies above the collection, where it may be about anything at all."""

    path: str
    opened: Callable[[], IO[bytes]]
    problem: str | None = None
    is_above: bool = False


class MetadataIndex:
    """The rows of some metadata files, found by the paths that they name.

    problems  {file: why its rows cannot be told}
    """

    def __init__(self, files: Sequence[MetadataFile]) -> None:
        self._paths = [file.path for file in files]
        self._rows: Any = tempfile.SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115
        self._end = 0
        self.problems: dict[str, str] = {}
        self._others: set[str] = set()  # files that are whole, and name no photos
        # Of each name in a row: hashes of the path and of its last part, the row's file and place.
        named, called, of, places = array("Q"), array("Q"), array("i"), array("q")
        for number, file in enumerate(files):
            try:
                if file.problem is not None:
                    raise ValueError(file.problem)
                with file.opened() as stream:
                    for path, place in self._read(file.path, stream):
                        named.append(_hash(path))
                        called.append(_hash_of_name(path))
                        of.append(number)
                        places.append(place)
            except (ValueError, OSError, csv.Error, pa.ArrowException) as error:
                self.problems[file.path] = one_line(error)
        order = np.argsort(np.frombuffer(named, np.uint64), kind="stable")
        self._named = np.frombuffer(named, np.uint64)[order]
        self._called = np.frombuffer(called, np.uint64)[order]
        self._of = np.frombuffer(of, np.int32)[order]
        self._places = np.frombuffer(places, np.int64)[order]

    def _read(self, file: str, stream: IO[bytes]) -> Iterator[tuple[str, int]]:
        """(path, place of the row) of each name in the rows of a file."""
        names_any, rows = False, 0
        for row in rows_in(file, stream):
            rows += 1
            paths = set(_paths(file, row))
            names_any |= bool(paths)
            line = json.dumps(row, default=str).encode() + b"\n"
            self._rows.seek(self._end)
            self._rows.write(line)
            yield from ((path, self._end) for path in sorted(paths))
            self._end += len(line)
        if rows and not names_any:
            self._others.add(file)
            raise ValueError("none of its rows has a file_name")

    def is_torn(self, file: str) -> bool:
        """Whether a file may name photos in a part that cannot be read."""
        return file in self.problems and file not in self._others

    def rows_of(self, path: str) -> list[tuple[str, bytes]]:
        """(file, row as JSON) of all rows that name a path, in the order of the files."""
        wanted = np.uint64(_hash(path))
        first, last = (int(np.searchsorted(self._named, wanted, side)) for side in ("left", "right"))
        found = []
        for at in range(first, last):
            file = self._paths[self._of[at]]
            self._rows.seek(int(self._places[at]))
            line = self._rows.readline()
            if path in _paths(file, json.loads(line)):
                found.append((file, line))
        return found

    def against(self, paths: Sequence[str]) -> tuple[set[str], dict[int, str]]:
        """(the files of which a row names one of these paths; {hash of a name without its folder: file} of
        rows that name none of them, but a file that is called as one of them)."""
        is_named = np.isin(self._named, np.fromiter(map(_hash, paths), np.uint64, len(paths)))
        speaking = {self._paths[number] for number in np.unique(self._of[is_named]).tolist()}
        called = np.fromiter(map(_hash_of_name, paths), np.uint64, len(paths))
        missed = ~is_named & np.isin(self._called, called)
        rows = zip(self._called[missed].tolist(), self._of[missed].tolist(), strict=True)
        return speaking, {name: self._paths[number] for name, number in rows}


@dataclass(frozen=True)
class MatchedRows:
    """The rows of metadata files about a photo.

    rows     those that name it
    broken   why there may be others
    lacking  why it is not let in unless it has a record of its own
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: str | None = None
    lacking: str | None = None


class ImageFolder:
    """The metadata files of a folder or tar, and their rows about its photos.

    photos  paths of all of them, as `of` is then asked for each
    """

    def __init__(self, files: Sequence[MetadataFile], index: MetadataIndex, photos: Sequence[str]) -> None:
        self._index = index
        self._files: dict[str, list[str]] = {}
        self._missed: dict[int, str] = {}
        if not files:
            return
        speaking, missed = index.against(photos)
        for file in files:
            is_about_others = file.is_above and file.path not in speaking
            if not is_about_others or index.is_torn(file.path):
                self._files.setdefault(posixpath.dirname(file.path), []).append(file.path)
        above = {file.path for file in files if file.is_above}
        self._missed = {name: path for name, path in missed.items() if path not in above}

    def of(self, photo: str) -> MatchedRows:
        """The rows about a photo."""
        files = [path for folder in _folders(photo) for path in self._files.get(folder, ())]
        for path in files:
            if path in self._index.problems:
                return MatchedRows(broken=f"{_UNTOLD}: {_name(path)} is broken: {self._index.problems[path]}")
        found = self._index.rows_of(photo)
        for path, line in found:
            if len(line) > MAX_TEXT_BYTES:
                return MatchedRows(
                    broken=f"its row in {_name(path)} has {len(line)} bytes, more than {MAX_TEXT_BYTES}"
                )
        if found:
            return MatchedRows([json.loads(line) for _, line in found])
        if files:
            verb = "has" if len(files) == 1 else "have"
            return MatchedRows(lacking=f"{_UNTOLD}: {' and '.join(map(_name, files))} {verb} no row of it")
        missed = self._missed.get(_hash_of_name(photo))
        if missed is not None:
            return MatchedRows(lacking=f"{_UNTOLD}: {_name(missed)} names such a file where there is none")
        return MatchedRows()


def _name(path: str) -> str:
    return repr(posixpath.basename(path))


def _paths(file: str, row: dict[str, Any]) -> Iterator[str]:
    """The paths that a row names, from the folder of its file."""
    for name in named_in(row):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(file), name.replace("\\", "/")))


def _folders(path: str) -> Iterator[str]:
    """The folder of a path and all above it, the nearest first."""
    while path not in ("", "/"):
        path = posixpath.dirname(path)
        yield path


def _hash_of_name(path: str) -> int:
    return _hash(posixpath.basename(path).lower())


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
