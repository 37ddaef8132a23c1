"""What dataset.json counts besides bytes: identities, photos per group, licences of the photos."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from shards.names import identity_of

NOT_STATED = "not stated"


@dataclass
class Census:
    """Grows sample by sample. Identities are kept as 64-bit hashes."""

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


def licences_of(members: Mapping[str, bytes], photos: int) -> list[str]:
    """Licence of each photo, as its record states it."""
    found = [str(record.get("licence") or NOT_STATED) for record in photo_records(members).values()]
    return found + [NOT_STATED] * (photos - len(found))


def photo_records(members: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """{number: record} of the photos of one of our groups, as "000"; none of other samples."""
    found = {}
    for suffix, data in members.items():
        number, _, kind = suffix.partition(".")
        if kind == "json" and is_record_name(suffix):
            try:
                record = json.loads(data)
            except ValueError:
                continue
            if isinstance(record, dict):
                found[number] = record
    return found


def is_record_name(suffix: str) -> bool:
    """Whether a member is the record of a photo: NNN.json."""
    return len(suffix) == 8 and suffix[:3].isdecimal() and suffix.isascii() and suffix[3:] == ".json"
