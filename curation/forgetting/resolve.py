"""What a request to forget comes to: the photos that it names in each place, with their copies; what to keep
out; and what of it no place knows.

The photos of a dataset that stands by itself, without its run, are found by the records in its shards. A
request that misses must not look like one that was obeyed, so what is unknown is named.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curation.errors import PersonaError
from curation.excluded.address import (
    COLUMNS,
    OWN_COLUMNS,
    addresses_in,
    addresses_of,
    is_web,
    nearest,
    normal,
    own_addresses,
)
from curation.excluded.opt_out import collected_as
from curation.excluded.tombstone_store import TombstoneList
from curation.forgetting.places import Place
from curation.forgetting.request import ForgetRequest, picture_hash
from curation.identities.index import IdentityIndex
from curation.run_folder import Run
from curation.run_tables import read_known
from shards.format.dataset import DatasetError
from shards.format.members import identity_of, photo_records
from shards.format.stated import carried_columns
from shards.tools.dataset_rows import DatasetRows

MAX_BITS = 6  # as photos.screen.forgotten_max_bits and photos.duplicates.max_bits
PHOTO_DIGITS = 64
_ROWS = ("source_key", "photo_id", "phash", "copy_of", *COLUMNS)


@dataclass(frozen=True)
class Criteria:
    """The ids, addresses and pictures by which photos are searched.

    photos      photo_ids
    is_address  whether an address is one of those that are asked for
    is_picture  whether a perceptual hash is; None: no picture is decoded
    """

    photos: set[str]
    is_address: Callable[[Any], bool]
    is_picture: Callable[[int | None], bool] | None = None


def find_photos(folder: str, asked: Criteria) -> Iterator[tuple[str, set[str]]]:
    """(photo_id, its own addresses) of the photos of a dataset that are asked for.

    Raises PersonaError where the dataset is damaged.
    """
    try:
        dataset = DatasetRows(folder)
        for number in range(len(dataset)):
            yield from _found(dataset, number, asked)
        dataset.close()
    except DatasetError as error:
        raise PersonaError(str(error)) from None


def identities_in(folder: str) -> Iterator[tuple[str, str]]:
    """(person_id, identity) of everyone in the groups of a dataset of ours."""
    try:
        dataset = DatasetRows(folder)
        for number, key in enumerate(dataset.all_keys()):
            identity = identity_of(key)
            if identity != key:
                for record in photo_records(dataset.records(number)).values():
                    if isinstance(record.get("person_id"), str):
                        yield record["person_id"], identity
        dataset.close()
    except DatasetError as error:
        raise PersonaError(str(error)) from None


def _found(dataset: DatasetRows, number: int, asked: Criteria) -> Iterator[tuple[str, set[str]]]:
    records = dataset.photo_records(number)
    by_address = {suffix for suffix, record in records.items() if _is_named(record, asked)}
    if not (by_address or asked.photos or asked.is_picture):
        return
    ids = dataset.photo_ids(number)
    pictures = dataset.read(number, set(records)).members if asked.is_picture else {}
    for suffix, photo_id in ids.items():
        is_named = suffix in by_address or photo_id in asked.photos
        if asked.is_picture and not is_named:
            is_named = asked.is_picture(picture_hash(pictures[suffix]))
        if is_named:
            yield photo_id, own_addresses(carried_columns(records[suffix]).get("source_url"))


def _is_named(record: dict[str, Any], asked: Criteria) -> bool:
    """Whether any address in a record is asked for. All are compared with the request: each may be named."""
    stated = carried_columns(record)
    own = (own_addresses(stated.get(name)) for name in ("source_url", "page_url"))
    return sum(map(asked.is_address, sorted(addresses_in(record).union(*own)))) > 0


@dataclass
class ResolvedRequest:
    """The photos that a request takes out, and what must not come back.

    photos    photo_ids, in all places
    keys      {run: source_keys of photos in it}: a name of one run may be another photo in another
    pictures  perceptual hashes of these photos
    urls      their own addresses, and those that were named
    unmatched   addresses that were named and that no photo here has
    """

    photos: set[str] = field(default_factory=set)
    keys: dict[str, list[str]] = field(default_factory=dict)
    pictures: set[int] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    unmatched: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """As plain values, sorted."""
        return {
            "photos": sorted(self.photos),
            "keys": {run: sorted(keys) for run, keys in sorted(self.keys.items())},
            "pictures": [f"{phash:016x}" for phash in sorted(self.pictures)],
            "urls": sorted(self.urls),
        }

    @classmethod
    def from_json(cls, stated: dict[str, Any]) -> "ResolvedRequest":
        """What `to_json` wrote."""
        pictures = {int(phash, 16) for phash in stated["pictures"]}
        return cls(set(stated["photos"]), dict(stated["keys"]), pictures, set(stated["urls"]))


def resolve(request: ForgetRequest, places: Sequence[Place]) -> ResolvedRequest:
    """Finds a request's photos in runs, indices and datasets, and every copy of them.

    A photo within MAX_BITS of one that is named, or that the run took for a copy of such a one, is that
    photo in another encoding: it goes too. Of a person go all photos that a run, an index or a dataset gave
    this person. A dataset has no perceptual hashes: its photos are decoded where a request names a picture,
    and only there.
    """
    photos = set(request.photos | request.sent)
    resolved = ResolvedRequest(
        photos, {}, set(request.pictures), set(request.urls), unmatched=set(request.urls)
    )
    resolved.photos |= {person[:PHOTO_DIGITS] for person in _people_of(request.people, places)}
    runs = [place.path for place in places if place.kind == "run"]
    wanted: dict[str, list[str]] = {}
    for url in sorted(request.urls):
        wanted.setdefault(normal(url, request.with_query), []).append(url)

    def is_address(value: Any) -> bool:
        urls = wanted.get(normal(value, request.with_query), ()) if is_web(value) else ()
        resolved.unmatched.difference_update(urls)
        return bool(urls)

    _take_from_datasets(resolved, request, places, is_address)
    for run in runs:
        for row in photo_rows(run):
            named = [is_address(address) for address in addresses_of(row)]
            if any(named) or _ids(row) & resolved.photos or _near(row["phash"], request.pictures):
                _take(resolved, run, row)
    # Copies of these; a copy that its run knew points at an original that is found by now.
    originals = set(resolved.pictures)
    for run in runs:
        for row in photo_rows(run):
            if row["photo_id"] in resolved.photos or _near(row["phash"], originals):
                _take(resolved, run, row)
    originals_of_copies = set(resolved.photos)
    for run in runs:
        for row in photo_rows(run):
            if row["copy_of"] in originals_of_copies or row["photo_id"] in resolved.photos:
                _take(resolved, run, row)
    resolved.keys = {run: sorted(set(keys)) for run, keys in resolved.keys.items()}
    return resolved


def _take_from_datasets(
    resolved: ResolvedRequest,
    request: ForgetRequest,
    places: Sequence[Place],
    is_address: Callable[[Any], bool],
) -> None:
    """Photos of datasets that stand by themselves."""
    near = partial(_near, pictures=request.pictures) if request.pictures else None
    asked = Criteria(set(resolved.photos), is_address, near)
    for place in places:
        if place.kind == "dataset":
            for photo_id, addresses in find_photos(place.path, asked):
                resolved.photos.add(photo_id)
                resolved.urls |= addresses


def _take(resolved: ResolvedRequest, run: str, row: dict[str, Any]) -> None:
    resolved.keys.setdefault(run, []).append(row["source_key"])
    if row["photo_id"] is not None:
        resolved.photos.add(row["photo_id"])
    if row["phash"] is not None:
        resolved.pictures.add(row["phash"])
    resolved.urls |= {address for name in OWN_COLUMNS for address in own_addresses(row[name])}


def _ids(row: dict[str, Any]) -> set[str]:
    """What a photo of a run is called: by its bytes, and by those that it had before it was stripped for the
    shard that the run reads."""
    return {name for name in (row["photo_id"], collected_as(row["metadata"])) if name is not None}


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


def unknown(
    request: ForgetRequest, resolved: ResolvedRequest, places: Sequence[Place], tombstones: TombstoneList
) -> list[str]:
    """A line for each photo, person and address that no run, index or dataset here knows, and that was not
    forgotten before (`tombstones`); for an address the nearest that is there.

    Where a dataset stands by itself no photo counts as unknown: a copy of it may have been cleared before.
    """
    lines: list[str] = []
    if request.photos and not any(place.kind == "dataset" for place in places):
        here = set().union(*(_ids(row) for run in _runs(places) for row in photo_rows(run)))
        absent = sorted(request.photos - here)
        lines += [f"photo {photo_id}" for photo_id in absent if not tombstones.has_photo(photo_id)]
    if request.people and not resolved.photos - request.photos - request.sent:
        lines += [f"person {person}" for person in sorted(request.people)]
    for url in sorted(resolved.unmatched):
        if not tombstones.has_url({"source_url": url}, request.with_query):
            like = nearest(url, _addresses(places))
            lines.append(f"address {url}" + (f" (the nearest here: {like})" if like else ""))
    return lines


def _addresses(places: Sequence[Place]) -> Iterator[str]:
    for run in _runs(places):
        for row in photo_rows(run):
            yield from addresses_of(row)
    stated: list[str] = []

    def note(address: Any) -> bool:
        if is_web(address):
            stated.append(address)
        return False

    for place in places:
        if place.kind == "dataset":
            for _ in find_photos(place.path, Criteria(set(), note)):
                pass
    yield from stated


def _runs(places: Sequence[Place]) -> list[str]:
    return [place.path for place in places if place.kind == "run"]


def list_photos(resolved: ResolvedRequest, places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """{place, file, photo_id, groups, copy_of} of every photo that goes, place by place.

    file     its source_key, of a dataset its member
    groups   keys of the groups that it is in
    copy_of  photo_id of the photo that its run took it for a copy of, or None
    """
    for place in places:
        if place.kind == "run":
            yield from _of_run(place.path, resolved)
        elif place.kind == "dataset":
            yield from _of_dataset(place.path, resolved)


def _of_run(run: str, resolved: ResolvedRequest) -> Iterator[dict[str, Any]]:
    wanted = set(resolved.keys.get(run, ()))
    found: dict[str, dict[str, Any]] = {}
    for row in photo_rows(run) if wanted else ():
        if row["source_key"] in wanted:
            photo = found.setdefault(row["source_key"], {"photo_id": None, "copy_of": None})
            photo |= {name: row[name] for name in ("photo_id", "copy_of") if row[name] is not None}
    groups = _groups_of(run, {photo["photo_id"] for photo in found.values()}) if found else {}
    for key, photo in sorted(found.items()):
        yield {"place": run, "file": key, **photo, "groups": sorted(groups.get(photo["photo_id"], ()))}


def _groups_of(run: str, photos: set[str | None]) -> dict[str | None, set[str]]:
    """{photo_id: groups} by the run's captions."""
    found: dict[str | None, set[str]] = {}
    for row in Run(run).captions.rows(["person_id", "group"]):
        photo_id = row["person_id"][:PHOTO_DIGITS]
        if photo_id in photos and row["group"] is not None:
            found.setdefault(photo_id, set()).add(row["group"])
    return found


def _of_dataset(folder: str, resolved: ResolvedRequest) -> Iterator[dict[str, Any]]:
    try:
        dataset = DatasetRows(folder)
        for number, key in enumerate(dataset.all_keys()):
            for suffix, photo_id in dataset.photo_ids(number).items():
                if photo_id in resolved.photos:
                    file = f"{key}.{suffix}"
                    photo = {"file": file, "photo_id": photo_id, "copy_of": None, "groups": [key]}
                    yield {"place": folder, **photo}
        dataset.close()
    except DatasetError as error:
        raise PersonaError(str(error)) from None
