"""What a dataset holds: columns of the index beside a sample's places, and the counts of dataset.json."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from shards.format.members import identity_of, is_picture, member_named, pictures_of, record_of
from shards.format.orientation import upright_size
from shards.format.stated import carried_columns

REGION_NAMES = ("full_body", "head", "torso", "legs", "shoes")
_MOST_WORDS = 2**15 - 1
_OUR_PHOTO = re.compile(r"\d{3}\.json")
NOT_STATED = "not stated"


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


@dataclass
class Census:
    """Counts that grow sample by sample. Identities are kept as 64-bit hashes."""

    licences: Counter[str] = field(default_factory=Counter)
    photos_per_group: Counter[int] = field(default_factory=Counter)
    identities: set[int] = field(default_factory=set)

    def add(self, key: str, photos: int, licences: Iterable[str]) -> None:
        """Counts a sample and the licence of each of its photos."""
        self.identities.add(xxhash.xxh3_64_intdigest(identity_of(key).encode()))
        self.photos_per_group[photos] += 1
        self.licences.update(licences)

    def to_json(self) -> dict[str, Any]:
        """Keys of dataset.json."""
        return {
            "identities": len(self.identities),
            "licences": dict(sorted(self.licences.items())),
            "photos_per_group": {
                str(size): self.photos_per_group[size] for size in sorted(self.photos_per_group)
            },
        }


def licences_of(members: Mapping[str, bytes]) -> list[str]:
    """Licence of each photo of a sample, as its record states it."""
    records = [record_of(members, picture) for picture in pictures_of(members)]
    return [carried_columns(record).get("licence", NOT_STATED) for record in records]
