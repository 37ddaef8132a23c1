"""A survey of what a collection holds and states: counted without a model, and shown in lines.

Every row is listed as a run would list it; `look` photos, drawn by the hashes of their keys, are opened for
format, size and marks of rights. Texts of strangers are counted as they stand.

Marks of rights are what a photo's bytes state in EXIF, and what a run would obey
(`shards.format.stated_rights`).
"""

import difflib
import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from curation.errors import printable
from curation.photos.decode import UnknownFormatError, read_header
from curation.settings.source import SourceSettings
from curation.sources.names import ending
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SourceRow
from curation.sources.units import IN_RUN, list_units, unit_rows
from shards.format.embedded import embedded_in
from shards.format.stated import CARRIED, is_carried
from shards.format.stated_rights import NoReaderError, stated_rights

_COPYRIGHT, _ARTIST, _GPS = 0x8298, 0x013B, 0x8825
NOT_STATED = "not stated"
_MOST_VALUES = 10_000  # different texts of one column that are counted apart; the rest together
_OTHERS = "other values"
_MAX_BYTES = 64 * 2**20
_SHOWN = 20  # values of a column


def marks_of(data: bytes) -> set[str]:
    """Short names of the marks in a photo's bytes, as "EXIF copyright", "plus:DataMining DMI-PROHIBITED"."""
    embedded = embedded_in(data)
    found = set(_of_exif(embedded.exif or b""))
    try:
        stated = stated_rights(data)
    except NoReaderError:
        stated = stated_rights(data, credentials=False)
        found.add("Content Credentials (C2PA), not read: c2pa-python is not installed")
    if embedded.has_credentials:
        found.add("Content Credentials (C2PA)" + (", broken" if stated.broken else ""))
    if stated.mining is not None:
        found.add(stated.mining)
    if stated.source_type is not None:
        found.add(f"digital source type {stated.source_type}")
    return found


def _of_exif(block: bytes) -> Iterator[str]:
    exif = Image.Exif()
    try:
        exif.load(block)
    except Exception:  # it is broken: decoders raise anything at all
        return
    for tag, says in ((_COPYRIGHT, "EXIF copyright"), (_ARTIST, "EXIF author"), (_GPS, "EXIF place (GPS)")):
        if exif.get(tag):
            yield says


@dataclass
class Survey:
    """What was found.

    units, photos     how many units are listed, and how many photos of them
    unreadable        {why: rows} that are no readable photo of the collection
    endings           {ending of the name: photos}
    stated            {carried column: {text as it stands: photos}}; of licence and consent also `NOT_STATED`
    unused            {name in the records that no column is taken from: photos}
    looked            photos that were opened; formats, short_sides (px, ascending) and marks are of these
    """

    units: int = 0
    photos: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    stated: dict[str, Counter[str]] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    looked: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    short_sides: list[int] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


def survey(source: SourceSettings, look: int, choose: str = IN_RUN) -> Survey:
    """Goes through a collection. Raises ConfigError where nothing is there.

    look   how many photos are opened at most
    choose what its user writes before a kind of collection to choose it
    """
    found = Survey()
    drawn: list[tuple[int, str, SourceRow]] = []
    units = list_units(source, choose)
    found.units = len(units)
    for unit in units:
        for row in unit_rows(unit, source):
            _count(found, row, source)
            if look and row.source_error is None and row.not_downloaded is None:
                item = (-int.from_bytes(_digest(row.source_key), "big"), row.source_key, row)
                if len(drawn) < look:
                    heapq.heappush(drawn, item)
                elif item[:2] > drawn[0][:2]:
                    heapq.heapreplace(drawn, item)
    photos = PhotoBytes(source)
    for _, _, row in sorted(drawn, key=lambda item: (item[2].uri, item[2].row or 0, item[2].offset or 0)):
        _open(found, row, photos)
    found.short_sides.sort()
    return found


def folded(text: str) -> str:
    """A text without regard to case and blanks, as people compare names of licences."""
    return "".join(text.split()).casefold().replace("_", "-")


