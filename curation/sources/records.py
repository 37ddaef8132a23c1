"""Which record is whose: the .json and .txt beside photos, by name, in folders and tars alike.

A record says under which licence a photo may be used, and at which address somebody may have opted out.
So a photo that may have one which cannot be told is ruled out by name, and never let in without it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from curation.sources.names import key_of, stem_of, stems

Name = tuple[int, str]
"""(part, path) of a file. Parts are tars that were joined into one: names of one say nothing of another's."""


def tie(photos: Iterable[Name], texts: Sequence[Name]) -> list[list[int]]:
    """For each photo the places of its texts in `texts`: one, none, or several that claim it.

    A photo has the text of the longest beginning of its name (`stems`). Where a photo and its text are
    there equally often under one name, they belong together in their order.
    """
    by_stem: dict[Name, list[int]] = {}
    for place, (part, name) in enumerate(texts):
        by_stem.setdefault((part, stem_of(name)), []).append(place)
    photos = list(photos)
    times, seen = Counter(photos), Counter[Name]()
    found = []
    for photo in photos:
        part, name = photo
        own: list[int] = next((by_stem[part, stem] for stem in stems(name) if (part, stem) in by_stem), [])
        if len(own) > 1 and len(own) == times[photo]:
            own = [own[seen[photo]]]
        seen[photo] += 1
        found.append(own)
    return found


class Records:
    """The .json of a folder or tar, tied to its photos.

    of      for each photo what `tie` gives
    strays  places of the records that belong to no photo
    """

    def __init__(self, photos: Sequence[Name], records: Sequence[Name], is_tar: bool) -> None:
        self._photos = photos
        self._records = records
        self._is_tar = is_tar
        self.of = tie(photos, records)
        self.strays = self._find_strays()
        self._of_sample: dict[Name, int] = {}
        for place, (part, name) in enumerate(records):
            self._of_sample.setdefault((part, key_of(name)), place)
        self._suspects: list[int] = []
        self._suspects_in: dict[str, int] = {}
        self._suspects_named: dict[str, int] = {}

    def _find_strays(self) -> list[int]:
        """Records of which no photo's name begins as theirs, and whose sample has no photo with a record."""
        keys = {(part, key_of(name)) for part, name in self._records}
        places = {(part, stem_of(name)) for part, name in self._records}
        used: set[Name] = set()
        samples: set[Name] = set()
        for (part, name), own in zip(self._photos, self.of, strict=True):
            used.update((part, stem) for stem in stems(name) if (part, stem) in places)
            if own and (part, key_of(name)) in keys:
                samples.add((part, key_of(name)))
        return [
            place
            for place, (part, name) in enumerate(self._records)
            if (part, stem_of(name)) not in used and (part, key_of(name)) not in samples
        ]

    def suspect(self, strays: Sequence[int]) -> None:
        """Names the strays that may be records of photos: of a tar any of its photos that has none, of
        a folder those that lie in the same one or are called the same."""
        self._suspects = list(strays)
        for place in reversed(strays):
            name = self._records[place][1]
            self._suspects_in[_folder(name)] = place
            self._suspects_named[_file(stem_of(name))] = place

    def problem(self, photo: int, has_row: bool) -> str | None:
        """Why the record of a photo cannot be told; None where it has one, or surely none.

        has_row  whether a file of many records has one for it, which no stray can be then
        """
        own = self.of[photo]
        if len(own) > 1:
            return f"{len(own)} records claim it: {self._called(own[0])} is there {len(own)} times"
        if own or has_row:
            return None
        part, name = self._photos[photo]
        sample = (part, key_of(name))
        if self._is_tar and _file(sample[1]) and sample in self._of_sample:
            other = self._called(self._of_sample[sample])
            return f"its record cannot be told: its sample has {other}, which does not begin its name"
        suspect = self._suspect_for(name)
        if suspect is not None:
            return f"its record cannot be told: it has none, and {self._called(suspect)} belongs to no photo"
        return None

    def _suspect_for(self, name: str) -> int | None:
        if self._is_tar:
            return self._suspects[0] if self._suspects else None
        named = (self._suspects_named.get(_file(stem)) for stem in stems(name))
        return next((place for place in named if place is not None), self._suspects_in.get(_folder(name)))

    def _called(self, record: int) -> str:
        return repr(self._records[record][1].rpartition("/")[2])


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _file(name: str) -> str:
    return name.rpartition("/")[2].lower()
