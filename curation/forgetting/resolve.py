"""What a wish comes to: the photos that it means in each place, with their copies, and what to keep out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curation.forgetting.address import COLUMNS, OWN_COLUMNS, addresses_of, is_web, normal, own_addresses
from curation.forgetting.dataset_photos import Asked, find_photos, identities_in
from curation.forgetting.places import Place
from curation.forgetting.wish import Wish
from curation.identities.index import IdentityIndex
from curation.run_folder import Run
from curation.run_tables import read_known

MAX_BITS = 6  # as photos.screen.forgotten_max_bits and photos.duplicates.max_bits
PHOTO_DIGITS = 64
_ROWS = ("source_key", "photo_id", "phash", "copy_of", *COLUMNS)


@dataclass
class Meant:
    """What goes, and what must not come back.

    photos    photo_ids, in all places
    keys      {run: source_keys of photos in it}: a name of one run may be another photo in another
    pictures  perceptual hashes of these photos
    urls      their own addresses, and those that were named
    unheard   addresses that were named and that no photo here has
    """

    photos: set[str] = field(default_factory=set)
    keys: dict[str, list[str]] = field(default_factory=dict)
    pictures: set[int] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    unheard: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """As plain values, sorted."""
        return {
            "photos": sorted(self.photos),
            "keys": {run: sorted(keys) for run, keys in sorted(self.keys.items())},
            "pictures": [f"{phash:016x}" for phash in sorted(self.pictures)],
            "urls": sorted(self.urls),
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Meant":
        """What `to_json` wrote."""
        pictures = {int(phash, 16) for phash in said["pictures"]}
        return cls(set(said["photos"]), dict(said["keys"]), pictures, set(said["urls"]))


def resolve(wish: Wish, places: Sequence[Place]) -> Meant:
    """Finds a wish's photos in runs, indices and datasets, and every copy of them.

    A photo within MAX_BITS of one that is meant, or that the run took for a copy of such a one, is that
    photo in another encoding: it goes too. Of a person go all photos that a run, an index or a dataset gave
    this person. A dataset has no perceptual hashes: its photos are decoded where a wish names a picture, and
    only there.
    """
    photos = set(wish.photos | wish.sent)
    meant = Meant(photos, {}, set(wish.pictures), set(wish.urls), unheard=set(wish.urls))
    meant.photos |= {person[:PHOTO_DIGITS] for person in _people_of(wish.people, places)}
    runs = [place.path for place in places if place.kind == "run"]
    wished: dict[str, list[str]] = {}
    for url in sorted(wish.urls):
        wished.setdefault(normal(url, wish.with_query), []).append(url)

    def is_address(value: Any) -> bool:
        urls = wished.get(normal(value, wish.with_query), ()) if is_web(value) else ()
        meant.unheard.difference_update(urls)
        return bool(urls)

    _take_from_datasets(meant, wish, places, is_address)
    for run in runs:
        for row in photo_rows(run):
            named = [is_address(address) for address in addresses_of(row)]
            if any(named) or row["photo_id"] in meant.photos or _near(row["phash"], wish.pictures):
                _take(meant, run, row)
    # Copies of these; a copy that its run knew points at an original that is found by now.
    originals = set(meant.pictures)
    for run in runs:
        for row in photo_rows(run):
            if row["photo_id"] in meant.photos or _near(row["phash"], originals):
                _take(meant, run, row)
    originals_of_copies = set(meant.photos)
    for run in runs:
        for row in photo_rows(run):
            if row["copy_of"] in originals_of_copies or row["photo_id"] in meant.photos:
                _take(meant, run, row)
    meant.keys = {run: sorted(set(keys)) for run, keys in meant.keys.items()}
    return meant


def _take_from_datasets(
    meant: Meant, wish: Wish, places: Sequence[Place], is_address: Callable[[Any], bool]
) -> None:
    """Photos of datasets that stand by themselves."""
    near = partial(_near, pictures=wish.pictures) if wish.pictures else None
    asked = Asked(set(meant.photos), is_address, near)
    for place in places:
        if place.kind == "dataset":
            for photo_id, addresses in find_photos(place.path, asked):
                meant.photos.add(photo_id)
                meant.urls |= addresses


def _take(meant: Meant, run: str, row: dict[str, Any]) -> None:
    meant.keys.setdefault(run, []).append(row["source_key"])
    if row["photo_id"] is not None:
        meant.photos.add(row["photo_id"])
    if row["phash"] is not None:
        meant.pictures.add(row["phash"])
    meant.urls |= {address for name in OWN_COLUMNS for address in own_addresses(row[name])}


def _near(phash: int | None, pictures: set[int] | frozenset[int]) -> bool:
    if phash is None or not pictures:
        return False
    masks = np.fromiter(pictures, np.uint64, len(pictures))
    return bool((np.bitwise_count(masks ^ np.uint64(phash)) <= MAX_BITS).any())


def photo_rows(folder: str) -> Iterator[dict[str, Any]]:
    """`_ROWS` of every photo that a run has listed or read; a photo may come twice."""
    run = Run(folder)
    paths = [*run.photos.paths(), *run.screened.paths(), *run.listings.paths(), *run.sample.paths()]
    for path in paths:
        table = read_known(path, _ROWS)
        for name in _ROWS:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows))
        yield from table.to_pylist()


def _people_of(named: frozenset[str], places: Sequence[Place]) -> set[str]:
    """person_ids of all that any place takes for the same person as one who is named."""
    if not named:
        return set()
    known = [list(_identities(place)) for place in places if place.kind in ("run", "index", "dataset")]
    people = set(named)
    # Twice: one place may hold the name, and another one more photos of those whom the first knows.
    for _ in range(2):
        for pairs in known:
            names = {identity for person, identity in pairs if person in people or identity in people}
            people |= {person for person, identity in pairs if identity in names}
    return {person for person in people if len(person) > PHOTO_DIGITS}


def _identities(place: Place) -> Iterator[tuple[str, str]]:
    """(person_id, identity) of everyone who was given one, merges followed."""
    if place.kind == "dataset":
        yield from identities_in(place.path)
        return
    if place.kind == "index":
        index = IdentityIndex(place.path)
        aliases = index.aliases()
        for name in index.additions():
            for row in index.read(name, ["person_id", "identity"]).to_pylist():
                yield row["person_id"], aliases.get(row["identity"], row["identity"])
        return
    for row in Run(place.path).identities.rows(["person_id", "identity"]):
        if row["identity"] is not None:
            yield row["person_id"], row["identity"]
