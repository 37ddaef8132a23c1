"""A folder of images, with img2dataset's neighbours `name.json` and `name.txt` where there are any."""

import heapq
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from curation.errors import one_line
from curation.fingerprint import fingerprint_rows
from curation.settings.source import SourceSettings
from curation.sources.image_folder import NAMES, ImageFolder, MetadataFile, MetadataIndex, is_metadata
from curation.sources.listing import Listed, file_at, files_below
from curation.sources.names import ending, is_photo, label_map_of, stems
from curation.sources.records import Records, tie
from curation.sources.rows import (
    MAX_TEXT_BYTES,
    SourceRow,
    beside,
    columns_of,
    not_downloaded,
    read_record,
)
from curation.storage import filesystem, is_local, open_binary, read_bytes
from shards.format.stated import plain_text


def folder_rows(uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    """A row for each image file below `uri` (or for `uri` itself), sorted by path; among them one for
    each folder or link that cannot be followed, and for each download that failed."""
    yield from _Folder(uri, label, source).rows()


def folder_version(uri: str) -> str:
    """Changes when any file below `uri` appears, goes, or changes size or modification time."""
    return fingerprint_rows((path, known.version) for path, known in sorted(_files(uri).items()))


_Place = tuple[str, str, Listed, bool]  # protocol and path of a metadata file; whether it lies above


@dataclass(frozen=True)
class _Outcome:
    path: str
    columns: dict[str, Any]


class _Folder:
    """The listing of one folder."""

    def __init__(self, uri: str, label: str, source: SourceSettings) -> None:
        self._prefix = "" if is_local(uri) else uri.split("://", 1)[0] + "://"
        self._root = filesystem(uri)[1].rstrip("/")
        self._label = label
        self._source = source
        self._files = _files(uri)
        photos = (path for path in sorted(self._files) if is_photo(path) and not self._is_label_map(path))
        self._photos = [path for path in photos if not self._files[path].is_folder]

    def rows(self) -> Iterator[SourceRow]:
        """All of them."""
        names = [(0, path) for path in self._photos]
        json = [path for path in sorted(self._files) if ending(path) == ".json"]
        texts = [path for path in sorted(self._files) if ending(path) == ".txt"]
        records = Records(names, [(0, path) for path in json], is_tar=False)
        captions = tie(names, [(0, path) for path in texts])
        absent, suspects = [], []
        for place in records.strays:
            stray = self._stray(json[place])
            why = not_downloaded(stray or {})
            if why is not None:
                columns = {**columns_of(stray or {}, None, self._source), "not_downloaded": why}
                absent.append(_Outcome(json[place], columns))
            elif stray is not None:
                suspects.append(place)
        records.suspect(suspects)
        metadata = self._metadata()

        def photos() -> Iterator[_Outcome]:
            for number, path in enumerate(self._photos):
                matched = metadata.of(path)
                own = records.of[number]
                problem = self._files[path].problem or matched.broken
                problem = problem or records.problem(number, has_row=bool(matched.rows))
                if problem is None and not own:
                    problem = matched.lacking
                if problem is not None:
                    yield _Outcome(path, self._failed(problem))
                    continue
                record = json[own[0]] if own else None
                caption = texts[captions[number][0]] if len(captions[number]) == 1 else None
                yield _Outcome(path, self._columns(record, caption, matched.rows))

        for outcome in heapq.merge(photos(), absent, self._lost(), key=lambda one: one.path):
            yield self._row(outcome)

    def _lost(self) -> Iterator[_Outcome]:
        """Folders that cannot be looked into."""
        for path, known in sorted(self._files.items()):
            if known.is_folder and known.problem is not None:
                yield _Outcome(path, self._failed(known.problem))

    def _is_label_map(self, path: str) -> bool:
        """Whether it lies beside the photo that it is the map of."""
        stem = label_map_of(path)
        return stem is not None and any(
            f"{stem}{suffix}" in self._files for suffix in (".jpg", ".png", ".webp")
        )

    def _metadata(self) -> ImageFolder:
        """The files of many records that lie here or above."""
        is_alone = self._root in self._files
        base = posixpath.dirname(self._root) if is_alone else self._root
        found = {path: known for path, known in sorted(self._files.items()) if is_metadata(path)}
        above = frozenset(path for path in found if posixpath.dirname(path) != base)
        above -= {path for path in found if path.startswith(base.rstrip("/") + "/")}
        places = tuple((self._prefix, path, known, path in above) for path, known in found.items())
        files = _metadata_files(places)
        # Of photos that are named one by one, all of a folder ask for the same.
        index = _kept_index(places) if is_alone else MetadataIndex(files)
        return ImageFolder(files, index, self._photos)

    def _columns(
        self, record: str | None, caption: str | None, rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        texts: dict[str, bytes | None] = {".json": None, ".txt": None}
        for path in (record, caption):
            if path is None:
                continue
            problem, size = self._files[path].problem, self._files[path].size or 0
            if problem is not None or size > MAX_TEXT_BYTES:
                if path == caption:
                    continue
                if problem is not None:
                    return self._failed(f"its .json cannot be read: {problem}")
                return self._failed(f"its .json has {size} bytes, more than {MAX_TEXT_BYTES}")
            try:
                texts[ending(path)] = read_bytes(self._prefix + path)
            except (OSError, UnicodeError) as error:
                return self._failed(f"its {ending(path)} cannot be read: {one_line(error)}")
        return beside(texts[".json"], texts[".txt"], self._source, rows)

    def _stray(self, path: str) -> dict[str, Any] | None:
        """The record in a .json beside no photo; None where it is no record at all."""
        known = self._files[path]
        if known.problem is not None or (known.size or 0) > MAX_TEXT_BYTES:
            return {}
        try:
            return read_record(read_bytes(self._prefix + path))
        except (OSError, UnicodeError, ValueError):
            return {}

    def _failed(self, problem: str) -> dict[str, Any]:
        return {**columns_of({}, None, self._source), "source_error": problem}

    def _row(self, outcome: _Outcome) -> SourceRow:
        path, columns = outcome.path, outcome.columns
        if self._source.subject_hint == "folder":
            columns["subject_hint"] = plain_text(posixpath.basename(posixpath.dirname(path)))
        inside = plain_text(path[len(self._root) :].strip("/"))
        if plain_text(path) != path:
            columns["source_error"] = "the file's name is not valid UTF-8"
        return SourceRow(
            source_key=f"{self._label}/{inside}" if inside else self._label,
            file_name=plain_text(posixpath.basename(path)),
            uri=self._prefix + plain_text(path),
            length=self._files[path].size,
            version=self._files[path].version,
            **columns,
        )


def _files(uri: str) -> dict[str, Listed]:
    """What lies below a folder; of a file, itself and what may be its record or caption. Of both, files of
    many records that lie above."""
    files = files_below(uri)
    prefix = "" if is_local(uri) else uri.split("://", 1)[0] + "://"
    path = filesystem(uri)[1].rstrip("/")
    if list(files) == [path] and is_photo(path):
        for stem in stems(path):
            for suffix in (".json", ".JSON", ".txt", ".TXT"):
                known = file_at(f"{prefix}{stem}{suffix}")
                if known is not None and known.problem != "a folder":
                    files[stem + suffix] = known
    return {**files, **dict(_metadata_above(prefix, path))}


def _metadata_files(places: tuple[_Place, ...]) -> list[MetadataFile]:
    return [
        MetadataFile(path, partial(open_binary, prefix + path), known.problem, is_above)
        for prefix, path, known, is_above in places
    ]


@lru_cache(maxsize=1)
def _kept_index(places: tuple[_Place, ...]) -> MetadataIndex:
    return MetadataIndex(_metadata_files(places))


def _metadata_above(prefix: str, path: str) -> Iterator[tuple[str, Listed]]:
    """Metadata files of the folders above a path: a part of such a collection may be named alone."""
    while (folder := posixpath.dirname(path)) not in ("", path):
        for name in NAMES:
            file = posixpath.join(folder, name)
            try:
                known = file_at(prefix + file)
            except PermissionError:  # as stores say where there may be none
                known = None
            if known is not None and known.problem != "a folder":
                yield file, known
        path = folder
