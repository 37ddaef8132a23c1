"""Whom a dataset knows where no run is known of: the records in its shards say who and from where."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from curation.errors import PersonaError
from curation.excluded.address import addresses_in, own_addresses
from curation.forgetting.wish import picture_hash
from shards.format.dataset import DatasetError
from shards.format.members import identity_of, photo_records
from shards.format.stated import carried_columns
from shards.tools.dataset_rows import DatasetRows


@dataclass(frozen=True)
class Asked:
    """What a photo is looked for by.

    photos      photo_ids
    is_address  whether an address is one of those that are asked for
    is_picture  whether a perceptual hash is; None: no picture is decoded
    """

    photos: set[str]
    is_address: Callable[[Any], bool]
    is_picture: Callable[[int | None], bool] | None = None


def find_photos(folder: str, asked: Asked) -> Iterator[tuple[str, set[str]]]:
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


def _found(dataset: DatasetRows, number: int, asked: Asked) -> Iterator[tuple[str, set[str]]]:
    records = dataset.photo_records(number)
    by_address = {suffix for suffix, record in records.items() if _is_named(record, asked)}
    if not (by_address or asked.photos or asked.is_picture):
        return
    ids = dataset.photo_ids(number)
    pictures = dataset.read(number, set(records)).members if asked.is_picture else {}
    for suffix, photo_id in ids.items():
        is_meant = suffix in by_address or photo_id in asked.photos
        if asked.is_picture and not is_meant:
            is_meant = asked.is_picture(picture_hash(pictures[suffix]))
        if is_meant:
            yield photo_id, own_addresses(carried_columns(records[suffix]).get("source_url"))


def _is_named(record: dict[str, Any], asked: Asked) -> bool:
    """Whether any address in a record is asked for. All are held against the wish: each may be named."""
    stated = carried_columns(record)
    own = (own_addresses(stated.get(name)) for name in ("source_url", "page_url"))
    return sum(map(asked.is_address, sorted(addresses_in(record).union(*own)))) > 0
