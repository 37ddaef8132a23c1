"""A small drawn collection: people as coloured figures, whose truth is known, for tests of the engine.

Every figure stands in the middle of its photo. Its head is a grid of colours that is the person's
own, torso, legs and shoes have the colours of the outfit, the background is that of the photo.
"""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 160, 240
# Where parts of the figure lie, as x0, y0, x1, y1.
BOX = (50, 20, 110, 230)
HEAD = (66, 22, 94, 54)
TORSO = (54, 56, 106, 130)
LEGS = (60, 130, 100, 214)
SHOES = (58, 214, 102, 228)
GRID = 4


@dataclass(frozen=True)
class Drawn:
    """One photo of the collection and who, in which outfit, is on it."""

    name: str
    person: int
    outfit: int
    jpeg: bytes


def draw(seed: int, person: int, outfit: int, number: int) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3] photo `number` of a person in an outfit."""
    world = np.random.default_rng([seed, 1, number])
    coarse = world.integers(0, 256, (6, 4, 3)).astype(np.uint8)
    photo = np.array(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    clothes = np.random.default_rng([seed, 2, person, outfit]).integers(0, 256, (3, 3))
    face = np.random.default_rng([seed, 3, person]).integers(0, 256, (GRID, GRID, 3)).astype(np.uint8)
    for (x0, y0, x1, y1), colour in zip((TORSO, LEGS, SHOES), clothes, strict=True):
        photo[y0:y1, x0:x1] = colour
    x0, y0, x1, y1 = HEAD
    head = Image.fromarray(face).resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST)
    photo[y0:y1, x0:x1] = np.array(head)
    return photo


def collection(seed: int, people: int, outfits: int = 2, photos: int = 3) -> list[Drawn]:
    """`photos` photos of each of `outfits` outfits of each person."""
    drawn = []
    for number in range(people * outfits * photos):
        person, rest = divmod(number, outfits * photos)
        picture = draw(seed, person, rest // photos, number)
        drawn.append(Drawn(f"photo-{number:05d}.jpg", person, rest // photos, jpeg_of(picture)))
    return drawn


def jpeg_of(picture: np.ndarray, quality: int = 92) -> bytes:
    """A picture as JPEG."""
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def write_folder(folder: Path, drawn: list[Drawn]) -> Path:
    """The photos as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in drawn:
        (folder / photo.name).write_bytes(photo.jpeg)
    return folder


def write_tars(folder: Path, drawn: list[Drawn], per_tar: int) -> Path:
    """The photos as img2dataset writes them: KEY.jpg, KEY.json, KEY.txt in numbered tars."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(drawn), per_tar):
        with tarfile.open(folder / f"{start // per_tar:05d}.tar", "w") as tar:
            for number, photo in enumerate(drawn[start : start + per_tar], start):
                record = {"url": f"https://photos.invalid/{number}", "license": "CC-BY-4.0"}
                for suffix, data in (
                    ("jpg", photo.jpeg),
                    ("json", json.dumps(record).encode()),
                    ("txt", f"photo {number}".encode()),
                ):
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return folder
