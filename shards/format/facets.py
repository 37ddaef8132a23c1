"""What the index says of a sample besides its places: photos, regions, aspects, lengths of captions."""

import json
import re
from collections.abc import Mapping
from typing import Any

from shards.format.names import is_picture, member_named
from shards.format.photo_records import record_of
from shards.format.upright import upright_size

REGION_NAMES = ("full_body", "head", "torso", "legs", "shoes")
_MOST_WORDS = 2**15 - 1
_OUR_PHOTO = re.compile(r"\d{3}\.json")


def facets_of(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Columns people, regions, aspect and tokens of the index, from a sample's members by suffix.

    Our own samples state them in their photos' records; of a foreign one, also of one whose records only
    have names like ours, the pictures are measured and a .txt is its caption.
    """
    try:
        return _stated(members) or _measured(members)
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError):
        return _measured(members)


def _stated(members: Mapping[str, bytes]) -> dict[str, Any] | None:
    """As the records of a group of ours say; None where there are none."""
    records = [json.loads(members[suffix]) for suffix in sorted(members) if _OUR_PHOTO.fullmatch(suffix)]
    if not records:
        return None
    return {
        "people": len(records),
        "regions": [bits_of(record.get("regions") or ()) for record in records],
        "aspect": [record["width"] / record["height"] for record in records],
        "tokens": [words_of(record.get("caption") or "") for record in records],
    }


def _measured(members: Mapping[str, bytes]) -> dict[str, Any]:
    pictures = [suffix for suffix in members if is_picture(suffix)]
    caption = words_of((member_named(members, "txt") or b"").decode("utf-8", "replace"))
    return {
        "people": len(pictures),
        "regions": [0] * len(pictures),
        "aspect": [_aspect(members[suffix], record_of(members, suffix)) for suffix in pictures],
        "tokens": [caption] * len(pictures),
    }


def words_of(caption: str) -> int:
    """Words of a caption, as far as the index can count."""
    return min(len(caption.split()), _MOST_WORDS)


def bits_of(regions: Any) -> int:
    """Regions by name as bits, full_body the lowest."""
    return sum(1 << place for place, name in enumerate(REGION_NAMES) if name in regions)


def _aspect(data: bytes, record: Mapping[str, Any]) -> float:
    """Width / height, upright; 0 where the picture does not open."""
    size = upright_size(data, record)
    return size[0] / size[1] if size is not None and size[1] else 0.0
