"""What of a wish is nowhere here: a wish that misses must not look like one that was obeyed."""

from collections.abc import Iterator, Sequence
from typing import Any

from curation.excluded.address import addresses_of, is_web, nearest
from curation.excluded.tombstones import TombstoneList
from curation.forgetting.dataset_photos import Asked, find_photos
from curation.forgetting.places import Place
from curation.forgetting.resolve import Meant, photo_rows
from curation.forgetting.wish import Wish


def unknown(wish: Wish, meant: Meant, places: Sequence[Place], stones: TombstoneList) -> list[str]:
    """A line for each photo, person and address that no run, index or dataset here knows, and that was not
    forgotten before (`stones`); for an address the nearest that is there.

    Where a dataset stands by itself no photo counts as unknown: a copy of it may have been cleared before.
    """
    lines: list[str] = []
    if wish.photos and not any(place.kind == "dataset" for place in places):
        here = {row["photo_id"] for run in _runs(places) for row in photo_rows(run)}
        absent = sorted(wish.photos - here)
        lines += [f"photo {photo_id}" for photo_id in absent if not stones.has_photo(photo_id)]
    if wish.people and not meant.photos - wish.photos - wish.sent:
        lines += [f"person {person}" for person in sorted(wish.people)]
    for url in sorted(meant.unheard):
        if not stones.has_url({"source_url": url}, wish.with_query):
            like = nearest(url, _addresses(places))
            lines.append(f"address {url}" + (f" (the nearest here: {like})" if like else ""))
    return lines


def _addresses(places: Sequence[Place]) -> Iterator[str]:
    for run in _runs(places):
        for row in photo_rows(run):
            yield from addresses_of(row)
    said: list[str] = []

    def note(address: Any) -> bool:
        if is_web(address):
            said.append(address)
        return False

    for place in places:
        if place.kind == "dataset":
            for _ in find_photos(place.path, Asked(set(), note)):
                pass
    yield from said


def _runs(places: Sequence[Place]) -> list[str]:
    return [place.path for place in places if place.kind == "run"]
