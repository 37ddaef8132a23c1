"""Tars with photos and their records: WebDataset as img2dataset writes it, our own shards, anybody's tars.

One walk over the headers notes where photos, .json and .txt lie, wherever they stand; then each photo is
tied to its record by name. Photos are read later by offset, so one bad photo harms no other. A tar that
is cut or broken yields the members before the break and one row that says where it broke.
"""

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from curation.errors import one_line
from curation.settings.source import SourceSettings
from curation.sources.image_folder import ImageFolder, MetadataFile, MetadataIndex, is_metadata
from curation.sources.names import ending, is_photo, label_map_of, stem_of
from curation.sources.records import Name, Records, tie
from curation.sources.rows import (
    MAX_TEXT_BYTES,
    SourceRow,
    beside,
    columns_of,
    not_downloaded,
    read_record,
)
from curation.storage import filesystem
from shards.format.stated import plain_text
from shards.format.tar_reader import Entry, TarError, behind_end, members

_HELD_BYTES = 64 * 2**20  # of .json and .txt of one tar; what is over is read again when its photo is listed


def webdataset_rows(uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    """A row for each image member, in the order of the tar; then one for each download that failed."""
    fs, path = filesystem(uri)
    size = int(fs.info(path)["size"])
    with fs.open(path, "rb") as stream:
        yield from _Listing(_Tar(stream, size), uri, label, source).rows()


@dataclass(frozen=True, slots=True)
class _Text:
    """A .json or .txt: its bytes, or where they lie; or why it cannot be read."""

    offset: int
    length: int
    data: bytes | None
    problem: str | None


@dataclass
class _Texts:
    names: list[Name] = field(default_factory=list)
    places: list[_Text] = field(default_factory=list)


class _Tar:
    """The walk over one file, and what it found."""

    def __init__(self, stream: Any, size: int) -> None:
        self._stream = stream
        self._size = size
        self._held = 0
        self.photos: list[tuple[int, Entry]] = []
        self.json, self.txt = _Texts(), _Texts()
        self.metadata: list[tuple[int, Entry]] = []
        self.broken: str | None = None
        maps: list[tuple[int, Entry]] = []
        try:
            for part, entry in self._members():
                kind = ending(entry.name)
                if entry.kind == "folder":
                    continue
                if label_map_of(entry.name) is not None:
                    maps.append((part, entry))
                elif is_photo(entry.name):
                    self.photos.append((part, entry))
                elif is_metadata(entry.name):
                    self.metadata.append((part, entry))
                elif kind in (".json", ".txt"):
                    self._note(self.json if kind == ".json" else self.txt, part, entry)
        except (TarError, OSError, EOFError) as error:
            self.broken = str(error) if isinstance(error, TarError) else one_line(error)
        if maps:
            stems = {(part, stem_of(entry.name)) for part, entry in self.photos}
            self.photos += [m for m in maps if (m[0], label_map_of(m[1].name)) not in stems]
            self.photos.sort(key=lambda found: found[1].start)

    def _members(self) -> Iterator[tuple[int, Entry]]:
        """(part, member): `cat` makes one file of several tars, each with an end mark of its own."""
        part, start, end = 0, 0, 0
        while True:
            for entry in members(self.read, self._size, start):
                end = entry.end
                yield part, entry
            behind = behind_end(self.read, self._size, max(start, end))
            if behind is None:
                return
            part, start = part + 1, behind

    def _note(self, texts: _Texts, part: int, entry: Entry) -> None:
        problem, data = None, None
        if not entry.is_file:
            problem = f"is {_described(entry)}"
        elif entry.length > MAX_TEXT_BYTES:
            problem = f"has {entry.length} bytes, more than {MAX_TEXT_BYTES}"
        elif self._held + entry.length <= _HELD_BYTES:
            data = self.read(entry.offset, entry.length)
            self._held += entry.length
        texts.names.append((part, entry.name))
        texts.places.append(_Text(entry.offset, entry.length, data, problem))

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes; fewer only at the end of the file. Raises OSError."""
        self._stream.seek(offset)
        return bytes(self._stream.read(length))

    def stream(self, entry: Entry) -> IO[bytes]:
        """The bytes of a member, to read from here and there. Raises OSError."""
        return io.BytesIO(self.read(entry.offset, entry.length))

    def text(self, text: _Text) -> bytes:
        """The bytes of a .json or .txt. Raises OSError."""
        return self.read(text.offset, text.length) if text.data is None else text.data


class _Listing:
    """The rows of one tar."""

    def __init__(self, tar: _Tar, uri: str, label: str, source: SourceSettings) -> None:
        self._tar = tar
        self._uri = uri
        self._label = label
        self._source = source
        self._seen: dict[str, int] = {}

    def rows(self) -> Iterator[SourceRow]:
        """All of them."""
        tar = self._tar
        names = [(part, entry.name) for part, entry in tar.photos]
        records = Records(names, tar.json.names, is_tar=True)
        captions = tie(names, tar.txt.names)
        absent, suspects = self._strays(records.strays)
        records.suspect(suspects)
        metadata = self._metadata()
        for photo, (part, entry) in enumerate(tar.photos):
            own, text = records.of[photo], captions[photo]
            matched = metadata.of(_path(part, entry))
            problem = None if entry.is_file else f"the tar member is {_described(entry)}"
            problem = problem or matched.broken or records.problem(photo, has_row=bool(matched.rows))
            if problem is None and not own:
                problem = matched.lacking
            if problem is None and not own and tar.broken is not None:
                problem = "its record may lie behind the break of the tar"
            columns = self._columns(own, text, matched.rows) if problem is None else self._failed(problem)
            yield self._row(entry.name, columns, entry)
        for record, columns in absent:
            yield self._row(tar.json.names[record][1], columns)
        if tar.broken is not None:
            yield SourceRow(
                source_key=f"{self._label}#broken",
                file_name=self._label,
                uri=self._uri,
                collection=self._source.collection,
                source_error=f"tar is broken: {tar.broken}; what lies behind is unknown",
            )

    def _row(self, name: str, columns: dict[str, Any], entry: Entry | None = None) -> SourceRow:
        name = plain_text(name)
        self._seen[name] = self._seen.get(name, 0) + 1
        again = f"~{self._seen[name]}" if self._seen[name] > 1 else ""
        return SourceRow(
            source_key=f"{self._label}/{name}{again}",
            file_name=posixpath.basename(name),
            uri=self._uri,
            offset=entry.offset if entry else None,
            length=entry.length if entry else None,
            **columns,
        )

    def _metadata(self) -> ImageFolder:
        """The files of many records among the members."""
        files = []
        for part, entry in self._tar.metadata:
            problem = None if entry.is_file else f"it is {_described(entry)}"
            if entry.length > _HELD_BYTES:
                problem = f"it has {entry.length} bytes, more than {_HELD_BYTES}"
            files.append(MetadataFile(_path(part, entry), partial(self._tar.stream, entry), problem))
        photos = [_path(part, entry) for part, entry in self._tar.photos]
        return ImageFolder(files, MetadataIndex(files), photos)

    def _columns(
        self, record: list[int], caption: list[int], rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        try:
            text = None
            if record:
                found = self._tar.json.places[record[0]]
                if found.problem is not None:
                    return self._failed(f"its .json {found.problem}")
                text = self._tar.text(found)
            words = self._tar.txt.places[caption[0]] if len(caption) == 1 else None
            caption_text = self._tar.text(words) if words is not None and words.problem is None else None
        except OSError as error:
            return self._failed(f"its record cannot be read: {one_line(error)}")
        return beside(text, caption_text, self._source, rows)

    def _failed(self, problem: str) -> dict[str, Any]:
        return {**columns_of({}, None, self._source), "source_error": problem}

    def _strays(self, strays: list[int]) -> tuple[list[tuple[int, dict[str, Any]]], list[int]]:
        """(record, columns) of downloads that failed, and the records that may be some photo's."""
        absent, suspects = [], []
        for record in strays:
            found = self._tar.json.places[record]
            try:
                parsed = read_record(self._tar.text(found)) if found.problem is None else {}
            except (OSError, ValueError):
                parsed = {}
            if parsed is None:  # no record at all
                continue
            why = not_downloaded(parsed)
            if why is None:
                suspects.append(record)
            else:
                absent.append((record, {**columns_of(parsed, None, self._source), "not_downloaded": why}))
        return absent, suspects


def _path(part: int, entry: Entry) -> str:
    """The member's name, apart from those of other parts."""
    return posixpath.normpath(posixpath.join(str(part), entry.name.lstrip("/")))


def _described(entry: Entry) -> str:
    """What a member is that is no plain file, as `a hard link to 'x.jpg'`."""
    to = f" to {entry.target!r}" if entry.target else ""
    return f"a {entry.kind}{to}"
