"""Which photos a sample holds: the sha256 of their bytes, as the records say or from the bytes."""

import hashlib
import json
from collections.abc import Mapping

from shards.format.photo_records import photo_id_of, photo_records, pictures_of, record_of
from shards.format.sample import json_bytes


def photo_ids(members: Mapping[str, bytes]) -> dict[str, str]:
    """{suffix of a picture: photo_id}. A photo whose record is there and names its id is not hashed."""
    found = {}
    for suffix in pictures_of(members):
        said = photo_id_of(record_of(members, suffix))
        found[suffix] = said or hashlib.sha256(members[suffix]).hexdigest()
    return found


def without_photos(members: Mapping[str, bytes], gone: set[str]) -> dict[str, bytes]:
    """The members of a sample without these pictures (suffixes) and what belongs to them.

    In a group of ours the photos behind move up: they are numbered without a gap, and the group's
    record counts them. In any other sample the picture goes, with the members that have its stem.
    """
    records = photo_records(members)
    stems = {suffix.rpartition(".")[0] for suffix in gone}
    if not records or not all(stem in records for stem in stems):
        return {
            suffix: data
            for suffix, data in members.items()
            if suffix not in gone and (suffix.rpartition(".")[0] not in stems - {""})
        }
    left = [number for number in records if number not in stems]
    renamed = {number: f"{place:03d}" for place, number in enumerate(left)}
    found = {}
    for suffix, data in members.items():
        number, _, rest = suffix.partition(".")
        if number in renamed:
            found[f"{renamed[number]}.{rest}"] = data
        elif number not in stems:
            found[suffix] = _counted(data, len(left)) if suffix == "json" else data
    return found


def _counted(data: bytes, photos: int) -> bytes:
    """The group's record with another number of photos."""
    record = json.loads(data)
    return json_bytes({**record, "photos": photos}) if isinstance(record, dict) else data