def unheard_licences(allowed: Sequence[str], stated: Mapping[str, int]) -> list[tuple[str, str | None]]:
    """(entry of an allow-list that no photo states, the stated text that is most like it or None)."""
    texts = sorted(set(stated) - {NOT_STATED, _OTHERS}, key=lambda text: (stated[text], text))
    by_fold = {folded(text): text for text in texts}  # of texts that are alike the one that most photos state
    found: list[tuple[str, str | None]] = []
    for entry in allowed:
        if entry not in stated:
            like = difflib.get_close_matches(folded(entry), by_fold, 1)
            found.append((entry, by_fold[like[0]] if like else None))
    return found


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _count(found: Survey, row: SourceRow, source: SourceSettings) -> None:
    if row.not_downloaded is not None:
        found.unreadable["not downloaded"] += 1
        return
    found.photos += 1
    if row.source_error is not None:
        _add(found.unreadable, row.source_error)
    _add(found.endings, ending(row.file_name) or "none")
    for column in CARRIED:
        value = getattr(row, column)
        if value is not None or column in ("licence", "consent"):
            _add(found.stated.setdefault(column, Counter()), value if value is not None else NOT_STATED)
    record = json.loads(row.metadata) if row.metadata is not None else {}
    for name in record:
        if not is_carried(name, source.columns):
            _add(found.unused, name)


def _add(counter: Counter[str], value: str) -> None:
    counter[value if value in counter or len(counter) < _MOST_VALUES else _OTHERS] += 1


def _open(found: Survey, row: SourceRow, photos: PhotoBytes) -> None:
    found.looked += 1
    try:
        data = photos.read(vars(row), _MAX_BYTES)
        header = read_header(data)
    except UnknownFormatError as error:
        found.formats[str(error)] += 1
        return
    except Exception:  # of any store or decoder: this photo's, and a run says more of it
        found.formats["unreadable"] += 1
        return
    found.formats[header.format] += 1
    found.short_sides.append(min(header.width, header.height))
    found.marks.update(marks_of(data))


def survey_lines(found: Survey, allowed: Sequence[str] | None) -> Iterator[str]:
    """The lines. `allowed` is the allow-list of licences; None lets all in."""
    yield f"{found.photos} photos in {found.units} units"
    for why, count in found.unreadable.most_common(_SHOWN):
        yield f"  {count} of them: {printable(why)}"
    yield from _column("names end in", found.endings)
    yield ""
    yield from _licences(found.stated.get("licence", {}), allowed)
    for column, values in found.stated.items():
        if column not in ("licence", "caption"):
            yield from _values(column, values, found.photos)
    if found.unused:
        yield from _column("in the records, and not used (source.columns)", found.unused)
    if found.looked:
        yield ""
        yield from _column(f"of {found.looked} photos that were opened, format", found.formats)
        if sides := found.short_sides:
            middle = sides[len(sides) // 2]
            yield f"shorter side: {sides[0]} to {sides[-1]} px, half of them {middle} px or less"
        yield from _column("marks of rights in their bytes", found.marks or {"none": found.looked})


def _licences(stated: Mapping[str, int], allowed: Sequence[str] | None) -> Iterator[str]:
    yield "licences, as they stand" + ("" if allowed is None else " (+ is let in)") + ":"
    by_fold: dict[str, list[str]] = defaultdict(list)
    for text in stated:
        by_fold[folded(text)].append(text)
    groups = sorted(by_fold.values(), key=lambda texts: -sum(stated[text] for text in texts))
    for texts in groups[:_SHOWN]:
        for text in sorted(texts, key=lambda text: -stated[text]):
            mark = "" if allowed is None else ("+ " if text in allowed else "- ")
            yield f"  {mark}{printable(text)}  {stated[text]}"
    if len(groups) > _SHOWN:
        yield f"  … and {len(groups) - _SHOWN} others"
    for entry, like in unheard_licences(allowed or (), stated):
        nearest = f"; the nearest is {printable(like)!r}" if like else ""
        yield f"  no photo states {entry!r}, which is let in{nearest}"


def _values(column: str, values: Mapping[str, int], photos: int) -> Iterator[str]:
    """Columns with few values are shown whole; of others, how many photos state one."""
    if len(values) <= _SHOWN:
        yield from _column(column, values)
    else:
        stated = sum(count for value, count in values.items() if value != NOT_STATED)
        yield f"{column}: {stated} of {photos} photos, {len(values)} values"


def _column(title: str, values: Mapping[str, int]) -> Iterator[str]:
    most = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    counts = ", ".join(f"{printable(value)} {count}" for value, count in most[:_SHOWN])
    yield f"{title}: {counts}" + (f" and {len(most) - _SHOWN} others" if len(most) > _SHOWN else "")
