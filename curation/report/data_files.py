"""The data of a report as scripts that a page loads on demand, and the keys that it is searched by.

A page that is opened from disk may not fetch files, but it may run scripts beside it. Each file calls
`report.put(name, value)` with one JSON value; text of collections is inside JSON strings and nowhere else.
"""

import json
import re
from collections.abc import Container
from typing import Any

from curation.report.subjects import PhotoRow
from curation.storage import join, list_names, remove, write_bytes

FOLDER = "data"
_SUFFIX = ".js"
_OURS = re.compile(r"(overview|(rows|groups|pairs|thumbs|keys|ending)-\d+)\.js")


class DataFiles:
    """Writes `data/NAME.js` of a report; what an earlier report left there is removed first."""

    def __init__(self, folder: str) -> None:
        self._folder = join(folder, FOLDER)
        for name in list_names(self._folder):
            if _OURS.fullmatch(name):
                remove(join(self._folder, name))
        self.bytes = 0

    def put(self, name: str, value: Any) -> None:
        """One value; `name` is a file name without suffix."""
        self.put_json(name, json.dumps(value, ensure_ascii=True, separators=(",", ":")))

    def put_json(self, name: str, text: str) -> None:
        """One value that is JSON already, in ASCII."""
        data = f'report.put("{name}",{text});\n'.encode("ascii")
        write_bytes(join(self._folder, name + _SUFFIX), data)
        self.bytes += len(data)


class Pages:
    """A long list in files NAME-0, NAME-1 … of `size` entries each, written as they come."""

    def __init__(self, files: DataFiles, name: str, size: int) -> None:
        self._files = files
        self._name = name
        self._size = size
        self._waiting: list[str] = []
        self._pages = 0
        self.count = 0

    def add(self, value: Any) -> None:
        """One entry more."""
        self._waiting.append(json.dumps(value, ensure_ascii=True, separators=(",", ":")))
        self.count += 1
        if len(self._waiting) == self._size:
            self._flush()

    def close(self) -> dict[str, Any]:
        """What the page must know of the list: {name, size, count}."""
        if self._waiting:
            self._flush()
        return {"name": self._name, "size": self._size, "count": self.count}

    def _flush(self) -> None:
        self._files.put_json(f"{self._name}-{self._pages}", "[" + ",\n".join(self._waiting) + "]")
        self._waiting.clear()
        self._pages += 1


def is_ours(folder: str, page: Container[str]) -> bool:
    """Whether a folder holds nothing, or nothing but a report, be it half written: files of the `page`, and
    data. Names that begin with a dot are files that were never finished."""
    there = [name for name in list_names(folder) if not name.startswith(".")]
    data = [name for name in list_names(join(folder, FOLDER)) if not name.startswith(".")]
    return all(name in page or name == FOLDER for name in there) and all(map(_OURS.fullmatch, data))


PAGE = 4000
_ID = 16  # digits of a photo_id that are kept: two photos share them once in 2^64


class SearchKeys:
    """Keys of all rows; a person is found by its photo_id, its identity or its group."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, int]] = set()

    def add(self, row: PhotoRow) -> None:
        """All keys of a row."""
        if row.photo_id is not None:
            self._keys.add((row.photo_id[:_ID], row.number))
        self._keys.add((row.source_key.lower(), row.number))
        self._keys.add(((row.file_name or row.source_key).lower(), row.number))
        for person in row.people:
            if person.identity is not None:
                self._keys.add((person.identity, row.number))

    def write(self, files: DataFiles) -> dict[str, Any]:
        """Files `keys-N` of [keys, rows]; returns {size, id, first}: the first key of each file."""
        # Scripts compare strings by their UTF-16 units.
        ordered = sorted(self._keys, key=lambda key: (key[0].encode("utf-16-be", "surrogatepass"), key[1]))
        first = []
        for start in range(0, len(ordered), PAGE):
            page = ordered[start : start + PAGE]
            first.append(page[0][0])
            files.put(f"keys-{start // PAGE}", [[key for key, _ in page], [row for _, row in page]])
        return {"id": _ID, "first": first}
