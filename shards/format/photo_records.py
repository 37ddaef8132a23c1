"""Which record of a sample tells of which of its photos.

In a group of ours `NNN.json` tells of photo NNN. In a sample of others the `.json` beside a picture does,
`left.json` of `left.jpg`; where there is none, `json`, that of the whole sample.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from shards.format.names import is_picture, member_named

_PHOTO_ID = re.compile("[0-9a-f]{64}")


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


def photo_id_of(record: Mapping[str, Any]) -> str | None:
    """The photo_id that a record of ours states. Others number their photos under that name too."""
    said = record.get("photo_id")
    return said if isinstance(said, str) and _PHOTO_ID.fullmatch(said) else None


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
