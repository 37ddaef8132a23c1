"""What a report is searched by: starts of ids, file names and source keys, sorted, in files of their own."""

from typing import Any

from curation.report.data_files import DataFiles
from curation.report.subjects import PhotoRow

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
