"""Which row of which metadata file is whose: records of many photos in one file, as ImageFolder has them.

Such a file speaks for the photos of its folder and of all below it. It is read once; its rows lie in a
temporary file above 32 MiB, and 28 bytes of each are held to find it again.
"""

import csv
import hashlib
import json
import posixpath
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa

from curation.errors import one_line
from curation.sources.metadata_rows import named_in, rows_in
from curation.sources.rows import MAX_TEXT_BYTES

_HELD_BYTES = 32 * 2**20
_UNTOLD = "its record cannot be told"


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
        """Whether a file may name photos that nobody can read there."""
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
        there = np.isin(self._named, np.fromiter(map(_hash, paths), np.uint64, len(paths)))
        speaking = {self._paths[number] for number in np.unique(self._of[there]).tolist()}
        called = np.fromiter(map(_hash_of_name, paths), np.uint64, len(paths))
        missed = ~there & np.isin(self._called, called)
        rows = zip(self._called[missed].tolist(), self._of[missed].tolist(), strict=True)
        return speaking, {name: self._paths[number] for name, number in rows}


@dataclass(frozen=True)
class Told:
    """What metadata files say of a photo.

    rows     those that name it
    broken   why that cannot be told
    lacking  why it is not let in unless it has a record of its own
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: str | None = None
    lacking: str | None = None


class ImageFolder:
    """The metadata files of a folder or tar, and what they say of its photos.

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

    def of(self, photo: str) -> Told:
        """What is said of a photo."""
        files = [path for folder in _folders(photo) for path in self._files.get(folder, ())]
        for path in files:
            if path in self._index.problems:
                return Told(broken=f"{_UNTOLD}: {_name(path)} is broken: {self._index.problems[path]}")
        found = self._index.rows_of(photo)
        for path, line in found:
            if len(line) > MAX_TEXT_BYTES:
                return Told(
                    broken=f"its row in {_name(path)} has {len(line)} bytes, more than {MAX_TEXT_BYTES}"
                )
        if found:
            return Told([json.loads(line) for _, line in found])
        if files:
            verb = "has" if len(files) == 1 else "have"
            return Told(lacking=f"{_UNTOLD}: {' and '.join(map(_name, files))} {verb} no row of it")
        missed = self._missed.get(_hash_of_name(photo))
        if missed is not None:
            return Told(lacking=f"{_UNTOLD}: {_name(missed)} names such a file where there is none")
        return Told()


def _name(path: str) -> str:
    return repr(posixpath.basename(path))


def _paths(file: str, row: dict[str, Any]) -> Iterator[str]:
    """What a row names, from the folder of its file."""
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
