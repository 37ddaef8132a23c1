"""Counts what a collection holds and states, without a model: the listing, and a look into some photos.

Every row is listed as a run would list it; `look` photos, drawn by the hashes of their keys, are opened for
format, size and marks of rights. Texts of strangers are counted as they stand.
"""

import difflib
import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.photos.decode import UnknownFormatError, read_header
from curation.settings.source import SourceSettings
from curation.sources.names import ending
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SourceRow
from curation.sources.units import list_units, unit_rows
from curation.survey.marks import marks_of
from shards.format.stated import CARRIED, is_carried

NOT_STATED = "not stated"
_MOST_VALUES = 10_000  # different texts of one column that are counted apart; the rest together
_OTHERS = "other values"
_MAX_BYTES = 64 * 2**20


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


def survey(source: SourceSettings, look: int) -> Survey:
    """Goes through a collection. Raises ConfigError where nothing is there.

    look   how many photos are opened at most
    """
    found = Survey()
    drawn: list[tuple[int, str, SourceRow]] = []
    units = list_units(source)
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
    there = sorted(set(stated) - {NOT_STATED, _OTHERS}, key=lambda text: (stated[text], text))
    by_fold = {folded(text): text for text in there}  # of texts that are alike the one that most photos state
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
