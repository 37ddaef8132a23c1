"""What dataset.json counts besides bytes: identities, photos per group, licences of the photos."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from shards.format.names import identity_of
from shards.format.photo_records import pictures_of, record_of
from shards.format.stated import carried_columns

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


def licences_of(members: Mapping[str, bytes]) -> list[str]:
    """Licence of each photo of a sample, as its record states it."""
    records = [record_of(members, picture) for picture in pictures_of(members)]
    return [carried_columns(record).get("licence", NOT_STATED) for record in records]
