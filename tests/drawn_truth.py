"""The truth of a drawn collection, written as `persona eval` reads it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.evaluation.truth import OUTFITS_SCHEMA, PEOPLE_SCHEMA, PHOTOS_SCHEMA, Facts, write_truth
from curation.people.atr import encode_map
from tests.drawn_people import BOX, HEAD, HEIGHT, LEGS, SHOES, TORSO, WIDTH, Drawn

# What the plain captioner says of every drawn person: three facts of it, one word each.
FACTS: Facts = {
    "pose": {"whole": ["in full length"]},
    "scene": {"feet": ["feet in view"], "none": ["in the dark"]},
    "framing": {"full": ["a person"]},
}
STATED = {"pose": "whole", "scene": "feet", "framing": "full"}


def labels_of() -> np.ndarray:
    """uint8 ATR labels of the drawn figure on BOX."""
    whole = np.zeros((HEIGHT, WIDTH), np.uint8)
    for (x0, y0, x1, y1), label in ((HEAD, 11), (TORSO, 4), (LEGS, 6), (SHOES, 9)):
        whole[y0:y1, x0:x1] = label
    return whole[BOX[1] : BOX[3], BOX[0] : BOX[2]]


def rows_of(
    drawn: list[Drawn], copies: dict[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of photos, people and outfits; `copies` is {name of a copy: name of its original}."""
    ids = {photo.name: hashlib.sha256(photo.jpeg).hexdigest() for photo in drawn}
    photos, people, outfits = [], [], {}
    for photo in drawn:
        original = copies.get(photo.name)
        photos.append(
            {
                "photo_id": ids[photo.name],
                "path": photo.name,
                "width": WIDTH,
                "height": HEIGHT,
                "kind": "photo",
                "copy_of": None if original is None else ids[original],
                "scene": "feet",
            }
        )
        identity = f"person-{photo.person}"
        outfit = f"{identity}-{photo.outfit}"
        people.append(
            {
                "photo_id": ids[photo.name],
                "index": 0,
                "identity": identity,
                "outfit": outfit,
                "box": [float(value) for value in BOX],
                "keypoints": [0.0] * 51,
                "labels": encode_map(labels_of()),
                "visible_share": 1.0,
                "face_visible": True,
                "main": True,
                **STATED,
            }
        )
        outfits[outfit] = {"outfit": outfit, "identity": identity, "garments": json.dumps({})}
    return photos, people, list(outfits.values())


def write_rows(
    folder: Path,
    photos: list[dict[str, Any]],
    people: list[dict[str, Any]],
    outfits: list[dict[str, Any]],
    facts: Facts = FACTS,
) -> Path:
    """A truth folder of these rows."""
    write_truth(
        str(folder),
        pa.Table.from_pylist(photos, PHOTOS_SCHEMA),
        pa.Table.from_pylist(people, PEOPLE_SCHEMA),
        pa.Table.from_pylist(outfits, OUTFITS_SCHEMA),
        facts,
    )
    return folder
