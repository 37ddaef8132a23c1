"""Under which name a row's measurements are remembered: what was looked at, and how it was turned.

The phases write by these names, and `forget` finds by them what must go.
"""

from collections.abc import Mapping
from typing import Any

from curation.fingerprint import fingerprint
from curation.photos.read import told_beside

PLACE = ("uri", "offset", "row", "version", "metadata")
PHOTO = ("photo_id", "orientation", "source_key")
PERSON = ("person_id",)


def place_name(row: Mapping[str, Any]) -> str:
    """Of a row of a listing, by its `PLACE`, in the phase `photos`."""
    *place, metadata = (row[name] for name in PLACE)
    return fingerprint([*place, told_beside(metadata)])


def photo_name(row: Mapping[str, Any]) -> str:
    """Of a photo, by its `PHOTO`, in the phase `people`. Copies of one photo have names of their own: what is
    measured on one is not that of the other."""
    return " ".join(str(row[name]) for name in PHOTO)


def person_name(row: Mapping[str, Any]) -> str:
    """Of a person on a photo, by its `PHOTO` and `PERSON`."""
    return photo_name({**row, "photo_id": row["person_id"]})


def photo_and_key(name: str) -> tuple[str, str]:
    """(photo_id, source_key) of the name of a photo, or of a person on one."""
    found, _, source_key = name.split(" ", 2)
    return found.partition("-")[0], source_key
