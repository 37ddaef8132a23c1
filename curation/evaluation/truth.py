"""The truth folder: what is really on the photos of a collection; and a number that was measured against it.

DIR/photos.parquet, people.parquet and outfits.parquet have the schemas below; DIR/facts.json is
{fact: {value: [phrases that state it in a caption]}}. Whoever draws or labels a collection writes them
with `write_truth`; `persona eval` reads them with `read_truth`.
"""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.errors import ConfigError, one_line
from curation.storage import exists, join, read_bytes, read_table, write_bytes, write_table

Facts = dict[str, dict[str, list[str]]]

FACT_NAMES = ("pose", "arms", "view", "framing", "scene", "expression")
"""Facts of a person on a photo that a caption may state; columns of people.parquet."""

PHOTO_KINDS = ("photo", "crowd", "corrupt", "poster", "statue", "empty")
"""`corrupt` files do not decode; posters and statues show figures that are not people."""

PHOTOS_SCHEMA = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),  # sha256 hex of the file's bytes
        pa.field("path", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),  # px, as the file decodes; 0 where it does not
        pa.field("height", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # one of PHOTO_KINDS
        pa.field("copy_of", pa.string()),  # photo_id of the photo that it re-encodes
        pa.field("scene", pa.string()),
    ]
)

# One row a person, in the pixels of its own photo (a resized copy has rows of its own).
PEOPLE_SCHEMA = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("outfit", pa.string(), nullable=False),
        pa.field("box", pa.list_(pa.float32()), nullable=False),  # x0, y0, x1, y1 around visible pixels
        pa.field("keypoints", pa.list_(pa.float32()), nullable=False),  # 17 × (x, y, v); v 0, 1, 2
        pa.field("labels", pa.binary(), nullable=False),  # PNG of ATR labels on the integer box
        pa.field("visible_share", pa.float32(), nullable=False),  # visible pixels / all of the figure
        pa.field("face_visible", pa.bool_(), nullable=False),
        pa.field("main", pa.bool_(), nullable=False),  # a subject, not a bystander of a crowd
        *(pa.field(name, pa.string()) for name in FACT_NAMES),
    ]
)

OUTFITS_SCHEMA = pa.schema(
    [
        pa.field("outfit", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("garments", pa.string(), nullable=False),  # JSON: slot -> {kind, colour, pattern}
    ]
)

_SCHEMAS = {"photos": PHOTOS_SCHEMA, "people": PEOPLE_SCHEMA, "outfits": OUTFITS_SCHEMA}


@dataclass(frozen=True)
class Truth:
    """A truth folder in memory.

    photos    {photo_id: row of photos.parquet}
    people    {photo_id: rows of people.parquet}
    garments  {outfit: {slot: {kind, colour, pattern}}}
    facts     {fact: {value: phrases}}
    """

    photos: dict[str, dict[str, Any]]
    people: dict[str, list[dict[str, Any]]]
    garments: dict[str, dict[str, dict[str, str]]]
    facts: Facts

    def decodes(self, photo_id: str) -> bool:
        """Whether the photo is one that a reader can open."""
        return bool(self.photos[photo_id]["kind"] != "corrupt")

    def original(self, photo_id: str) -> str:
        """The photo that this one is a copy of, or itself."""
        seen = {photo_id}
        while (other := self.photos[photo_id]["copy_of"]) in self.photos and other not in seen:
            seen.add(other)
            photo_id = other
        return photo_id


def write_truth(folder: str, photos: pa.Table, people: pa.Table, outfits: pa.Table, facts: Facts) -> None:
    """Writes a truth folder. Raises pyarrow.ArrowInvalid when a table does not fit its schema."""
    for name, table in (("photos", photos), ("people", people), ("outfits", outfits)):
        schema = _SCHEMAS[name]
        write_table(join(folder, f"{name}.parquet"), table.select(schema.names).cast(schema))
    write_bytes(join(folder, "facts.json"), json.dumps(facts, indent=1).encode())


def read_truth(folder: str) -> Truth:
    """Reads a truth folder. Raises ConfigError that names the file that is missing or unfit."""
    tables = {name: _read(folder, name) for name in _SCHEMAS}
    people: dict[str, list[dict[str, Any]]] = {}
    for row in tables["people"].to_pylist():
        people.setdefault(row["photo_id"], []).append(row)
    return Truth(
        photos={row["photo_id"]: row for row in tables["photos"].to_pylist()},
        people=people,
        garments={row["outfit"]: json.loads(row["garments"]) for row in tables["outfits"].to_pylist()},
        facts=_facts(folder),
    )


def _read(folder: str, name: str) -> pa.Table:
    file = join(folder, f"{name}.parquet")
    if not exists(file):
        raise ConfigError(f"--truth {folder}: has no {name}.parquet")
    try:
        table = read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{file}: {one_line(error)}") from None
    missing = [column for column in _SCHEMAS[name].names if column not in table.column_names]
    if missing:
        raise ConfigError(f"{file}: has no column {', '.join(missing)}")
    return table


def _facts(folder: str) -> Facts:
    file = join(folder, "facts.json")
    if not exists(file):
        raise ConfigError(f"--truth {folder}: has no facts.json")
    try:
        facts = json.loads(read_bytes(file))
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON: {one_line(error)}") from None
    if not isinstance(facts, dict):
        raise ConfigError(f"{file}: must be an object of facts")
    return facts


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    key    its name in JSON
    says   what it is, in words
    value  the number; None where there was nothing to measure
    count  how many things it was measured on; None where the value is itself a count
    """

    key: str
    says: str
    value: float | int | None
    count: int | None


def share(key: str, says: str, good: float, total: int) -> Measure:
    """good / total, rounded to 5 digits; None of nothing."""
    return Measure(key, says, round(good / total, 5) if total else None, total)
