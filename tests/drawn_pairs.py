"""Small datasets of people of rectangles, in pairs and threes, for tests of training on shards."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from shards.format.sample import json_bytes, label_png
from tests.drawn_shards import write_dataset

HEIGHT, WIDTH = 96, 80
GROUPS = 12


def drawn_photo(random: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A person of rectangles, without shoes on photos of odd numbers."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:24, 30:44] = 11
    labels[24:54, 24:50] = 4
    labels[54:80, 28:46] = 6
    if number % 2 == 0:
        labels[80:86, 26:48] = 9
    blocks = random.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1), labels


def photo_id_of(person: int, number: int) -> str:
    """The photo_id that a record of `write_people` states."""
    return hashlib.sha256(f"{person}-{number}".encode()).hexdigest()


def write_people(folder: Path, shapes: Sequence[tuple[int, int]] = ((HEIGHT, WIDTH),), **limits: int) -> Path:
    """GROUPS groups of two and three photos, losslessly, cut to one height and width after the other."""
    random = np.random.default_rng(0)
    samples = {}
    for person in range(GROUPS):
        key = f"{person:016x}-a"
        members = {"json": json_bytes({"group": key})}
        for number in range(2 + person % 2):
            height, width = shapes[(person + number) % len(shapes)]
            photo, labels = (drawn[:height, :width] for drawn in drawn_photo(random, number))
            sink = io.BytesIO()
            Image.fromarray(photo).save(sink, "PNG")
            record = {
                "photo_id": photo_id_of(person, number),
                "width": width,
                "height": height,
                "orientation": 1,
                "caption": f"A woman waves {number} hands at {person}.",
                "regions": ["full_body", "head", "torso", "legs"] + ["shoes"] * (number % 2 == 0),
            }
            stem = f"{number:03d}"
            members |= {f"{stem}.png": sink.getvalue(), f"{stem}.regions.png": label_png(labels)}
            members[f"{stem}.json"] = json_bytes(record)
        samples[key] = members
    return write_dataset(folder, samples, **limits)
