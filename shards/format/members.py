"""The members of a sample: what their names say, which record belongs to which photo, and the photos' ids.

A member's name gives its sample by WebDataset's rule. In a group of ours `NNN.json` is the record of photo
NNN. In a sample of others it is the `.json` beside a picture, `left.json` of `left.jpg`; where there is
none, `json`, that of the whole sample.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from shards.format.sample import json_bytes

# Of our own keys: the identity, 16 hex digits, and the letter of the outfit.
_GROUP_KEY = re.compile(r"([0-9a-f]{16})-([a-z]+)")
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
_META = re.compile(r"__[^/]*__(/|$)")
_PHOTO_ID = re.compile("[0-9a-f]{64}")


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a member's name; None for what WebDataset passes over.

    The key is the path up to the first dot of its last part, the suffix what follows that dot.
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    if not dot or not stem or _META.match(name):
        return None
    return folder + slash + stem, suffix


@lru_cache(maxsize=4096)  # asked twice of every member that is written; suffixes are few
def is_picture(suffix: str) -> bool:
    """Whether a member is a photo; label maps are none."""
    return suffix.rsplit(".", 1)[-1].lower() in IMAGE_SUFFIXES and not suffix.endswith("regions.png")


def identity_of(key: str) -> str:
    """The identity that a key of ours names; of any other sample, its key: it stands for itself."""
    ours = _GROUP_KEY.fullmatch(key)
    return ours[1] if ours else key


def member_named(members: Mapping[str, bytes], suffix: str) -> bytes | None:
    """The member of a sample with this suffix, in whatever case: others write `JPG` and `LEFT.JSON` too, as
    WebDataset's own reader takes them."""
    data = members.get(suffix)
    if data is None:
        wanted = suffix.lower()
        data = next((data for name, data in members.items() if name.lower() == wanted), None)
    return data


def photo_records(members: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """{number: record} of the photos of one of our groups, as "000"; none of other samples."""
    found = {}
    for suffix in filter(is_record_name, members):
        record = _object(members[suffix])
        if record is not None:
            found[suffix[:3]] = record
    return found


def record_of(members: Mapping[str, bytes], picture: str) -> dict[str, Any]:
    """The record of a picture (its suffix); {} where there is none, or what is there is no JSON object."""
    stem = picture.rpartition(".")[0]
    for name in (f"{stem}.json", "json") if stem else ("json",):
        data = member_named(members, name)
        if data is not None:
            return _object(data) or {}
    return {}


def record_member(members: Mapping[str, bytes], picture: str) -> str:
    """The suffix of the record that is a picture's own, as it is spelt there, or would be were it there."""
    stem = picture.rpartition(".")[0]
    wanted = f"{stem}.json" if stem else "json"
    return next((name for name in members if name.lower() == wanted.lower()), wanted)


def photo_id_of(record: Mapping[str, Any]) -> str | None:
    """The photo_id that a record of ours states. Others number their photos under that name too."""
    stated = record.get("photo_id")
    return stated if isinstance(stated, str) and _PHOTO_ID.fullmatch(stated) else None


def pictures_of(members: Mapping[str, bytes]) -> list[str]:
    """Suffixes of the photos of a sample."""
    return [suffix for suffix in members if is_picture(suffix)]


def is_record_name(suffix: str) -> bool:
    """Whether a member is the record of a photo: NNN.json."""
    return len(suffix) == 8 and suffix[:3].isdecimal() and suffix.isascii() and suffix[3:] == ".json"


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def photo_ids(members: Mapping[str, bytes]) -> dict[str, str]:
    """{suffix of a picture: photo_id}. A photo whose record is there and names its id is not hashed."""
    found = {}
    for suffix in pictures_of(members):
        stated = photo_id_of(record_of(members, suffix))
        found[suffix] = stated or hashlib.sha256(members[suffix]).hexdigest()
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
